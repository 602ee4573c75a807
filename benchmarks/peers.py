"""The shipped readers beside ddddocr on labelled images: exact match, and time for an image.

    pip install ddddocr
    python benchmarks/peers.py SET[=CHARSET]... [--model BUNDLE]... [--limit 500] [--alone] [--json]

A set is a folder or zip of LABEL.png or LABEL_x.png; after "=" stand the characters that its images
have, and every reader is told so. Capitals count as small letters. All readers look at an image in
turn, so that whatever else the machine does hits them alike; with --alone only ours do, which
keeps their caches as warm as a crawl's. Milliseconds are medians, from bytes to text.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass, field
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from scrapy_captcha import Recognizer
from scrapy_captcha.errors import ImageError
from scrapy_captcha.intervals import wilson
from trainer.corpus import gather

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainer.corpus import Sample

    Read = Callable[[bytes, str], str]

ALNUM = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass
class Tally:
    """What one reader made of one set."""

    hits: int = 0
    images: int = 0
    milliseconds: list[float] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """Its figures, rounded."""
        low, high = wilson(self.hits, self.images)
        return {
            "exact_match": round(self.hits / self.images, 4),
            "interval_95": [round(low, 4), round(high, 4)],
            "n": self.images,
            "milliseconds": round(median(self.milliseconds), 3),
        }


def ours(model: str) -> Read:
    """A bundle of this project; it is not told the length."""
    recognizer = Recognizer.load(model)

    def read(image: bytes, charset: str) -> str:
        try:
            return recognizer.read(image, charset=charset).text
        except ImageError:
            return ""

    return read


def peer(*, beta: bool) -> Read:
    """Ddddocr, which reads capitals as such."""
    from ddddocr import DdddOcr  # noqa: PLC0415 - in none of the extras

    ocr, restricted = DdddOcr(show_ad=False, beta=beta), ""

    def read(image: bytes, charset: str) -> str:
        nonlocal restricted
        if charset != restricted:
            ocr.set_ranges("".join(dict.fromkeys(charset + charset.upper())))
            restricted = charset
        return str(ocr.classification(image)).lower()

    return read


def measure(readers: dict[str, Read], samples: list[Sample], charset: str) -> dict[str, Tally]:
    """Have all readers read all images, in turn."""
    tallies = {name: Tally() for name in readers}
    for sample in samples:
        for name, read in readers.items():
            begin = time.perf_counter()
            text = read(sample.data, charset)
            tally = tallies[name]
            tally.milliseconds.append((time.perf_counter() - begin) * 1000)
            tally.images += 1
            tally.hits += text == sample.label.lower()
    return tallies


def main() -> int:
    """Print a line for each set and reader, then the means."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="+", metavar="SET[=CHARSET]")
    parser.add_argument("--model", action="append", metavar="BUNDLE", help="default: alnum4")
    parser.add_argument("--limit", type=int, default=500, help="images of each set")
    parser.add_argument("--alone", action="store_true", help="without ddddocr")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    readers = {model: ours(model) for model in options.model or ["alnum4"]}
    if not options.alone:
        readers |= {"ddddocr": peer(beta=False), "ddddocr-beta": peer(beta=True)}
    rows = []
    for each in options.sets:
        path, _, charset = each.partition("=")
        samples = gather([path])[: options.limit]
        for name, tally in measure(readers, samples, charset or ALNUM).items():
            rows.append({"set": path, "reader": name, **tally.row()})
    means = [
        {
            "reader": name,
            "exact_match": round(mean(r["exact_match"] for r in rows if r["reader"] == name), 4),
            "milliseconds": round(mean(r["milliseconds"] for r in rows if r["reader"] == name), 3),
        }
        for name in readers
    ]
    if options.json:
        print(json.dumps({"rows": rows, "means": means}))
        return 0
    for row in rows:
        low, high = row["interval_95"]
        print(
            f"{row['set']}: {row['reader']:>12} {row['exact_match']:.4f} ({low:.4f} to {high:.4f})"
            f" of {row['n']}, {row['milliseconds']:.3f} ms"
        )
    for row in means:
        print(f"mean: {row['reader']:>12} {row['exact_match']:.4f}, {row['milliseconds']:.3f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
