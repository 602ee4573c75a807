"""Crawl for long, and see whether memory, open files or the time for a page grow.

    python benchmarks/long_run.py [--pages 200000] [--every 20] [--cookiejars 0] [--sample 2]
    python benchmarks/long_run.py --bare      # ordinary pages and Scrapy alone, to compare with

The crawl's process is looked at every few seconds. The first fifth of the pages is the warm-up; the
slope of the memory (least squares) is over the rest, in bytes a page. The pace is that of the last
tenth by that of the first tenth after the warm-up, in pages a second of time and of CPU time.
Scrapy's duplicate filter, which remembers every address, is left out.

Prints one line of JSON. The exit code is 1 when a page went astray, the slope is above --slope,
more files were open at once in the second half after the warm-up than in the first, connections
included, by more than --files, or the pace by CPU time fell below --pace.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import faults
import numpy as np
import walled_crawl
import walled_site

WARM_UP, STRETCH = 0.2, 0.1


def figures(samples: list[list[float]], pages: int) -> dict[str, Any]:
    """What the samples say.

    :param samples: of seconds, CPU seconds, pages done, bytes of memory and open files
    """
    seconds, cpu, done, memory, files = np.array(samples, float).T
    warm = done >= WARM_UP * pages
    half = (1.0 + WARM_UP) / 2 * pages
    first_half, second_half = warm & (done <= half), done > half
    slope = float(np.polyfit(done[warm], memory[warm], 1)[0])

    def pace(clock: np.ndarray, begin: float) -> float:
        """Pages a second, from a number of pages to a stretch more."""
        start, end = begin * pages, (begin + STRETCH) * pages
        return (end - start) / float(np.diff(np.interp([start, end], done, clock))[0])

    first, last = WARM_UP, 1.0 - STRETCH
    return {
        "seconds": round(float(seconds[-1]), 1),
        "megabytes": [round(float(memory[warm][i]) / 2**20, 1) for i in (0, -1)],
        "bytes_a_page": round(slope, 1),
        "files": [int(files[first_half].max()), int(files[second_half].max())],
        "pages_a_second": [round(pace(seconds, at), 1) for at in (first, last)],
        "pace": round(pace(seconds, last) / pace(seconds, first), 3),
        "pace_by_cpu": round(pace(cpu, last) / pace(cpu, first), 3),
    }


def main() -> int:
    """Parse the options and crawl."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pages", type=int, default=200_000)
    parser.add_argument("--every", type=int, default=20, help="pages after a captcha")
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--cookiejars", type=int, default=0, help="sessions; 0: one")
    parser.add_argument("--bare", action="store_true", help="no captchas and no add-on")
    parser.add_argument("--sample", type=float, default=2.0, help="seconds between two looks")
    parser.add_argument("--slope", type=float, default=64.0, help="most bytes a page to pass")
    parser.add_argument("--files", type=int, default=2, help="most files more to pass")
    parser.add_argument("--pace", type=float, default=0.95, help="least pace to pass")
    options = parser.parse_args()
    asked = ["--pages", str(options.pages), "--concurrency", str(options.concurrency)]
    asked += ["--cookiejars", str(options.cookiejars), "--sample", str(options.sample)]
    asked += ["--unfiltered", *["--bare"] * options.bare]
    every = 0 if options.bare else options.every
    with tempfile.TemporaryDirectory() as folder:
        dataset = Path(folder) / "captchas"
        with walled_site.running("--every", str(every)) as site:
            result = walled_crawl.apart(site.url, *asked, "--dataset", str(dataset))
    found = figures(result.pop("samples"), options.pages)
    print(json.dumps(result | {"site": site.served} | found))
    before, after = found["files"]
    grown = after - before > options.files or found["bytes_a_page"] > options.slope
    return int(faults.is_bad(result) or grown or found["pace_by_cpu"] < options.pace)


if __name__ == "__main__":
    sys.exit(main())
