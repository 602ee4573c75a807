"""Crawl a site that fails now and then, whatever it is asked, and count what became of its pages.

    python benchmarks/faults.py [--pages 10000] [--concurrency 1 16 128] [--faults 0.2]
    python benchmarks/faults.py --faults 0 --wrong 0        # the same without faults
    python benchmarks/faults.py --bare                      # ordinary pages and Scrapy alone

A tenth of the images ask for another text than anybody reads in them, so that answers are rejected,
too. Prints one line of JSON for each concurrency: callbacks and errbacks, how late the event loop
was in milliseconds, altogether and while an image was read (see ``walled_crawl.py``), and how many
images were stored under a label that the site had rejected. The exit code is 1 when a page was lost
or came twice, a wall was taken for a page, or there is a traceback in the log.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import walled_crawl
import walled_site

from scrapy_captcha.dataset import confirmed_pairs


def wrong_labels(dataset: Path) -> Counter[str]:
    """How many images were confirmed, and how many of those though the site has rejected them."""
    found: Counter[str] = Counter()
    for folder in dataset.iterdir() if dataset.is_dir() else ():
        for pair in confirmed_pairs(folder)[0]:
            found["confirmed"] += 1
            found["wrong"] += b" wrong" in pair.path.read_bytes()
    return found


def measure(concurrency: int, options: argparse.Namespace) -> dict[str, Any]:
    """One crawl."""
    site = ["--every", "0" if options.bare else str(options.every), "--seed", str(options.seed)]
    site += ["--faults", str(options.faults), "--wrong", str(options.wrong)]
    site += ["--redirects"] * options.redirects
    asked = ["--pages", str(options.pages), "--concurrency", str(concurrency)]
    asked += ["--timeout", str(options.timeout), "--cookiejars", str(options.cookiejars)]
    asked += ["--bare"] * options.bare
    with tempfile.TemporaryDirectory() as folder:
        dataset = Path(folder) / "captchas"
        with walled_site.running(*site) as server:
            result = walled_crawl.apart(server.url, *asked, "--dataset", str(dataset))
        more = {"site": server.served, "labels": wrong_labels(dataset)}
    return {"concurrency": concurrency} | result | more


def is_bad(result: dict[str, Any]) -> bool:
    """Whether a page went astray, or a wall got through."""
    ended = result["callbacks"] + result["errbacks"] == result["pages"]
    odd = result["twice"] or result["lost"] or result["trouble"] or "wall" in result["odd"]
    return not ended or bool(odd) or result["finish_reason"] != "finished"


def main() -> int:
    """Parse the options and crawl."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pages", type=int, default=10_000)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 16, 128])
    parser.add_argument("--every", type=int, default=20, help="pages after a captcha")
    parser.add_argument("--faults", type=float, default=0.2, help="share of the requests")
    parser.add_argument("--wrong", type=float, default=0.1, help="share of unanswerable images")
    parser.add_argument("--redirects", action="store_true", help="reject by a redirect")
    parser.add_argument("--timeout", type=float, default=1.0, help="DOWNLOAD_TIMEOUT")
    parser.add_argument("--cookiejars", type=int, default=0, help="sessions at once; 0: one")
    parser.add_argument("--bare", action="store_true", help="no captchas and no add-on")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    bad = False
    for concurrency in options.concurrency:
        result = measure(concurrency, options)
        bad = bad or is_bad(result)
        print(json.dumps(result), flush=True)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
