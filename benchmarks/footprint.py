"""What a crawl with the add-on costs before its first request: seconds, and memory at its peak.

    python benchmarks/footprint.py [--runs 9] [--model BUNDLE] [--json]

Each run is a Scrapy process that crawls nothing: bare, or with the add-on enabled and its model
loaded. The figures are differences of medians. The exit code is 1 above a limit, or when
TensorFlow was imported.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from statistics import median
from typing import Any

MEGABYTE = 1 << 20


def start(model: str | None) -> dict[str, Any]:
    """Import Scrapy, open and close a crawl; with the add-on if there is a model."""
    begin, begin_cpu = time.perf_counter(), time.process_time()
    from scrapy import Spider  # noqa: PLC0415 - its import is part of what is measured
    from scrapy.crawler import AsyncCrawlerProcess  # noqa: PLC0415

    settings: dict[str, Any] = {"LOG_LEVEL": "ERROR", "TELNETCONSOLE_ENABLED": False}
    if model is not None:
        settings |= {
            "ADDONS": {"scrapy_captcha.Addon": 500},
            "CAPTCHA_SITES": {"shop.example": {}},
            "CAPTCHA_DATASET": None,
            "CAPTCHA_MODEL": model,
        }
    opened: list[float] = []

    class Nothing(Spider):
        name = "nothing"

        async def start(self) -> Any:
            opened.append(time.perf_counter() - begin)
            opened.append(time.process_time() - begin_cpu)
            return
            yield

    process = AsyncCrawlerProcess(settings)
    process.crawl(Nothing)
    process.start()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds": opened[0],
        "cpu": opened[1],
        "megabytes": peak * (1 if sys.platform == "darwin" else 1024) / MEGABYTE,
        "tensorflow": "tensorflow" in sys.modules,
        "litert": "ai_edge_litert" in sys.modules,
    }


def run(model: str | None) -> dict[str, Any]:
    """The same in a fresh process."""
    command = [sys.executable, __file__, "--once"]
    if model is not None:
        command += ["--model", model]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"the crawl failed:\n{result.stderr}")
    found: dict[str, Any] = json.loads(result.stdout)
    if found["litert"] != (model is not None):
        sys.exit(f"expected the model to be loaded with the add-on alone:\n{result.stderr}")
    return found


def main() -> int:
    """Parse the options and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--model", help="CAPTCHA_MODEL of the crawl")
    parser.add_argument("--max-seconds", type=float, default=0.6)
    parser.add_argument("--max-megabytes", type=float, default=80)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        print(json.dumps(start(options.model)))
        return 0
    model = options.model or "auto"
    run(model)  # warms the file cache
    pairs = [(run(None), run(model)) for _ in range(options.runs)]
    result: dict[str, Any] = {"runs": options.runs}
    for key in ("seconds", "cpu", "megabytes"):
        bare, addon = (median(found[key] for found in side) for side in zip(*pairs, strict=True))
        result[key] = {"bare": bare, "addon": addon, "difference": addon - bare}
    result["tensorflow"] = any(found["tensorflow"] for pair in pairs for found in pair)
    if options.json:
        print(json.dumps(result))
    else:
        print(f"{'':>10} {'bare':>8} {'add-on':>8} {'more':>8}")
        for key in ("seconds", "cpu", "megabytes"):
            print(f"{key:>10} " + " ".join(f"{value:8.2f}" for value in result[key].values()))
    return int(
        result["seconds"]["difference"] > options.max_seconds
        or result["megabytes"]["difference"] > options.max_megabytes
        or result["tensorflow"]
    )


if __name__ == "__main__":
    sys.exit(main())
