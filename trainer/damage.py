"""What happens to a whole captcha at the end: warps, grain, blur, and how it is saved."""

from __future__ import annotations

import random
from io import BytesIO

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from scrapy_captcha.image import decode

#: How many images are saved in one of these ways.
DITHERED, TRANSPARENT = 0.01, 0.015
#: Backgrounds at least so bright can be transparent.
LIGHT = 150.0


def wave(image: Image.Image, rng: random.Random) -> Image.Image:
    """Columns move up and down along a wave, rows sideways along another."""
    pixels = np.asarray(image)
    height, width, _ = pixels.shape
    swing = rng.uniform(0.03, 0.12) * height
    shift = swing * np.sin(np.arange(width) * rng.uniform(3, 14) / width + rng.uniform(0, 6.3))
    rows = np.clip(np.arange(height)[:, None] + np.rint(shift).astype(int)[None, :], 0, height - 1)
    pixels = pixels[rows, np.arange(width)[None, :]]
    if rng.random() < 0.5:
        swing = rng.uniform(0.03, 0.1) * height
        shift = swing * np.sin(np.arange(height) * rng.uniform(2, 9) / height + rng.uniform(0, 6.3))
        columns = np.clip(
            np.arange(width)[None, :] + np.rint(shift).astype(int)[:, None], 0, width - 1
        )
        pixels = pixels[np.arange(height)[:, None], columns]
    return Image.fromarray(pixels)


def elastic(image: Image.Image, rng: random.Random) -> Image.Image:
    """Pull the corners of a coarse mesh about, smoothly."""
    width, height = image.size
    columns, rows = rng.randint(3, 7), rng.randint(1, 3)
    reach_x, reach_y = rng.uniform(0.1, 0.3) * width / columns, rng.uniform(0.05, 0.16) * height
    xs, ys = np.linspace(0, width, columns + 1), np.linspace(0, height, rows + 1)
    points = {
        (i, j): (
            xs[i] + (rng.uniform(-reach_x, reach_x) if 0 < i < columns else 0),
            ys[j] + rng.uniform(-reach_y, reach_y),
        )
        for i in range(columns + 1)
        for j in range(rows + 1)
    }
    mesh = []
    for i in range(columns):
        for j in range(rows):
            target = (round(xs[i]), round(ys[j]), round(xs[i + 1]), round(ys[j + 1]))
            corners = ((i, j), (i, j + 1), (i + 1, j + 1), (i + 1, j))
            mesh.append((target, tuple(float(v) for c in corners for v in points[c])))
    fill = image.getpixel((width // 2, 0))
    return image.transform(
        image.size, Image.Transform.MESH, mesh, Image.Resampling.BILINEAR, fillcolor=fill
    )


def grain(image: Image.Image, rng: random.Random) -> Image.Image:
    """Noise on every pixel, or salt and pepper."""
    pixels = np.asarray(image)
    noise = np.random.default_rng(rng.getrandbits(32))
    if rng.random() < 0.6:
        strength = rng.uniform(3, 28)
        shape = (*pixels.shape[:2], rng.choice((1, 3)))
        noisy = pixels + noise.standard_normal(shape, np.float32) * strength
        return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
    hit = noise.random(pixels.shape[:2], np.float32)
    share = rng.uniform(0.003, 0.035)
    noisy = np.where((hit < share)[..., None], 0, pixels)
    if rng.random() < 0.6:
        noisy = np.where((hit > 1 - share)[..., None], 255, noisy)
    return Image.fromarray(noisy.astype(np.uint8))


def jpeg(image: Image.Image, rng: random.Random) -> Image.Image:
    """Save as JPEG and read again."""
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=rng.randint(20, 92))
    return Image.open(buffer).convert("RGB")


def dithered(image: Image.Image) -> Image.Image:
    """Black and white alone, greys as patterns of dots."""
    return ImageOps.autocontrast(image.convert("L")).convert("1").convert("RGB")


def transparent(image: Image.Image, rng: random.Random) -> Image.Image:
    """Saved with a transparent background and read again.

    Most drawing programs mix the edges of characters with the colour that is under a transparent
    background, black or some other; on the reader's white they then have a seam of it. Light ink
    would not be seen on white, so it stays as it was.
    """
    pixels = np.asarray(image).astype(np.float32)
    ground = np.median(pixels, axis=(0, 1))
    if ground.mean() < LIGHT:
        return image
    distance = np.abs(pixels - ground).max(axis=-1)
    share = np.clip(distance / max(1.0, float(np.quantile(distance, 0.97))), 0, 1)[..., None]
    matte = np.array([rng.choice((0, 0, 128, 255)) for _ in range(3)], np.float32)
    mixed = np.concatenate([pixels * share + matte * (1 - share), share * 255], axis=-1)
    buffer = BytesIO()
    Image.fromarray(np.rint(mixed).astype(np.uint8), "RGBA").save(buffer, "PNG", compress_level=1)
    return Image.fromarray(decode(buffer.getvalue()))


def damage(image: Image.Image, rng: random.Random, busy: float) -> Image.Image:
    """What happens at the end: grain, blur, lost resolution, few colours, transparency, JPEG."""
    width, height = image.size
    if rng.random() < 0.14 * busy:
        image = grain(image, rng)
    roll = rng.random()
    if roll < 0.1:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.022 * height + 0.3)))
    elif roll < 0.16:
        image = image.filter(ImageFilter.SMOOTH if rng.random() < 0.5 else ImageFilter.SHARPEN)
    elif roll < 0.22 and height > 30:
        factor = rng.uniform(0.45, 0.8)
        small = image.resize(
            (round(width * factor), round(height * factor)), Image.Resampling.BILINEAR
        )
        image = small.resize(
            image.size, Image.Resampling.NEAREST if rng.random() < 0.5 else Image.Resampling.BICUBIC
        )
    roll = rng.random()
    if roll < 0.06:
        image = image.quantize(rng.choice((4, 8, 16, 32)), Image.Quantize.FASTOCTREE).convert("RGB")
    elif roll < 0.1:
        grey = image.convert("L")
        levels = np.asarray(grey)
        darkest, lightest = int(levels.min()), int(levels.max())
        level = darkest + (lightest - darkest) * rng.uniform(0.4, 0.7)
        image = grey.point([0 if i < level else 255 for i in range(256)]).convert("RGB")
    elif roll > 1 - DITHERED:
        image = dithered(image)
    elif roll > 1 - DITHERED - TRANSPARENT:
        image = transparent(image, random.Random(roll))
    if rng.random() < 0.45:
        image = jpeg(image, rng)
    return image
