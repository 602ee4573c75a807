"""What happens to a whole captcha at the end: warps, grain, blur, lost resolution, few colours."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageFilter

if TYPE_CHECKING:
    import random


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


def damage(image: Image.Image, rng: random.Random, busy: float) -> Image.Image:
    """What happens at the end: grain, blur, lost resolution, few colours, JPEG."""
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
    if rng.random() < 0.45:
        image = jpeg(image, rng)
    return image
