"""What the add-on costs on ordinary pages of a listed site, in wall time and in CPU time.

    python benchmarks/crawl_overhead.py [--pages 400] [--kb 50] [--forms] [--pairs 8] [--json]
    python benchmarks/crawl_overhead.py --profile     # where the add-on spends its time

Each pair is one crawl with the add-on and one without, each in a process of its own, in
alternating order. Time counts from the first item to the last. The exit code is 1 above --limit.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import json
import pstats
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from ordinary_crawl import crawl

if TYPE_CHECKING:
    from collections.abc import Iterator

SITE = Path(__file__).with_name("ordinary_site.py")
CRAWL = Path(__file__).with_name("ordinary_crawl.py")
MEASURES = ("seconds", "cpu")


@contextlib.contextmanager
def site(pages: int, kb: int, forms: bool) -> Iterator[str]:
    """Run the site in a process of its own; its address."""
    command = [sys.executable, str(SITE), "--pages", str(pages), "--kb", str(kb)]
    process = subprocess.Popen(
        command + ["--forms"] * forms, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def measure(url: str, options: argparse.Namespace, *, addon: bool) -> dict[str, Any]:
    """Crawl in a fresh process."""
    command = [sys.executable, str(CRAWL), url, "--concurrency", str(options.concurrency)]
    if addon:
        command += ["--model", options.model]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"the crawl failed:\n{result.stderr}")
    found: dict[str, Any] = json.loads(result.stdout)
    if found["items"] != options.pages:
        sys.exit(f"expected {options.pages} items, got {found['items']}:\n{result.stderr}")
    return found


def compare(url: str, options: argparse.Namespace) -> dict[str, Any]:
    """All pairs, and for each measure the ratio of the medians."""
    pairs = []
    for number in range(options.pairs):
        order = (False, True) if number % 2 == 0 else (True, False)
        runs = {addon: measure(url, options, addon=addon) for addon in order}
        pair = {"bare": runs[False], "addon": runs[True]}
        pair["ratio"] = {key: runs[True][key] / runs[False][key] for key in MEASURES}
        pairs.append(pair)
        if not options.json:
            print(row(str(number + 1), pair), flush=True)
    middle: dict[str, Any] = {
        which: {key: median(pair[which][key] for pair in pairs) for key in MEASURES}
        for which in ("bare", "addon")
    }
    middle["ratio"] = {key: middle["addon"][key] / middle["bare"][key] for key in MEASURES}
    if not options.json:
        print(row("median", middle))
    asked = {"pages": options.pages, "kb": options.kb, "forms": options.forms}
    return asked | {"pairs": pairs} | middle


def row(name: str, pair: dict[str, Any]) -> str:
    """One line of the table."""
    columns = [
        f"{pair['bare'][key]:8.3f} {pair['addon'][key]:8.3f} {pair['ratio'][key]:7.3f}"
        for key in MEASURES
    ]
    return f"{name:>6} " + "  ".join(columns)


def profile(url: str, options: argparse.Namespace) -> None:
    """Crawl with the add-on under cProfile and print what its own functions cost."""
    with tempfile.NamedTemporaryFile() as file:
        profiler = cProfile.Profile()
        profiler.enable()
        crawl(url, model=options.model, concurrency=options.concurrency)
        profiler.disable()
        profiler.dump_stats(file.name)
        found = pstats.Stats(file.name)
    found.sort_stats("cumulative").print_stats("scrapy_captcha", 25)


def main() -> int:
    """Parse the options; compare, or profile."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pages", type=int, default=400)
    parser.add_argument("--kb", type=int, default=50, help="size of a page")
    parser.add_argument("--forms", action="store_true", help="a search form on every page")
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--model", default="auto", help="CAPTCHA_MODEL of the crawl")
    parser.add_argument("--limit", type=float, default=1.03, help="largest ratio to pass")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with site(options.pages, options.kb, options.forms) as url:
        if options.profile:
            profile(url, options)
            return 0
        if not options.json:
            print(f"{options.pages} pages of {options.kb} KB, seconds: bare, with add-on, ratio")
            print(f"{'pair':>6} {'wall time':^25}  {'CPU time':^25}")
        result = compare(url, options)
    if options.json:
        print(json.dumps(result))
    return int(max(result["ratio"].values()) > options.limit)


if __name__ == "__main__":
    sys.exit(main())
