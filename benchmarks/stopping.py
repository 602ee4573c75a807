"""Interrupt crawls at random moments, resume each, and count what became of every page.

    python benchmarks/stopping.py [--moments 100] [--pages 150] [--faults 0.05] [--drip]

Each moment is a crawl with a JOBDIR that gets SIGINT or SIGTERM up to half a second after a random
number of pages (a tenth of them before the first, counted from when the models are loaded), and a
second one that goes on from there. Every other crawl asks for its pages from ``start()``, the
others in a callback. ``--drip`` has the site send its captcha images a byte a second until the
signal, up to two seconds after the beginning, so that most moments fall into a solve that would
take a minute.

Prints one line of JSON a moment, then the sum. The exit code is 1 when a page vanished or came
twice, an exit took longer than --limit, or there is anything in a log that should not be.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import walled_crawl
import walled_site

#: What may be in no log, whoever wrote it.
TROUBLE = ("Traceback", "Unhandled", "never retrieved", "was destroyed", "ERROR")
GIVE_UP = 300.0


@dataclass
class Run:
    """What one crawl came to."""

    result: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    code: int = 0
    trouble: list[str] = field(default_factory=list)


def run(url: str, folder: Path, options: list[str], stop: tuple[int, float, int] | None) -> Run:
    """Crawl in a process of its own.

    :param stop: after how many pages, and how many seconds more, it gets which signal; ``seconds``
        then counts from there
    """
    command = [sys.executable, walled_crawl.__file__, url, "--log", "INFO", *options]
    command += ["--jobdir", str(folder / "job"), "--dataset", str(folder / "captchas")]
    environment = os.environ | {"TLDEXTRACT_PUBLIC_SUFFIX_LIST_URLS": ""}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    log: list[str] = []
    begins = threading.Event()

    def read() -> None:
        assert process.stderr is not None
        with process.stderr as stderr:
            for line in stderr:
                log.append(line)
                if "Overridden settings" in line:
                    begins.set()

    reader = threading.Thread(target=read)
    reader.start()
    begun = time.monotonic()
    watchdog = threading.Timer(GIVE_UP, process.kill)
    watchdog.start()
    if stop is not None:
        begins.wait(GIVE_UP)
        pages = folder / "job" / "pages"
        while stop[0] and process.poll() is None:
            if pages.exists() and pages.read_bytes().count(b"\n") >= stop[0]:
                break
            time.sleep(0.005)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(stop[1])
        begun = time.monotonic()
        if process.poll() is None:
            process.send_signal(stop[2])
    assert process.stdout is not None
    with process.stdout as stdout:
        said = stdout.read().splitlines()
    process.wait()
    reader.join()
    watchdog.cancel()
    trouble = [line for line in log if any(word in line for word in TROUBLE)]
    result = json.loads(said[-1]) if said else {}
    trouble += result.get("trouble", [])
    return Run(result, time.monotonic() - begun, process.returncode, trouble)


def moment(number: int, options: argparse.Namespace, rng: random.Random) -> dict[str, Any]:
    """Interrupt one crawl and resume it."""
    tenth = options.pages // 10
    pages = 0 if options.drip else max(0, rng.randrange(-tenth, options.pages - tenth))
    wait = rng.uniform(0, 2.0 if options.drip else 0.5)
    stop = (pages, wait, rng.choice((signal.SIGINT, signal.SIGTERM)))
    asked = ["--pages", str(options.pages), "--concurrency", str(rng.choice((1, 4, 16)))]
    asked += ["--timeout", str(options.timeout)] + ["--index"] * (number % 2)
    walls = ["--every", "5", "--delay", str(options.delay), "--faults", str(options.faults)]
    walls += ["--wrong", "0.2", "--seed", str(number)]
    walls += ["--drip"] * options.drip
    with tempfile.TemporaryDirectory() as folder, walled_site.running(*walls) as site:
        first = run(site.url, Path(folder), asked, stop)
        if options.drip:
            urllib.request.urlopen(f"{site.url}/hurry").close()
        second = run(site.url, Path(folder), asked, None)
        lines = (Path(folder) / "job" / "pages").read_text(encoding="ascii").split("\n")
    ends = Counter(line.split()[1] for line in lines if line)
    return told(number, stop, first, second, ends, options.pages)


def told(
    number: int,
    stop: tuple[int, float, signal.Signals],
    first: Run,
    second: Run,
    ends: Counter[str],
    pages: int,
) -> dict[str, Any]:
    """What came of a moment, and whether it is as it should be."""
    return {
        "moment": number,
        "after": f"{stop[0]} pages and {stop[1]:.3f} s",
        "signal": stop[2].name,
        "solving": first.result.get("solving", 0),
        "reason": first.result.get("finish_reason"),
        "exit": round(first.seconds, 2),
        "codes": [first.code, second.code],
        "before": first.result.get("callbacks"),
        "failed": first.result.get("errbacks", 0) + second.result.get("errbacks", 0),
        "vanished": pages - len(ends),
        "twice": sum(count > 1 for count in ends.values()),
        "trouble": (first.trouble + second.trouble)[:5],
    }


def main() -> int:
    """Parse the options and go through the moments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--moments", type=int, default=100)
    parser.add_argument("--pages", type=int, default=150)
    parser.add_argument("--delay", type=float, default=0.03, help="seconds the site takes, on mean")
    parser.add_argument("--faults", type=float, default=0.0, help="share of failing requests")
    parser.add_argument("--timeout", type=float, default=60.0, help="DOWNLOAD_TIMEOUT")
    parser.add_argument("--drip", action="store_true", help="images come a byte a second")
    parser.add_argument("--limit", type=float, default=30.0, help="longest exit to pass")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    moments = []
    for number in range(options.moments):
        moments.append(moment(number, options, rng))
        print(json.dumps(moments[-1]), flush=True)
    exits = sorted(each["exit"] for each in moments)
    total = {
        "moments": len(moments),
        "interrupted": sum(each["reason"] == "shutdown" for each in moments),
        "solving": sum(bool(each["solving"]) for each in moments),
        "vanished": sum(each["vanished"] for each in moments),
        "twice": sum(each["twice"] for each in moments),
        "trouble": sum(bool(each["trouble"]) for each in moments),
        "codes": sum(any(each["codes"]) for each in moments),
        "exit": {"median": exits[len(exits) // 2], "max": exits[-1]},
    }
    print(json.dumps(total), flush=True)
    bad = [total[key] for key in ("vanished", "twice", "trouble", "codes")]
    return int(any(bad) or exits[-1] > options.limit)


if __name__ == "__main__":
    sys.exit(main())
