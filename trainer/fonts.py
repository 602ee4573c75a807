"""Typefaces for synthesis: the legible ones in the system's font folders."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageFont

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

FOLDERS = (Path("/usr/share/fonts"), Path("/usr/local/share/fonts"))
#: What every usable typeface has, and all that is drawn.
CHARACTERS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

#: Folders of text faces, which captcha generators use most; each counts this many times more.
PLAIN = re.compile(
    r"/(dejavu|liberation|freefont|croscore|crosextra|arkpandora|ttf-bitstream-vera|urw-base35"
    r"|lato|open-sans|roboto|noto|cantarell|fonts-go|clear-sans|comic-neue|dustin|hack)(/|$)"
)
PLAIN_WEIGHT = 4.0
#: Of the hundreds of scripts in these folders only the Latin faces are wanted; some are icons.
LATIN_NOTO = re.compile(r"/Noto(Sans|Serif|SansMono|SansDisplay|SerifDisplay|Mono)-[^/]*$")
UNWANTED = re.compile(
    r"Emoji|Math|Symbol|Dingbat|D05000L|Icon|Braille|Zapfino|Fallback|Nabla|DSEGWeather",
    re.IGNORECASE,
)
#: This share of a face's characters must look more like themselves than like any other.
LEGIBLE_SHARE = 0.6
#: With fewer faces there is nothing to compare with.
FEW = 4
_TEMPLATE = 20


@dataclass(frozen=True)
class Typeface:
    """One font file.

    Args:
        path: where it is.
        weight: how often it is drawn beside the others.
        plain: whether it is a text face, not a decorative one.

    """

    path: str
    weight: float
    plain: bool


def font_files(folders: Iterable[Path] = FOLDERS) -> list[Path]:
    """All scalable fonts below some folders, in a fixed order, one file for each name."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() not in {".ttf", ".otf"} or UNWANTED.search(path.name):
                continue
            if "/noto/" in str(path) and not LATIN_NOTO.search(str(path)):
                continue
            found.setdefault(path.stem.lower(), path)
    return sorted(found.values())


def _boxed(path: Path, characters: str) -> NDArray[np.float32] | None:
    """Each character in one box, as a vector of mean 0 and length 1; None for a useless font."""
    try:
        font = ImageFont.truetype(str(path), 28)
        missing = bytes(font.getmask("\uffff"))
        rows = []
        for character in characters:
            mask = font.getmask(character)
            width, height = mask.size
            if not 2 <= width <= 90 or not 4 <= height <= 90 or bytes(mask) == missing:
                return None
            image = Image.frombytes("L", mask.size, bytes(mask))
            rows.append(np.asarray(image.resize((_TEMPLATE, _TEMPLATE)), np.float32).ravel())
    except (OSError, ValueError):
        return None
    boxed = np.stack(rows)
    boxed -= boxed.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(boxed, axis=1, keepdims=True)
    return None if lengths.min() < 1 else boxed / lengths


def legible(candidates: Iterable[Path]) -> list[Path]:
    """Those faces that have all of 0-9a-zA-Z and draw most of it the way text faces do."""
    boxes = {path: box for path in candidates if (box := _boxed(path, CHARACTERS)) is not None}
    text = [box for path, box in boxes.items() if PLAIN.search(str(path.parent))]
    text = text or list(boxes.values())
    if len(text) < FEW:
        return list(boxes)
    templates = np.concatenate(text[:120])
    folded = np.array([CHARACTERS.index(c.lower()) for c in CHARACTERS])
    owners = np.tile(folded, len(text[:120]))
    kept = []
    for path, box in boxes.items():
        likeness = box @ templates.T
        likeness[likeness > 0.9999] = -1  # not itself
        if (owners[likeness.argmax(axis=1)] == folded).mean() >= LEGIBLE_SHARE:
            kept.append(path)
    return kept


@lru_cache(maxsize=1)
def typefaces(folders: tuple[Path, ...] = FOLDERS) -> tuple[Typeface, ...]:
    """The usable typefaces; each folder (mostly one family) counts as one, whatever it holds.

    Raises:
        FileNotFoundError: when there are none.

    """
    paths = legible(font_files(folders))
    if not paths:
        raise FileNotFoundError(
            f"expected typefaces in {' or '.join(map(str, folders))}, found none that can be read: "
            "install the font packages that the recipe lists"
        )
    sizes: dict[Path, int] = {}
    for path in paths:
        sizes[path.parent] = sizes.get(path.parent, 0) + 1
    faces = []
    for path in paths:
        plain = bool(PLAIN.search(str(path.parent)))
        share = min(sizes[path.parent], 12) ** 0.5 / sizes[path.parent]
        faces.append(Typeface(str(path), share * (PLAIN_WEIGHT if plain else 1.0), plain))
    return tuple(faces)


@lru_cache(maxsize=6000)
def font(path: str, size: int) -> ImageFont.FreeTypeFont:
    """A font at a size in pixels, kept open."""
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)
