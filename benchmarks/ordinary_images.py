"""Ordinary images of every format and kind of pixel, to be damaged, and what builds such files."""

from __future__ import annotations

import io
import random
import struct
import zlib
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw


@cache
def originals() -> dict[str, bytes]:
    """Ordinary images of all formats, modes and ways to store them."""
    more = [drawn(seed=seed) for seed in (1, 2)]
    found = {f"PNG {mode}": saved(drawn(mode), "PNG") for mode in ("1", "L", "P", "RGB", "I;16")}
    found |= {f"PNG {mode}": saved(_faded(mode), "PNG") for mode in ("LA", "RGBA")}
    found |= {f"JPEG {mode}": saved(drawn(mode), "JPEG") for mode in ("L", "RGB", "CMYK")}
    found |= {
        "PNG P with alpha": saved(drawn("P"), "PNG", transparency=bytes(range(256))),
        "PNG RGB with a clear colour": saved(drawn(), "PNG", transparency=(240, 244, 238)),
        "PNG with texts": inserted(
            saved(drawn(), "PNG"), chunk(b"tEXt", b"a\0b") + chunk(b"gAMA", b"\0\1\x86\xa0")
        ),
        "APNG": saved(drawn(), "PNG", save_all=True, append_images=more),
        "JPEG progressive": saved(drawn(), "JPEG", progressive=True),
        "JPEG with EXIF": saved(drawn(), "JPEG", exif=Image.Exif().tobytes(), comment=b"x"),
        "JPEG restarts": saved(drawn(), "JPEG", restart_marker_blocks=3),
        "GIF": saved(drawn("P"), "GIF"),
        "GIF interlaced": saved(drawn("L"), "GIF", interlace=1),
        "GIF animated": saved(drawn(), "GIF", save_all=True, append_images=more, loop=0),
        "GIF with a clear colour": saved(drawn("P"), "GIF", transparency=3, comment=b"x" * 300),
        "WEBP": saved(drawn(), "WEBP"),
        "WEBP lossless": saved(drawn(), "WEBP", lossless=True),
        "WEBP with alpha": saved(_faded("RGBA"), "WEBP"),
        "WEBP animated": saved(drawn(), "WEBP", save_all=True, append_images=more),
        "BMP": saved(drawn(), "BMP"),
        "BMP 1 bit": saved(drawn("1"), "BMP"),
        "BMP palette": saved(drawn("P"), "BMP"),
        "BMP RLE": bmp((90, 32), b"\x5a\1\0\0" * 31 + b"\x5a\2\0\1", compression=1),
        "BMP RLE 4 bits": bmp((90, 32), b"\x5a\x12\0\0" * 32, bits=4, compression=2),
        "BMP OS/2": b"BM" + struct.pack("<IHHI", 0, 0, 0, 26)
        + struct.pack("<IHHHH", 12, 90, 32, 1, 24) + bytes(range(256)) * 35,
    }  # fmt: skip
    return found


def _faded(mode: str) -> Image.Image:
    image = drawn("L" if mode == "LA" else "RGB")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def drawn(mode: str = "RGB", size: tuple[int, int] = (120, 40), seed: int = 0) -> Image.Image:
    """Lines and dots on a light ground."""
    chance = random.Random(seed)
    image = Image.new("RGB", size, (240, 244, 238))
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        ends = [(chance.randrange(size[0]), chance.randrange(size[1])) for _ in range(2)]
        pen.line(ends, fill=(chance.randrange(200), 0, chance.randrange(200)), width=2)
    return image.convert(mode)


def noise(mode: str, size: tuple[int, int], seed: int = 0) -> Image.Image:
    """Random pixels, which no format compresses."""
    channels = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(seed).integers(0, 256, size[0] * size[1] * channels, np.uint8)
    return Image.frombytes(mode, size, pixels.tobytes())


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def inserted(data: bytes, chunks: bytes) -> bytes:
    """A PNG with more chunks behind its header."""
    return data[:33] + chunks + data[33:]


def bmp(size: tuple[int, int], body: bytes, *, bits: int = 8, compression: int = 0) -> bytes:
    palette = b"".join(bytes((i, 255 - i, 7, 0)) for i in range(256)) if bits <= 8 else b""
    begin = 54 + len(palette)
    fields = (40, *size, 1, bits, compression, len(body), 0, 0, 256 if palette else 0, 0)
    head = struct.pack("<IHHI", begin + len(body), 0, 0, begin)
    return b"BM" + head + struct.pack("<IiiHHIIiiII", *fields) + palette + body
