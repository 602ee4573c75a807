"""Open-loop load on a web service: requests at a fixed rate, whatever becomes of those before.

Each request is due at a time that is fixed beforehand, and its latency counts from then, so that
a service which makes its clients wait cannot hide that. Two public tools can send them: wrk, with
a script that paces it, and k6. wrk takes about half of k6's processor time for a request, which
matters when both run on the service's own cores.
"""

from __future__ import annotations

import json
import math
import os
import resource
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HERE = Path(__file__).parent
TOOLS = ("wrk", "k6")
#: Seconds that wrk's clients have to connect, and that the last answers have to come.
LEAD, TAIL = 1.0, 2.0
#: Requests a second of one client, at most: while an answer takes less than the time between two,
#: none waits for the one before it. And at least, or the server closes its idle connection.
PER_CLIENT = (0.5, 8)


class Answer(NamedTuple):
    """An answer of the service: when it was due, and what came of it (all in seconds)."""

    due: float
    late: float
    taken: float
    status: int
    ok: bool

    @property
    def from_sending(self) -> float:
        """How long the answer took from when its request was sent."""
        return self.taken - max(0.0, self.late)


@dataclass(frozen=True)
class Step:
    """What became of the requests at one rate.

    Attributes:
        rate: requests a second.
        sent: how many were due.
        ok: answered with a reading; `good` of them within the deadline.
        refused: answered 429.
        failed: answered otherwise, or not at all.
        p50: milliseconds from due to answer, of those read; `p99` and `latest` likewise.
        longest: the most milliseconds from sending to answer, of those read.
        behind: milliseconds that the generator was late with sending, 99th percentile.
        generator: microseconds of processor time for a request that the generator took.
        server: likewise the server with its processes.

    """

    rate: int
    seconds: float
    sent: int
    ok: int
    good: int
    refused: int
    failed: int
    p50: float
    p99: float
    latest: float
    longest: float
    behind: float
    generator: float = 0.0
    server: float = 0.0

    @property
    def goodput(self) -> float:
        """Readings a second that came within the deadline."""
        return self.good / self.seconds

    def passes(self, milliseconds: float) -> bool:
        """Whether all were read, 99 % within so much time."""
        return self.ok == self.sent and self.p99 <= milliseconds


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: the smallest value that so many percent do not exceed."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(percent / 100 * len(values)) - 1)]


def due(rate: int, seconds: float) -> int:
    """How many requests fall into so many seconds, the first at once."""
    return math.ceil(rate * seconds)


def clients(rate: int, waiting: int) -> int:
    """How many clients send at a rate, of whom so many may have to wait for an answer."""
    slowest, fastest = PER_CLIENT
    return min(max(math.ceil(rate / fastest), waiting), math.ceil(rate / slowest))


def parse(lines: str) -> list[Answer]:
    """The records of service_wrk.lua."""
    fields = (line.split() for line in lines.splitlines())
    return [
        Answer(float(when), float(late), float(taken), int(status), ok == "1")
        for when, late, taken, status, ok in fields
    ]


def summary(answers: Sequence[Answer], rate: int, seconds: float, deadline: float) -> Step:
    """What became of all requests that were due; those without an answer have failed."""
    read = [1000 * answer.taken for answer in answers if answer.ok]
    refused = sum(answer.status == 429 for answer in answers)
    sent = due(rate, seconds)
    return Step(
        rate=rate,
        seconds=seconds,
        sent=sent,
        ok=len(read),
        good=sum(milliseconds <= 1000 * deadline for milliseconds in read),
        refused=refused,
        failed=sent - len(read) - refused,
        p50=percentile(read, 50),
        p99=percentile(read, 99),
        latest=max(read, default=math.nan),
        longest=max(
            (1000 * answer.from_sending for answer in answers if answer.ok), default=math.nan
        ),
        behind=percentile([1000 * answer.late for answer in answers], 99),
    )


def summary_of_k6(found: dict[str, Any], rate: int, seconds: float) -> Step:
    """The same of what service_k6.js prints."""
    read, refused = found["answered"], int(found["refused"].get("count", 0))
    ok, failed = int(read.get("count", 0)), int(found["failed"].get("count", 0))
    failed += int(found["dropped_iterations"].get("count", 0))
    return Step(
        rate=rate,
        seconds=seconds,
        sent=ok + refused + failed,
        ok=ok,
        good=int(found["good"].get("count", 0)),
        refused=refused,
        failed=failed,
        p50=read.get("p(50)", math.nan),
        p99=read.get("p(99)", math.nan),
        latest=read.get("max", math.nan),
        longest=found["from_sending"].get("max", math.nan),
        behind=found["behind"].get("p(99)", math.nan),
    )


def capacity(passes: Callable[[int], bool], start: int, precision: float = 0.03) -> int:
    """The highest rate that passes, to within a share of it; 0 when not even 1 does.

    Args:
        passes: whether a rate does; assumed to hold up to the capacity and not beyond.
        start: the first rate to try, from which it goes up or down by halves.
        precision: the first rate known to fail is at most so much higher than the result.

    """
    low, high = 0, max(1, start)
    if passes(high):
        low, high = high, math.ceil(high * 1.5)
        while passes(high):
            low, high = high, math.ceil(high * 1.5)
    while not low and high > 1:
        lower = max(1, math.floor(high / 1.5))
        if passes(lower):
            low = lower
        else:
            high = lower
    while low and high - low > max(1, precision * low):
        middle = (low + high) // 2
        if passes(middle):
            low = middle
        else:
            high = middle
    return low


def send(
    tool: str, url: str, bodies: Path, *, rate: int, waiting: int, seconds: float, deadline: float
) -> Step:
    """Send requests at a rate and wait for their answers.

    Args:
        tool: one of `TOOLS`.
        url: where to.
        bodies: a folder of 0.json, 1.json, ..., which are sent in turn.
        rate: requests a second.
        waiting: how many clients may have to wait before requests are sent late.
        seconds: for how long.
        deadline: seconds after which a reading is of no use any more.

    Raises:
        OSError: when the tool is missing or fails.

    """
    if not shutil.which(tool):
        raise FileNotFoundError(f"{tool} is not installed; see the first lines of service.py")
    count = clients(rate, waiting)
    settings = {
        "URL": url,
        "RATE": rate,
        "SECONDS": seconds,
        "CLIENTS": count,
        "BODIES": bodies,
        "IMAGES": sum(1 for _ in bodies.iterdir()),
        "DEADLINE": deadline,
        "START": time.clock_gettime(time.CLOCK_MONOTONIC) + LEAD,
    }
    with tempfile.NamedTemporaryFile("r", encoding="ascii") as records:
        settings["RECORDS"] = records.name
        environment = os.environ | {name: str(value) for name, value in settings.items()}
        length = f"{math.ceil(LEAD + seconds + TAIL)}s"
        if tool == "wrk":
            script = str(HERE / "service_wrk.lua")
            command = ["wrk", f"-t{count}", f"-c{count}", "-d", length, "-s", script, url]
        else:
            script = str(HERE / "service_k6.js")
            command = ["k6", "run", "--quiet", "--no-usage-report", script]
            environment["GOGC"] = "300"
        output = run(command, environment)
        if tool == "k6":
            return summary_of_k6(json.loads(output), rate, seconds)
        return summary(parse(records.read()), rate, seconds, deadline)


def run(command: list[str], environment: dict[str, str]) -> str:
    """Run a tool and return what it printed.

    Raises:
        OSError: when it fails.

    """
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip()
        raise OSError(f"{command[0]} ended with {done.returncode}: {said}")
    return done.stdout


def children_seconds() -> float:
    """Processor time of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
