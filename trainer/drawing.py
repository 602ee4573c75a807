"""One synthetic captcha: its text, typeface, layout, colours, clutter and damage, all at random."""

from __future__ import annotations

import random
import string
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from scrapy_captcha.errors import CaptchaError
from scrapy_captcha.image import HEIGHT, WIDTH, contrast, shrink
from trainer import damage, effects, glyphs
from trainer.fonts import CHARACTERS, FOLDERS, Typeface, typefaces

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALNUM = string.digits + string.ascii_lowercase
#: Characters that many sites leave out because people confuse them.
CONFUSING = frozenset("0o1il")
HEIGHTS = (20, 22, 24, 25, 26, 28, 30, 30, 32, 34, 35, 36, 38, 40, 40, 44, 48, 50, 60, 70, 80)

#: The clutter of an image is this share of the full clutter at least.
LEAST_BUSY = 0.6

#: Prepared images and their labels, see `Synthesizer.chunk`.
Chunk = tuple["NDArray[np.uint8]", "NDArray[np.int32]"]


class Look(NamedTuple):
    """The colours of a captcha: its background, and the ink of each character."""

    ground: effects.Colour
    inks: list[effects.Colour]


class Glyph(NamedTuple):
    """A character's shape, where it starts from the left, and its colour."""

    character: str
    mask: Image.Image
    left: float
    ink: effects.Colour


class Synthesizer:
    """Draws captchas of endless styles.

    Args:
        charset: the labels' characters; if it holds no upper-case letter, glyphs of both cases are
            drawn and labelled in lower case.
        length: shortest and longest text.
        faces: typefaces; those of the system by default.

    Raises:
        CaptchaError: for characters that typefaces cannot be relied on to have: they would be drawn
            as empty boxes.

    """

    def __init__(
        self, charset: str, length: tuple[int, int], faces: tuple[Typeface, ...] | None = None
    ) -> None:
        shortest, longest = length
        if not charset or not 1 <= shortest <= longest:
            raise ValueError(
                f"expected characters and 1 <= shortest <= longest, got {charset!r} and {length}"
            )
        if strange := [c for c in charset if c not in CHARACTERS]:
            raise CaptchaError(
                f"cannot draw {' '.join(strange)}: typefaces have the digits and the letters a-z "
                "and A-Z for certain, leave out all else"
            )
        self._charset = charset
        self._folds = charset == charset.lower()
        self._length = length
        faces = typefaces(FOLDERS) if faces is None else faces
        self._faces = [face.path for face in faces]
        self._weights = list(accumulate(face.weight for face in faces))
        plain = [face for face in faces if face.plain] or list(faces)
        self._plain = [face.path for face in plain]
        self._plain_weights = list(accumulate(face.weight for face in plain))

    def draw(self, rng: random.Random, busy: float = 1.0) -> tuple[Image.Image, str]:
        """One captcha at its own size, RGB, and its label.

        Args:
            rng: where the style comes from.
            busy: 0 to 1, how much clutter and damage there is.

        """
        text, drawn = self._text(rng)
        height = rng.choice(HEIGHTS)
        ratio = rng.uniform(1.9, 4.4) if rng.random() < 0.85 else rng.uniform(1.6, 5.2)
        width = min(250, max(46, round(height * ratio * (len(text) + 4) / 8)))
        size = (width, height)

        ground, dark = self._ground(rng)
        image = effects.background(size, ground, rng, busy)
        tint = rng.choice((0.0, 0.15, 0.5, 0.9))
        least = rng.choice((60, 90, 120, 150)) if rng.random() < 0.75 else 35
        one_ink = rng.random() < 0.5
        ink = effects.ink_on(ground, rng, least=least, tint=tint)
        if rng.random() < 0.22 and tint == 0.0:
            ink = (255, 255, 255) if dark else (0, 0, 0)
        inks = [
            ink if one_ink else effects.ink_on(ground, rng, least=least, tint=tint) for _ in text
        ]

        kinds = rng.choices((0, 1, 2, 3), (0.25, 0.5, 0.21, 0.04))[0] if rng.random() < busy else 0
        over = rng.random()
        for _ in range(kinds):
            if rng.random() > over:
                effects.clutter(rng)(image, effects.Palette(ground, inks, rng), rng)
                kinds -= 1
        if rng.random() < 0.05 * busy:
            self._ghosts(image, ground, rng)
        self._write(image, drawn, Look(ground, inks), rng)
        for _ in range(kinds):
            effects.clutter(rng)(image, effects.Palette(ground, inks, rng), rng)

        if rng.random() < 0.06 * busy:
            keep = glyphs.holes(size, rng)[..., None]
            pixels = np.where(keep, np.asarray(image), np.asarray(ground, np.uint8))
            image = Image.fromarray(pixels.astype(np.uint8))
        roll = rng.random()
        if roll < 0.1:
            image = damage.wave(image, rng)
        elif roll < 0.2:
            image = damage.elastic(image, rng)
        if rng.random() < 0.13:
            effects.border(image, rng)
        return damage.damage(image, rng, busy), text

    def chunk(self, seed: int, index: int, count: int, busy: float) -> Chunk:
        """``count`` prepared images and their labels.

        Returns:
            uint8 of shape (count, 32, 90), the network's input times 255, and int32 labels of shape
            (count, heads), where blanks are the last class.

        """
        rng = random.Random(f"{seed}/{index}")
        pixels = np.empty((count, HEIGHT, WIDTH, 3), np.uint8)
        labels = np.full((count, self._length[1]), len(self._charset), np.int32)
        for row in range(count):
            image, text = self.draw(rng, busy * rng.uniform(LEAST_BUSY, 1))
            pixels[row] = shrink(np.asarray(image))
            labels[row, : len(text)] = [self._charset.index(c) for c in text]
        return np.rint(contrast(pixels) * 255).astype(np.uint8), labels

    # --- parts of one image ----------------------------------------------------------------------

    def _text(self, rng: random.Random) -> tuple[str, str]:
        """A label and the characters to draw for it."""
        digits = [c for c in self._charset if c.isdigit()]
        letters = [c for c in self._charset if not c.isdigit()]
        roll = rng.random()
        pool = list(self._charset)
        if digits and letters:
            if roll < 0.24:
                pool = digits
            elif roll < 0.36:
                pool = letters
        if rng.random() < 0.25:
            pool = [c for c in pool if c not in CONFUSING] or pool
        text = "".join(rng.choices(pool, k=rng.randint(*self._length)))
        if not self._folds:
            return text, text
        roll = rng.random()
        if roll < 0.42:
            return text, text.upper()
        if roll < 0.72:
            return text, text
        return text, "".join(c.upper() if rng.random() < 0.5 else c for c in text)

    def _ground(self, rng: random.Random) -> tuple[effects.Colour, bool]:
        roll = rng.random()
        if roll < 0.42:
            return (255, 255, 255), False
        if roll < 0.85:
            return effects.shade(rng, 180, 250, rng.choice((0.02, 0.2, 0.4))), False
        if roll < 0.89:
            return (0, 0, 0), True
        ground = effects.shade(rng, 10, 110, 0.4)
        return ground, sum(ground) <= 360

    def _face(self, rng: random.Random) -> str:
        return rng.choices(self._faces, cum_weights=self._weights)[0]

    def _ghosts(self, image: Image.Image, ground: effects.Colour, rng: random.Random) -> None:
        """Small faint characters behind the text."""
        for _ in range(rng.randint(4, 25)):
            mask = glyphs.filled(self._face(rng), rng.choice((8, 10, 12)), rng.choice(ALNUM), False)
            colour = effects.between(
                ground, effects.shade(rng, 30, 220, 0.7), rng.uniform(0.1, 0.45)
            )
            at = rng.randint(-4, image.width), rng.randint(-4, image.height)
            image.paste(colour, at, mask)

    def _masks(self, drawn: str, height: int, rng: random.Random) -> list[Image.Image]:
        """The characters' masks, in one style, each turned and scaled in its own way."""
        size = height * min(1.15, max(0.5, rng.gauss(0.78, 0.15)))
        size = max(10, round(size) if size < 24 else 4 * round(size / 4))
        face = self._face(rng)
        each = rng.random() < 0.12
        aliased = rng.random() < 0.15
        bold = rng.choice((1, 1, 2)) if size > 17 and rng.random() < 0.13 else 0
        roll = rng.random()
        thin = roll < 0.05
        plotted = roll < 0.065 or (roll < 0.12 and drawn.isdigit())
        turn = rng.choice((0, 0, 0, 5, 10, 20, 30, 45)) * rng.uniform(0.6, 1)
        lean = rng.choice((0, 0, 0, 0.15, 0.35))
        all_lean = rng.choice((0, 0, 0, 0, rng.uniform(-0.5, 0.5)))
        vary = rng.choice((0, 0, 0.1, 0.25))
        narrow = rng.choice((1, 1, 1, 1, rng.uniform(0.7, 1.35)))
        hollow = rng.random() < 0.06 and size > 17
        holes = rng.random() < 0.06
        bends = rng.random() < 0.06
        masks = []
        for character in drawn:
            if each:
                face = self._face(rng)
            if plotted and character in glyphs.POLYLINES:
                box = (max(5, round(size * rng.uniform(0.35, 0.65))), max(8, round(size * 0.72)))
                mask = glyphs.digit_polyline(box, character, rng)
            elif thin or plotted:
                plain = rng.choices(self._plain, cum_weights=self._plain_weights)[0]
                mask = glyphs.skeleton(plain, size, character)
            else:
                mask = glyphs.filled(face, size, character, aliased, bold)
            if holes:
                mask = glyphs.perforated(mask, rng)
            if hollow:
                mask = glyphs.hollow(mask, rng)
            if bends:
                mask = glyphs.wiggled(mask, rng)
            if turn or lean or all_lean or vary or narrow != 1:
                scale = 1 + rng.uniform(-vary, vary)
                mask = glyphs.transformed(
                    mask,
                    degrees=rng.uniform(-turn, turn),
                    shear=all_lean + rng.uniform(-lean, lean),
                    scale_x=narrow * scale,
                    scale_y=scale,
                    smooth=not aliased or rng.random() < 0.3,
                )
            masks.append(mask)
        return masks

    def _write(self, image: Image.Image, drawn: str, look: Look, rng: random.Random) -> None:
        """Lay the characters out and paste them."""
        width, height = image.size
        masks = self._masks(drawn, height, rng)
        tallest = max(mask.height for mask in masks)
        sizes = [mask.width for mask in masks]
        roll = rng.random()
        gaps = [0.0] * len(masks)
        if roll < 0.35:  # a cell for each character
            margin = rng.uniform(0, 0.14) * width
            cell = (width - 2 * margin) / len(masks)
            jitter = rng.choice((0, 0.05, 0.15)) * cell
            lefts = [
                margin + cell * i + (cell - w) / 2 + rng.uniform(-jitter, jitter)
                for i, w in enumerate(sizes)
            ]
        else:
            mean = sum(sizes) / len(sizes)
            if roll < 0.6:  # as type is set
                gaps = [rng.uniform(0.02, 0.22) * mean] * len(masks)
            elif roll < 0.74:  # overlapping
                gaps = [-rng.uniform(0, 0.28) * mean] * len(masks)
            else:  # wide and uneven
                reach = rng.uniform(0.1, 1.2)
                gaps = [rng.uniform(0, reach) * mean for _ in masks]
            total = sum(sizes) + sum(gaps[1:])
            room = width - total
            place = rng.choice((0.5, 0.5, 0.5, 0.08, rng.random(), rng.random()))
            left = room * place if room > 0 else room / 2
            lefts = []
            for w, gap in zip(sizes, gaps, strict=True):
                lefts.append(left)
                left += w + gap
        span = max(lefts[-1] + sizes[-1], width) - min(lefts[0], 0)
        squeeze = min(
            1.0, width * rng.uniform(0.96, 1.02) / span, height * rng.uniform(0.9, 1.05) / tallest
        )
        if squeeze < 0.98:
            masks = [
                mask.resize(
                    (max(2, round(mask.width * squeeze)), max(2, round(mask.height * squeeze))),
                    Image.Resampling.BILINEAR,
                )
                for mask in masks
            ]
            start = min(lefts[0], 0)
            lefts = [(x - start) * squeeze for x in lefts]
        _paste(
            image,
            [Glyph(*each) for each in zip(drawn, masks, lefts, look.inks, strict=True)],
            look.ground,
            rng,
        )


def _paste(
    image: Image.Image, placed: list[Glyph], ground: effects.Colour, rng: random.Random
) -> None:
    """Paste glyphs on one line, with shadows, halos or ramps of colour."""
    height, count = image.height, len(placed)
    tallest = max(glyph.mask.height for glyph in placed)
    base = (height - tallest) * rng.choice((0.5, 0.5, 0.5, rng.random())) + tallest
    sway = rng.choice((0, 0, 0.06, 0.15, 0.3)) * max(4, height - tallest)
    middle = rng.random() < 0.4
    slope = rng.choice((0, 0, 0, rng.uniform(-0.15, 0.15))) * height / count
    shadow = rng.random() < 0.06
    halo = rng.random() < 0.04
    ramp = rng.random() < 0.08
    faint = rng.uniform(0.55, 0.9) if rng.random() < 0.06 else 1.0
    step = rng.choice((-1, 1)), rng.choice((1, 1, 2))
    order = list(enumerate(placed))
    if rng.random() < 0.3:
        order.reverse()
    for i, glyph in order:
        mask, ink = glyph.mask, glyph.ink
        lift = rng.uniform(-sway, sway) + slope * (i - count / 2)
        hangs = 0.22 * mask.height if glyph.character in "gpqyj" and not middle else 0.0
        top = (height - mask.height) / 2 if middle else base - mask.height + hangs
        top = min(max(top + lift, -0.12 * mask.height), height - 0.88 * mask.height)
        x, y = round(glyph.left), round(top)
        if faint < 1:
            mask = mask.point([round(level * faint) for level in range(256)])
        if shadow:
            image.paste(effects.between(ground, ink, 0.45), (x + step[0], y + step[1]), mask)
        if halo:
            wide = Image.new("L", (mask.width + 2, mask.height + 2))
            wide.paste(mask, (1, 1))
            edge = (255, 255, 255) if sum(ink) < 300 else (0, 0, 0)
            wide = wide.filter(ImageFilter.MaxFilter(3))
            image.paste(effects.between(ink, edge, 0.8), (x - 1, y - 1), wide)
        if ramp:
            other = effects.ink_on(ground, rng, least=70, tint=0.6)
            fill = glyphs.gradient_fill(mask.size, ink, other, rng.random() < 0.6)
            image.paste(fill, (x, y), mask)
        else:
            image.paste(ink, (x, y), mask)
