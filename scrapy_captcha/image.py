"""Untrusted bytes -> the (32, 90) array that the network reads.

The one copy: the crawl and the trainer both import it, so that what a model was trained on is
what it is shown.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from PIL import (
    Image,
    WebPImagePlugin,  # noqa: F401 - else the first one imports what Pillow has, 40 formats
)

from scrapy_captcha import wrapping
from scrapy_captcha.errors import ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

HEIGHT, WIDTH = 32, 90
#: Version of the pixels-to-input mapping; a bundle made for another one is refused.
PREPROCESSING = "contrast-1"

MAX_BYTES = 1 << 20
MAX_PIXELS = 2_000_000
MAX_SIDE = 4096

#: A weaker contrast than this many of 255 grey levels is not stretched any further.
CONTRAST_FLOOR = 40.0
#: This share of the pixels may be darker than the darkest ink.
CLIPPED_SHARE = 0.01

#: So many pixels with transparency are laid on white in one go.
STRIP_PIXELS = 1 << 18

_PIXELS = HEIGHT * WIDTH
_MIDDLE = _PIXELS // 2
_STRONGEST = int(_PIXELS * (1 - CLIPPED_SHARE))


def _greys() -> NDArray[np.float32]:
    """For each distance of the strongest ink, what each distance becomes: shape (256, 256)."""
    distance = np.arange(256, dtype=np.float32)
    scale = np.maximum(distance, np.float32(CONTRAST_FLOOR))[:, None]
    return np.float32(1.0) - np.minimum(distance / scale, np.float32(1.0))


_GREY = _greys()


def decode(data: bytes) -> NDArray[np.uint8]:
    """Decode the first frame of an image, composed on white.

    :param data: PNG, JPEG, GIF, WEBP or BMP; at most 1 MiB, 2 megapixels and 4096 pixels a side,
        all checked before any pixel is decompressed
    :return: uint8 array of shape (height, width, 3)
    :raises ImageError: for anything else
    """
    return np.asarray(_open(data))


def unwrap(data: bytes) -> wrapping.Picture:
    """Find the first picture of an image file and check its size; nothing is decompressed.

    :raises ImageError: when it is of another format, too large, or takes too long to decode
    """
    if not data:
        raise ImageError("expected an image, got no bytes")
    if len(data) > MAX_BYTES:
        raise ImageError(f"expected an image of at most {MAX_BYTES} bytes, got {len(data)}")
    picture = wrapping.unwrap(data)
    width, height = picture.size
    if min(width, height) < 1 or width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise ImageError(
            f"expected at most {MAX_PIXELS} pixels and {MAX_SIDE} a side, got {width}x{height}"
        )
    return picture


def _open(data: bytes) -> Image.Image:
    picture = unwrap(data)
    try:
        image = Image.open(BytesIO(picture.data), formats=(picture.format,))
        if image.size != picture.size:
            raise ImageError(f"the {picture.format} has another size than {picture.size}")
        image.load()
        return _on_white(image)
    except ImageError:
        raise
    except MemoryError:
        raise ImageError(f"not enough memory for an image of {len(data)} bytes") from None
    except Exception as e:  # noqa: BLE001 - malformed bytes surface as almost any exception
        raise ImageError(
            f"the {picture.format} of {len(data)} bytes does not decode: "
            f"{type(e).__name__}: {str(e)[:100]}"
        ) from None


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        return _from_deep(image).convert("RGB")
    if image.mode in {"RGBA", "LA"} or "transparency" in image.info:
        return _composed(image)
    return image.convert("RGB")


def _composed(image: Image.Image) -> Image.Image:
    """Lay an image with transparency on white, some rows at a time, which takes less memory."""
    result = Image.new("RGB", image.size)
    rows = max(STRIP_PIXELS // image.width, 1)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        rgba = image.crop(box).convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        result.paste(Image.alpha_composite(white, rgba).convert("RGB"), box)
    return result


def _from_deep(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bits, which Pillow itself would clip."""
    levels = np.asarray(image)
    top = 65535.0 if levels.max(initial=0) > 255 else 255.0
    greys = np.clip(np.arange(65536) * (255.0 / top), 0, 255).astype(np.uint8)
    return Image.fromarray(greys[levels])


def shrink(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Resize to the network's size, anti-aliased, without keeping the aspect ratio.

    :param rgb: uint8 of shape (height, width, 3)
    :return: uint8 of shape (32, 90, 3)
    """
    return np.asarray(_resize(Image.fromarray(rgb)))


def _resize(image: Image.Image) -> Image.Image:
    # resize() returns a copy when the size is right already
    return image.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)


def contrast(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Grey by contrast: how far each pixel's colour is from the background's.

    Luma makes a light blue glyph on white all but vanish; the distance from the median colour, by
    the channel that differs most, keeps it.

    :param rgb: uint8 of shape (..., 32, 90, 3): one image or any batch of them
    :return: float32 of shape (..., 32, 90); 1.0 is the background, 0.0 the strongest ink
    """
    *batch, height, width, channels = rgb.shape
    if (height, width, channels) != (HEIGHT, WIDTH, 3):
        raise ValueError(f"expected shape (..., {HEIGHT}, {WIDTH}, 3), got {rgb.shape}")
    grey = np.empty((*batch, HEIGHT, WIDTH), np.float32)
    flat = grey.reshape(-1, _PIXELS)
    for row, pixels in enumerate(rgb.reshape(-1, _PIXELS, 3)):
        flat[row] = _contrast(pixels)
    return grey


def _contrast(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """One image, shape (2880, 3); counting levels takes a third of the time of sorting pixels."""
    planes = np.ascontiguousarray(pixels.T)
    ground = np.array([[_ranked(plane, _MIDDLE)] for plane in planes], np.uint8)
    distance = (np.maximum(planes, ground) - np.minimum(planes, ground)).max(axis=0)
    grey: NDArray[np.float32] = _GREY[_ranked(distance, _STRONGEST)].take(distance)
    return grey


def _ranked(levels: NDArray[np.uint8], rank: int) -> int:
    """The level that would stand at a rank if all were sorted."""
    return int(np.bincount(levels).cumsum().searchsorted(rank, "right"))


def prepare(data: bytes) -> NDArray[np.float32]:
    """Bytes of an image -> the network's input.

    :return: float32 of shape (32, 90), 1.0 = background, 0.0 = strongest ink
    :raises ImageError: when the bytes are not an acceptable image
    """
    return contrast(np.asarray(_resize(_open(data))))
