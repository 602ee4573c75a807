"""Captchas of one style, drawn once and kept: the kind that the original network was made for.

    python benchmarks/one_style.py [--images FOLDER] [--train 100000] [--unseen 10000] [--workers 2]
    python benchmarks/one_style.py --sheet SHEET.png [--beside PICTURE]

90x32, black on white without grey, a line along the top and the left edge, JPEG of quality 75. Four
bold letters of both cases or digits, each turned by itself, run into one another from the left.
O and I are drawn in lower case only, as nobody could tell them from 0 and l. Labels are in lower
case, and the images are kept as the reader would prepare them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import string
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from scrapy_captcha.image import HEIGHT, PREPROCESSING, WIDTH, prepare
from trainer.checkpoint import cache_folder
from trainer.fonts import FOLDERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

CHARSET = string.digits + string.ascii_lowercase
DRAWN = CHARSET + "ABCDEFGHJKLMNPQRSTUVWXYZ"
LENGTH = 4
FACES = (
    "DejaVuSans-Bold.ttf",
    "DejaVuSansCondensed-Bold.ttf",
    "DejaVuSansMono-Bold.ttf",
    "LiberationSans-Bold.ttf",
    "FreeSansBold.ttf",
)
#: Pixels an em, the share of a glyph's advance that the pen moves on by, degrees either way.
SIZE, ADVANCE, TURN = (22.0, 26.0), (0.7, 0.92), 24.0
#: Where the pen starts, and the baseline.
LEFT, BASELINE = (4.0, 8.5), (24.0, 27.5)
QUALITY = 75
#: Glyphs are kept at so many pixels an em.
EM = 160
#: Images drawn at a time, each time from a seed of its own.
CHUNK = 1000
#: Raised with every change to what is drawn, so that old images are not taken for new ones.
VERSION = 1
TRAIN, UNSEEN, SEED = 100_000, 10_000, 1


@dataclass(frozen=True)
class Glyph:
    """A character at `EM` pixels an em: where it has ink, and where that is from the pen."""

    ink: Image.Image
    left: int
    top: int
    advance: float


@lru_cache(maxsize=1)
def faces() -> tuple[str, ...]:
    """The typefaces of the style that are installed."""
    found = {path.name: str(path) for folder in FOLDERS for path in sorted(folder.rglob("*.ttf"))}
    present = tuple(found[name] for name in FACES if name in found)
    if not present:
        raise FileNotFoundError(f"expected one of {', '.join(FACES)} in {FOLDERS[0]}, found none")
    return present


@lru_cache(maxsize=len(FACES) * len(DRAWN))
def glyph(face: str, character: str) -> Glyph:
    """A character of a typeface."""
    font = ImageFont.truetype(face, EM, layout_engine=ImageFont.Layout.BASIC)
    left, top, right, bottom = (int(side) for side in font.getbbox(character, anchor="ls"))
    ink = Image.new("L", (right - left, bottom - top))
    pen = ImageDraw.Draw(ink)
    pen.fontmode = "1"
    pen.text((-left, -top), character, fill=255, font=font, anchor="ls")
    return Glyph(ink, left, top, font.getlength(character))


def stamp(
    image: Image.Image, shape: Glyph, size: float, pen: tuple[float, float], turn: float
) -> None:
    """Blacken the pixels whose centres are on a glyph, once it is turned about its middle."""
    scale = EM / size
    width, height = shape.ink.size
    middle_x = pen[0] + (shape.left + width / 2) / scale
    middle_y = pen[1] + (shape.top + height / 2) / scale
    cos, sin = scale * math.cos(turn), scale * math.sin(turn)
    back = (
        *(cos, sin, width / 2 - cos * middle_x - sin * middle_y),
        *(-sin, cos, height / 2 + sin * middle_x - cos * middle_y),
    )
    ink = shape.ink.transform(
        image.size, Image.Transform.AFFINE, back, Image.Resampling.NEAREST, fillcolor=0
    )
    image.paste((0, 0, 0), (0, 0), ink)


def draw(rng: random.Random) -> tuple[bytes, str]:
    """A captcha as the bytes of a JPEG, and its label."""
    image = Image.new("RGB", (WIDTH, HEIGHT), (255, 255, 255))
    image.paste((0, 0, 0), (0, 0, WIDTH, 1))
    image.paste((0, 0, 0), (0, 0, 1, HEIGHT))
    face, size, x = rng.choice(faces()), rng.uniform(*SIZE), rng.uniform(*LEFT)
    # the class first, so that those drawn in two cases are no more frequent than the others
    label = "".join(rng.choices(CHARSET, k=LENGTH))
    for character in label:
        upper = character.upper()
        shape = glyph(face, upper if upper in DRAWN and rng.random() < 0.5 else character)
        turn = math.radians(rng.uniform(-TURN, TURN))
        stamp(image, shape, size, (x, rng.uniform(*BASELINE)), turn)
        x += shape.advance * size / EM * rng.uniform(*ADVANCE)
    file = BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return file.getvalue(), label


def chunk(seed: int, number: int, count: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The same images for the same numbers: uint8 (count, 32, 90), and uint8 (count, 4)."""
    rng = random.Random(f"one style {VERSION}, {seed}, {number}")
    pixels = np.empty((count, HEIGHT, WIDTH), np.uint8)
    labels = np.empty((count, LENGTH), np.uint8)
    for i in range(count):
        data, label = draw(rng)
        pixels[i] = np.rint(prepare(data) * 255)
        labels[i] = [CHARSET.index(character) for character in label]
    return pixels, labels


def chunks(
    seed: int, total: int, workers: int
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """All images in order, whatever the number of processes."""
    starts = range(0, total, CHUNK)
    counts = [min(CHUNK, total - start) for start in starts]
    numbers = range(len(starts))
    if workers <= 1:
        yield from map(chunk, [seed] * len(starts), numbers, counts)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(chunk, [seed] * len(starts), numbers, counts)


@dataclass(frozen=True)
class Images:
    """Images to train on and others to test on: uint8 (count, 32, 90), labels int32 (count, 4)."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int32]
    unseen_pixels: NDArray[np.uint8]
    unseen_labels: NDArray[np.int32]


def open_images(
    folder: Path, *, train: int = TRAIN, unseen: int = UNSEEN, seed: int = SEED, workers: int = 1
) -> Images:
    """The images in a folder, drawn now if it has none.

    Raises:
        ValueError: when it has others than those asked for.

    """
    asked = {
        "version": VERSION,
        "preprocessing": PREPROCESSING,
        "train": train,
        "unseen": unseen,
        "seed": seed,
        "faces": [Path(face).name for face in faces()],
    }
    record = folder / "style.json"
    if not record.exists():
        _write(folder, asked, workers)
    found = json.loads(record.read_text())
    if found != asked:
        raise ValueError(f"{folder} holds other images: expected {asked}, found {found}")
    pixels = np.load(folder / "pixels.npy", mmap_mode="r")
    labels = np.load(folder / "labels.npy").astype(np.int32)
    return Images(pixels[:train], labels[:train], pixels[train:], labels[train:])


def _write(folder: Path, asked: dict[str, Any], workers: int) -> None:
    total = asked["train"] + asked["unseen"]
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.lib.format.open_memmap(
        folder / "pixels.npy", "w+", np.uint8, (total, HEIGHT, WIDTH)
    )
    labels = np.empty((total, LENGTH), np.uint8)
    seen: set[bytes] = set()
    done = 0
    for images, texts in chunks(asked["seed"], total, workers):
        pixels[done : done + len(images)], labels[done : done + len(images)] = images, texts
        seen.update(hashlib.sha256(image.tobytes()).digest() for image in images)
        done += len(images)
        print(f"\r{done} of {total} images drawn", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    if len(seen) < total:
        raise ValueError(f"expected no image twice, got {len(seen)} different ones of {total}")
    pixels.flush()
    np.save(folder / "labels.npy", labels)
    (folder / "style.json").write_text(json.dumps(asked))


def sheet(path: Path, beside: Path | None, columns: int = 5, rows: int = 10, zoom: int = 3) -> None:
    """A picture of some images, the first of them another one's if it is given."""
    rng = random.Random(SEED)
    pictures = [Image.open(beside).convert("RGB")] if beside else []
    while len(pictures) < columns * rows:
        pictures.append(Image.open(BytesIO(draw(rng)[0])).convert("RGB"))
    gap = 4
    width, height = WIDTH * zoom + gap, HEIGHT * zoom + gap
    whole = Image.new("RGB", (width * columns + gap, height * rows + gap), (90, 140, 220))
    for i, picture in enumerate(pictures):
        row, column = divmod(i, columns)
        larger = picture.resize((WIDTH * zoom, HEIGHT * zoom), Image.Resampling.NEAREST)
        whole.paste(larger, (gap + column * width, gap + row * height))
    whole.save(path)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that say which images."""
    parser.add_argument("--images", type=Path, default=cache_folder().parent / "one_style")
    parser.add_argument("--train", type=int, default=TRAIN, help="images to train on")
    parser.add_argument("--unseen", type=int, default=UNSEEN, help="images to test on")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--workers", type=int, default=2, help="processes that draw")


def main() -> int:
    """Parse the options and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    parser.add_argument("--sheet", type=Path, help="draw a few on one picture instead")
    parser.add_argument("--beside", type=Path, help="a picture to compare them with")
    options = parser.parse_args()
    if options.sheet:
        sheet(options.sheet, options.beside)
        return 0
    try:
        open_images(
            options.images,
            train=options.train,
            unseen=options.unseen,
            seed=options.seed,
            workers=options.workers,
        )
    except (OSError, ValueError) as e:
        sys.exit(str(e))
    print(options.images)
    return 0


if __name__ == "__main__":
    sys.exit(main())
