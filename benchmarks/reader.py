"""How long the reader takes from an image's bytes to its text, and where the time goes.

    python benchmarks/reader.py [--images 200] [--rounds 5] [--model BUNDLE] [--json]

Reads generated images (text, a line and dots, 120x40, as PNG and as JPEG) one after the other on
one thread. Each figure is a median over all of them, in milliseconds.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import string
import sys
import time
from statistics import median
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, ImageFont

from scrapy_captcha import Recognizer
from scrapy_captcha.image import contrast, decode, shrink
from scrapy_captcha.recognizer import decode_logits

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = (120, 40)
PARTS = ("decode", "shrink", "contrast", "network", "decode_logits")


def draw(number: int) -> bytes:
    """A captcha-like image; every other one is a JPEG."""
    chance = random.Random(number)
    image = Image.new("RGB", SIZE, (240, 244, 238))
    text = "".join(chance.choices(string.ascii_lowercase + string.digits, k=4))
    colour = tuple(chance.randrange(120) for _ in range(3))
    pen = ImageDraw.Draw(image)
    pen.text((10, 2), text, fill=colour, font=ImageFont.load_default(32))
    pen.line([(0, chance.randrange(40)), (120, chance.randrange(40))], fill=colour, width=2)
    pen.point([(chance.randrange(120), chance.randrange(40)) for _ in range(300)], fill=colour)
    file = io.BytesIO()
    image.save(file, "JPEG" if number % 2 else "PNG")
    return file.getvalue()


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Milliseconds that a call took, and what it returned."""
    begin = time.perf_counter()
    result = function(*arguments)
    return (time.perf_counter() - begin) * 1000, result


def measure(recognizer: Recognizer, images: list[bytes], rounds: int) -> dict[str, float]:
    """Medians of the whole and of its parts, measured in turns."""
    times: dict[str, list[float]] = {name: [] for name in ("read", *PARTS)}
    for _ in range(rounds):
        for image in images:
            times["read"].append(timed(recognizer.read, image)[0])
            value: Any = image
            for name, function in zip(
                PARTS,
                (
                    decode,
                    shrink,
                    contrast,
                    recognizer.logits,
                    lambda logits: decode_logits(logits, recognizer.manifest),
                ),
                strict=True,
            ):
                taken, value = timed(function, value)
                times[name].append(taken)
    return {name: median(values) for name, values in times.items()}


def main() -> int:
    """Parse the options, measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="alnum4")
    parser.add_argument("--limit", type=float, default=0.55, help="milliseconds for all of it")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    recognizer = Recognizer.load(options.model)
    images = [draw(number) for number in range(options.images)]
    measure(recognizer, images[:20], 1)  # warms up
    result = measure(recognizer, images, options.rounds)
    if options.json:
        print(json.dumps({"images": options.images, "rounds": options.rounds} | result))
    else:
        for name, value in result.items():
            print(f"{name:>14} {value:7.3f} ms")
    return int(result["read"] > options.limit)


if __name__ == "__main__":
    sys.exit(main())
