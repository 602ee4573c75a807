"""One character -> a mask, in the many ways that captchas draw characters."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from trainer.fonts import font

if TYPE_CHECKING:
    import random

    from numpy.typing import NDArray


@lru_cache(maxsize=20_000)
def filled(path: str, size: int, character: str, aliased: bool, bold: int = 0) -> Image.Image:
    """The character's mask, mode L, cropped to its ink; the size is in pixels.

    Args:
        path: the font file.
        size: the font's size.
        character: what to draw.
        aliased: without grey edges, as a 1-bit drawing has them.
        bold: how many pixels to thicken it on each side.

    """
    pad = size // 2 + bold
    image = Image.new("L", (2 * size + 2 * pad, size + 3 * pad))
    draw = ImageDraw.Draw(image)
    draw.fontmode = "1" if aliased else "L"
    draw.text((pad, pad), character, fill=255, font=font(path, size), stroke_width=bold)
    box = image.getbbox()
    return image.crop(box) if box else Image.new("L", (max(1, size // 2), size))


@lru_cache(maxsize=4_000)
def skeleton(path: str, size: int, character: str) -> Image.Image:
    """The character drawn with strokes of one pixel: the middle line of its shape."""
    from skimage.morphology import skeletonize  # noqa: PLC0415

    padded = np.pad(np.asarray(filled(path, size, character, False)) > 110, 1)
    thin = Image.fromarray(skeletonize(padded).astype(np.uint8) * 255)
    box = thin.getbbox()
    return thin.crop(box) if box else filled(path, size, character, True)


def hollow(mask: Image.Image, rng: random.Random) -> Image.Image:
    """Only the outline of a mask; thin characters stay as they are."""
    padded = Image.new("L", (mask.width + 2, mask.height + 2))
    padded.paste(mask, (1, 1))
    if rng.random() < 0.5:
        return ImageChops.subtract(padded.filter(ImageFilter.MaxFilter(3)), padded)
    inner = padded.filter(ImageFilter.MinFilter(3))
    outline = ImageChops.subtract(padded, inner)
    return outline if np.asarray(inner).mean() > 12 else padded


def perforated(mask: Image.Image, rng: random.Random) -> Image.Image:
    """A mask with holes in it: dots, stripes, worn print."""
    return Image.fromarray(np.where(holes(mask.size, rng), np.asarray(mask), 0).astype(np.uint8))


def holes(size: tuple[int, int], rng: random.Random) -> NDArray[np.bool_]:
    """A regular or random pattern, (height, width); false where there is a hole."""
    width, height = size
    ys, xs = np.mgrid[0:height, 0:width]
    period = rng.choice((2, 2, 3, 3, 4))
    kind = rng.randrange(5)
    keep: NDArray[np.bool_]
    if kind == 0:
        keep = (xs + ys) % period != 0
    elif kind == 1:
        keep = (xs % period != 0) | (ys % period != 0)
    elif kind == 2:
        keep = (ys if rng.random() < 0.7 else xs) % (period + 1) != 0
    elif kind == 3:
        keep = ((xs % period) + (ys % period)) % 2 == 0
    else:
        noise = np.random.default_rng(rng.getrandbits(32))
        keep = noise.random((height, width)) > rng.uniform(0.1, 0.4)
    return keep


def transformed(
    mask: Image.Image,
    *,
    degrees: float,
    shear: float,
    scale_x: float,
    scale_y: float,
    smooth: bool,
) -> Image.Image:
    """Scale, shear and rotate a mask about its middle; the canvas grows with it.

    Args:
        mask: mode L.
        degrees: anticlockwise.
        shear: how far the top leans to the right, in heights.
        scale_x: factor on the width.
        scale_y: factor on the height.
        smooth: interpolate; else take the nearest pixel.

    """
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    # output = R @ S @ K @ input, in image coordinates (y downwards)
    a, b = scale_x, -shear * scale_y
    forward = (cos * a, cos * b + sin * scale_y, -sin * a, -sin * b + cos * scale_y)
    m00, m01, m10, m11 = forward
    width = max(2, math.ceil(abs(m00) * mask.width + abs(m01) * mask.height) + 2)
    height = max(2, math.ceil(abs(m10) * mask.width + abs(m11) * mask.height) + 2)
    det = m00 * m11 - m01 * m10
    if abs(det) < 1e-3:
        return mask
    i00, i01, i10, i11 = m11 / det, -m01 / det, -m10 / det, m00 / det
    cx, cy = mask.width / 2, mask.height / 2
    offset_x = cx - i00 * width / 2 - i01 * height / 2
    offset_y = cy - i10 * width / 2 - i11 * height / 2
    out = mask.transform(
        (width, height),
        Image.Transform.AFFINE,
        (i00, i01, offset_x, i10, i11, offset_y),
        Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST,
    )
    box = out.getbbox()
    return out.crop(box) if box else out


def wiggled(mask: Image.Image, rng: random.Random) -> Image.Image:
    """Bend a mask: each row moves sideways along a wave."""
    pixels = np.asarray(mask)
    reach = max(1, round(mask.height * rng.uniform(0.04, 0.12)))
    padded = np.pad(pixels, ((0, 0), (reach, reach)))
    rows = np.arange(mask.height)
    wave = np.sin(rows * rng.uniform(2, 7) / mask.height + rng.uniform(0, 6.3))
    columns = np.arange(padded.shape[1])[None, :] + np.rint(wave * reach).astype(int)[:, None]
    moved: NDArray[np.uint8] = np.take_along_axis(
        padded, np.clip(columns, 0, padded.shape[1] - 1), axis=1
    )
    return Image.fromarray(moved)


def gradient_fill(
    size: tuple[int, int], start: tuple[int, int, int], end: tuple[int, int, int], down: bool
) -> Image.Image:
    """A ramp from one colour to another, downwards or to the right."""
    width, height = size
    ramp = np.linspace(0, 1, height if down else width)[:, None]
    line = np.asarray(start) * (1 - ramp) + np.asarray(end) * ramp
    pixels = line[:, None, :] if down else line[None, :, :]
    return Image.fromarray(np.broadcast_to(pixels, (height, width, 3)).astype(np.uint8))


def digit_polyline(size: tuple[int, int], character: str, rng: random.Random) -> Image.Image:
    """A digit as straight strokes between a few grid points, the way a plotter would draw it."""
    width, height = size
    image = Image.new("L", (width + 2, height + 2))
    draw = ImageDraw.Draw(image)
    jitter = 0.05 * min(width, height)
    for stroke in POLYLINES[character]:
        points = [
            (
                1 + x / 4 * (width - 1) + rng.uniform(-jitter, jitter),
                1 + y / 6 * (height - 1) + rng.uniform(-jitter, jitter),
            )
            for x, y in stroke
        ]
        draw.line(points, fill=255, width=1 if height < 26 or rng.random() < 0.5 else 2)
    return image


#: Strokes on a grid 4 wide and 6 high.
POLYLINES: dict[str, tuple[tuple[tuple[float, float], ...], ...]] = {
    "0": (((1, 0), (3, 0), (4, 1.2), (4, 4.8), (3, 6), (1, 6), (0, 4.8), (0, 1.2), (1, 0)),),
    "1": (((0.8, 1.2), (2, 0), (2, 6)), ((0.8, 6), (3.2, 6))),
    "2": (((0, 1.2), (1, 0), (3, 0), (4, 1.2), (4, 2.2), (0, 6), (4, 6)),),
    "3": (((0, 0), (4, 0), (2, 2.4), (3, 2.6), (4, 3.8), (4, 4.8), (3, 6), (1, 6), (0, 5)),),
    "4": (((3, 6), (3, 0), (0, 4), (4, 4)),),
    "5": (
        (
            (4, 0),
            (0.3, 0),
            (0, 2.8),
            (1, 2.2),
            (3, 2.2),
            (4, 3.4),
            (4, 4.8),
            (3, 6),
            (1, 6),
            (0, 5),
        ),
    ),
    "6": (
        ((3.6, 0.4), (2.4, 0), (1, 0.6), (0, 2.2), (0, 4.8), (1, 6), (3, 6), (4, 4.8), (4, 3.8)),
        ((4, 3.8), (3, 2.6), (1, 2.6), (0, 3.8)),
    ),
    "7": (((0, 0), (4, 0), (1.4, 6)),),
    "8": (
        ((1, 0), (3, 0), (4, 0.9), (4, 2), (3, 2.8), (1, 2.8), (0, 2), (0, 0.9), (1, 0)),
        ((1, 2.8), (0, 3.8), (0, 5), (1, 6), (3, 6), (4, 5), (4, 3.8), (3, 2.8)),
    ),
    "9": (
        ((4, 2.2), (3, 3.4), (1, 3.4), (0, 2.2), (0, 1.2), (1, 0), (3, 0), (4, 1.2)),
        ((4, 1.2), (4, 3.6), (3, 5.4), (1.6, 6), (0.4, 5.6)),
    ),
}
