"""Colours, backgrounds and clutter: what captchas put behind and over their text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Colour = tuple[int, int, int]


def shade(rng: random.Random, low: int, high: int, tint: float) -> Colour:
    """A colour with a brightness between two levels; ``tint`` (0 to 1) is how far from grey."""
    level = rng.uniform(low, high)
    reach = tint * 128
    roll = rng.random
    red = level + (2 * roll() - 1) * reach
    green = level + (2 * roll() - 1) * reach
    blue = level + (2 * roll() - 1) * reach
    return _byte(red), _byte(green), _byte(blue)


def _byte(level: float) -> int:
    return 0 if level < 0 else 255 if level > 255 else int(level)


def distance(one: Colour, other: Colour) -> int:
    """The largest difference of a channel."""
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def between(one: Colour, other: Colour, share: float) -> Colour:
    """The colour that share of the way from one to the other."""
    if share >= 1:
        return other
    return (
        int(one[0] + (other[0] - one[0]) * share),
        int(one[1] + (other[1] - one[1]) * share),
        int(one[2] + (other[2] - one[2]) * share),
    )


def ink_on(ground: Colour, rng: random.Random, *, least: int, tint: float) -> Colour:
    """A colour that differs from the ground by at least that much in one channel."""
    dark = sum(ground) > 360
    for _ in range(12):
        colour = shade(rng, 0, 150, tint) if dark else shade(rng, 110, 255, tint)
        if distance(colour, ground) >= least:
            return colour
    return (0, 0, 0) if dark else (255, 255, 255)


def background(
    size: tuple[int, int], ground: Colour, rng: random.Random, busy: float
) -> Image.Image:
    """A picture to write on: plain mostly, else a gradient, blotches, grain or stripes."""
    if rng.random() > 0.3 * busy:
        return Image.new("RGB", size, ground)
    width, height = size
    noise = np.random.default_rng(rng.getrandbits(32))
    kind = rng.randrange(5)
    other = between(ground, shade(rng, 60, 230, 0.6), rng.uniform(0.1, 0.5))
    base, top = np.asarray(ground, np.float32), np.asarray(other, np.float32)
    share: NDArray[np.floating]
    if kind == 0:
        angle = rng.uniform(0, 6.3)
        xs = np.linspace(-0.5, 0.5, width)[None, :] * math.cos(angle)
        ys = np.linspace(-0.5, 0.5, height)[:, None] * math.sin(angle)
        share = (xs + ys + 0.5)[..., None]
    elif kind == 1:
        cells = noise.random((rng.randint(2, 8), rng.randint(3, 20)), np.float32)
        blotches = Image.fromarray((cells * 255).astype(np.uint8))
        smooth = rng.choice(
            (Image.Resampling.BICUBIC, Image.Resampling.BICUBIC, Image.Resampling.BOX)
        )
        share = np.asarray(blotches.resize(size, smooth), np.float32)[..., None] / 255
    elif kind == 2:
        channels = rng.choice((1, 3))
        share = noise.random((height, width, channels), np.float32)
    elif kind == 3:
        period = rng.uniform(2.5, 14)
        angle = rng.choice((0.0, 1.5708, 0.785, -0.785, rng.uniform(0, 3.1)))
        phase = (
            np.arange(width)[None, :] * math.cos(angle)
            + np.arange(height)[:, None] * math.sin(angle)
        ) / period
        share = ((phase % 1) < rng.uniform(0.2, 0.6)).astype(np.float32)[..., None]
    else:
        cells = noise.random((rng.randint(3, 10), rng.randint(4, 20), 3), np.float32)
        photo = Image.fromarray((cells * 255).astype(np.uint8)).resize(
            size, Image.Resampling.BICUBIC
        )
        share = np.asarray(photo, np.float32) / 255
        share = share + noise.normal(0, 0.1, (height, width, 1)).astype(np.float32)
    pixels = base + (top - base) * share
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


class Palette:
    """The colours that a piece of clutter picks from: one for all of it, or a new one each time."""

    def __init__(self, ground: Colour, inks: Sequence[Colour], rng: random.Random) -> None:
        self._rng = rng
        self._ground = ground
        kind = rng.random()
        self._fixed: Colour | None = None
        self._faint = rng.uniform(0.25, 1.0) if rng.random() < 0.5 else 1.0
        if kind < 0.3:
            self._fixed = rng.choice(list(inks))
        elif kind < 0.45:
            self._fixed = (0, 0, 0) if sum(ground) > 360 else (255, 255, 255)
        elif kind < 0.65:
            self._fixed = shade(rng, 70, 190, 0.1)
        self._tint = rng.choice((0.05, 0.3, 0.8))
        self._low, self._high = rng.choice(((0, 255), (60, 160), (120, 230)))

    def __call__(self) -> Colour:
        """A colour."""
        colour = self._fixed or shade(self._rng, self._low, self._high, self._tint)
        return between(self._ground, colour, self._faint)


def long_lines(image: Image.Image, colour: Callable[[], Colour], rng: random.Random) -> None:
    """A few straight lines across the picture; sometimes dashed."""
    width, height = image.size
    draw = ImageDraw.Draw(image)
    thick = rng.choice((1, 1, 1, 2, 2, 3)) if height > 28 else rng.choice((1, 1, 1, 2))
    across = rng.random() < 0.5
    pieces = rng.randint(6, 24) if rng.random() < 0.12 else 1
    for _ in range(rng.randint(1, 8)):
        if across:
            x, right = rng.uniform(-5, width * 0.35), rng.uniform(0.65, 1) * width + 5
        else:
            x, right = rng.uniform(0, width), rng.uniform(0, width)
        y, fill = rng.uniform(0, height), colour()
        dx, dy = (right - x) / pieces, (rng.uniform(0, height) - y) / pieces
        reach = 1.0 if pieces == 1 else rng.uniform(0.4, 0.7)
        for i in range(pieces):
            start = x + i * dx, y + i * dy
            end = start[0] + reach * dx, start[1] + reach * dy
            draw.line((start, end), fill=fill, width=thick)


def short_strokes(image: Image.Image, colour: Callable[[], Colour], rng: random.Random) -> None:
    """Many short strokes, mostly of one slant."""
    width, height = image.size
    draw = ImageDraw.Draw(image)
    slant = rng.choice((45, 45, -45, rng.uniform(-90, 90)))
    spread = rng.choice((5, 20, 45, 45, 90))
    many = round(rng.choice((10, 20, 40, 70, 120)) * rng.uniform(0.6, 1.4))
    reach = rng.uniform(0.12, 0.5) * height
    thick = 2 if height > 45 and rng.random() < 0.3 else 1
    corner = rng.random() < 0.4  # ends offset by independent amounts, not by an angle
    for _ in range(many):
        x, y = rng.uniform(-5, width), rng.uniform(-5, height)
        if corner:
            dx, dy = rng.uniform(0, reach), rng.uniform(0, reach)
            if slant < 0:
                dy = -dy
        else:
            angle = math.radians(slant + rng.uniform(-spread, spread))
            length = reach * rng.uniform(0.4, 1.2)
            dx, dy = length * math.cos(angle), length * math.sin(angle)
        draw.line((x, y, x + dx, y + dy), fill=colour(), width=thick)


def curves(image: Image.Image, colour: Callable[[], Colour], rng: random.Random) -> None:
    """Waves or Bezier curves through the text; solid, or as a row of dots."""
    width, height = image.size
    draw = ImageDraw.Draw(image)
    thick = rng.choice((1, 1, 2, 2, 3, 4)) if height > 28 else rng.choice((1, 1, 2))
    dotted = rng.random() < 0.15
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        fill = colour()
        start, stop = rng.uniform(-0.05, 0.25) * width, rng.uniform(0.75, 1.05) * width
        steps = np.linspace(0, 1, 28)
        if rng.random() < 0.5:
            xs = start + (stop - start) * steps
            swing = rng.uniform(0.05, 0.4) * height
            waves = rng.uniform(2, 12)
            ys = height * rng.uniform(0.25, 0.75) + swing * np.sin(
                steps * waves + rng.uniform(0, 6)
            )
            ys = ys + (steps - 0.5) * rng.uniform(-0.4, 0.4) * height
        else:
            px = [start, rng.uniform(0, width), rng.uniform(0, width), stop]
            py = [rng.uniform(0, height) for _ in range(4)]
            weights = np.stack(
                [
                    (1 - steps) ** 3,
                    3 * steps * (1 - steps) ** 2,
                    3 * steps**2 * (1 - steps),
                    steps**3,
                ]
            )
            xs, ys = np.asarray(px) @ weights, np.asarray(py) @ weights
        if dotted:
            xs, ys = (
                np.interp(np.linspace(0, 27, width), np.arange(28), (xs)),
                np.interp(np.linspace(0, 27, width), np.arange(28), ys),
            )
            jitter = [(rng.uniform(-1.5, 1.5)) for _ in range(width)]
            draw.point([(x, y + j) for x, y, j in zip(xs, ys, jitter, strict=True)], fill=fill)
            draw.point([(x, y - j) for x, y, j in zip(xs, ys, jitter, strict=True)], fill=fill)
        else:
            draw.line(
                list(zip(xs.tolist(), ys.tolist(), strict=True)),
                fill=fill,
                width=thick,
                joint="curve",
            )


def shapes(image: Image.Image, colour: Callable[[], Colour], rng: random.Random) -> None:
    """Arcs, circles and boxes."""
    width, height = image.size
    draw = ImageDraw.Draw(image)
    kind = rng.randrange(3)
    for _ in range(rng.randint(1, 7)):
        x, y = rng.uniform(-0.2, 1) * width, rng.uniform(-0.4, 1) * height
        box = (x, y, x + rng.uniform(3, width * 0.5), y + rng.uniform(3, height * 0.9))
        thick = rng.choice((1, 1, 1, 2))
        if kind == 0:
            start = rng.uniform(0, 360)
            draw.arc(box, start, start + rng.uniform(40, 300), fill=colour(), width=thick)
        elif kind == 1:
            draw.ellipse(box, outline=colour(), width=thick)
        else:
            draw.rectangle(box, outline=colour(), width=thick)


def dots(image: Image.Image, colour: Callable[[], Colour], rng: random.Random) -> None:
    """Single pixels or small discs everywhere."""
    width, height = image.size
    draw = ImageDraw.Draw(image)
    area = width * height
    if rng.random() < 0.6:
        for _ in range(rng.choice((1, 3, 8))):
            many = round(area * rng.uniform(0.002, 0.025) / 2)
            fill = colour()
            draw.point(
                [(rng.randrange(width), rng.randrange(height)) for _ in range(min(many, 250))],
                fill=fill,
            )
        return
    for _ in range(rng.randint(5, 45)):
        x, y, r = (
            rng.uniform(0, width),
            rng.uniform(0, height),
            rng.uniform(0.4, 0.05 * height + 0.6),
        )
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colour())


def grid(image: Image.Image, colour: Callable[[], Colour], rng: random.Random) -> None:
    """Evenly spaced lines in one or two directions."""
    width, height = image.size
    draw = ImageDraw.Draw(image)
    fill = colour()
    gap_x, gap_y = rng.randint(4, 24), rng.randint(4, 18)
    lean = rng.choice((0, 0, 0, rng.uniform(-height, height)))
    kind = rng.randrange(3)
    if kind != 1:
        for x in range(rng.randrange(gap_x) - height, width + height, gap_x):
            draw.line((x, 0, x + lean, height), fill=fill)
    if kind != 0:
        for y in range(rng.randrange(gap_y), height, gap_y):
            draw.line((0, y, width, y), fill=fill)


CLUTTER = (
    (long_lines, 2.2),
    (short_strokes, 2.4),
    (curves, 2.0),
    (dots, 2.0),
    (shapes, 0.8),
    (grid, 0.6),
)


def clutter(
    rng: random.Random,
) -> Callable[[Image.Image, Callable[[], Colour], random.Random], None]:
    """One kind of clutter."""
    kinds, weights = zip(*CLUTTER, strict=True)
    kind: Callable[[Image.Image, Callable[[], Colour], random.Random], None]
    (kind,) = rng.choices(kinds, weights)
    return kind


def border(image: Image.Image, rng: random.Random) -> None:
    """A frame of one or two pixels; sometimes only its top and left."""
    width, height = image.size
    draw = ImageDraw.Draw(image)
    colour = (0, 0, 0) if rng.random() < 0.6 else shade(rng, 0, 220, 0.5)
    thick = rng.choice((1, 1, 2))
    if rng.random() < 0.3:
        draw.line((0, 0, width, 0), fill=colour, width=thick)
        draw.line((0, 0, 0, height), fill=colour, width=thick)
    else:
        draw.rectangle((0, 0, width - 1, height - 1), outline=colour, width=thick)
