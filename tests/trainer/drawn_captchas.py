from __future__ import annotations

import io
import random

from PIL import Image, ImageDraw, ImageFont

FONT = ImageFont.load_default(26)


def captcha(text: str, seed: int = 0) -> bytes:
    """A small PNG with the text on white, no two seeds the same."""
    rng = random.Random(f"{text} {seed}")
    image = Image.new("RGB", (24 * len(text) + 12, 36), "white")
    draw = ImageDraw.Draw(image)
    for i, character in enumerate(text):
        place = 24 * i + 6 + rng.randint(-1, 1), 2 + rng.randint(-2, 2)
        draw.text(place, character, font=FONT, fill=(rng.randint(0, 90), 20, 60))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def write_folder(folder, texts):
    folder.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(texts):
        (folder / f"{text}_{number:04d}.png").write_bytes(captcha(text, number))
    return folder


def texts(count: int, charset: str = "0147", length: int = 2, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return ["".join(rng.choices(charset, k=length)) for _ in range(count)]
