"""What a threshold of confidence saves: submissions and requests for each page behind a captcha.

    python benchmarks/confidence.py FOLDER_OR_ZIP... [--model BUNDLE] [--page] [--json]

Reads labelled images and works out what ``CAPTCHA_MIN_CONFIDENCE`` would have cost. A reading below
the threshold costs a new image (a request, or two where the page comes anew with it: --page). An
answer costs its submission, and when it is wrong the site shows a new image. At most three times
``CAPTCHA_MAX_ATTEMPTS`` (8) images are fetched before one is submitted all the same, as in a crawl.
The first line of each table is the default: the threshold is the number of right answers for each
request, and at most two images are passed over in a row.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from scrapy_captcha import Recognizer
from scrapy_captcha.errors import ImageError
from scrapy_captcha.worth import PASSED_OVER
from trainer.corpus import gather

THRESHOLDS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
MOST_IMAGES = 24
#: After so many the threshold of the default has settled.
ROUNDS = 20


def costs(
    readings: list[tuple[float, bool]], threshold: float, fetch: int, most: int = MOST_IMAGES
) -> dict[str, float]:
    """Submissions and requests that one page takes on average.

    Images come at random, so the number that is passed over before a submission is geometric, cut
    off at the most, and so is the number of submissions before one is right.

    Args:
        readings: confidence and whether the text was right, one for each image.
        threshold: below it nothing is submitted.
        fetch: requests that a new image takes.
        most: the last of so many images is submitted whatever its confidence.

    """
    sure = [right for confidence, right in readings if confidence >= threshold]
    cover = len(sure) / len(readings)
    base = max(1, sum(right for _, right in readings)) / len(readings)
    missed = (1 - cover) ** (most - 1)  # then the last one goes, whatever it is
    images = (1 - (1 - cover) ** most) / cover if cover else most
    right = (1 - missed) * (sum(sure) / len(sure) if sure else 0.0) + missed * base
    submissions = 1 / max(right, base / len(readings))
    return {
        "threshold": round(threshold, 3),
        "coverage": round(cover, 4),
        "right": round(right, 4),
        "submissions": round(submissions, 3),
        "requests": round(submissions * (1 + fetch * images), 3),
    }


def default_costs(readings: list[tuple[float, bool]], fetch: int) -> dict[str, float]:
    """The costs of the default, whose threshold follows from what it brings.

    Args:
        readings: as for `costs`.
        fetch: requests that a new image takes; the crawl counts one for each.

    """
    threshold = 0.0
    for _ in range(ROUNDS):
        threshold = 1 / costs(readings, threshold, 1, 1 + PASSED_OVER)["requests"]
    return costs(readings, threshold, fetch, 1 + PASSED_OVER)


def main() -> int:
    """Print a table for each set, and the mean over them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("sets", nargs="+", metavar="FOLDER_OR_ZIP")
    parser.add_argument("--model", default="alnum4", metavar="BUNDLE")
    parser.add_argument("--charset", help="only these characters are possible")
    parser.add_argument("--limit", type=int, default=1000, help="images of each set")
    parser.add_argument("--page", action="store_true", help="a new image needs its page anew")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    recognizer = Recognizer.load(options.model)
    tables: dict[str, list[dict[str, float]]] = {}
    for path in options.sets:
        readings = []
        for sample in gather([path])[: options.limit]:
            try:
                read = recognizer.read(sample.data, charset=options.charset)
            except ImageError as e:
                print(f"{sample.name}: {e}", file=sys.stderr)
                continue
            readings.append((read.confidence, read.text == sample.label.lower()))
        fetch = 1 + options.page
        tables[path] = [
            default_costs(readings, fetch),
            *(costs(readings, each, fetch) for each in THRESHOLDS),
        ]
    mean = [mean_of(list(rows)) for rows in zip(*tables.values(), strict=True)]
    tables["mean"] = mean
    if options.json:
        print(json.dumps(tables))
        return 0
    for name, table in tables.items():
        print(name)
        for row in table:
            print("  ", *(f"{key} {value:<7g}" for key, value in row.items()))
    return 0


def mean_of(rows: list[dict[str, float]]) -> dict[str, Any]:
    """The mean of each figure."""
    return {key: round(sum(row[key] for row in rows) / len(rows), 3) for key in rows[0]}


if __name__ == "__main__":
    sys.exit(main())
