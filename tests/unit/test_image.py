"""Untrusted bytes are refused before they cost anything, and every sort of image looks alike."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from scrapy_captcha import image as module
from scrapy_captcha.errors import ImageError
from scrapy_captcha.image import HEIGHT, MAX_BYTES, WIDTH, contrast, decode, prepare, shrink


def drawn(mode: str = "RGB", size: tuple[int, int] = (90, 32), ink: Any = "black") -> Image.Image:
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).rectangle((10, 8, 30, 20), fill=ink)
    return image.convert(mode)


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG that says it is so large, and has a body that would make it so."""

    def chunk(name: bytes, data: bytes) -> bytes:
        check = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    packer = zlib.compressobj(9)
    row = bytes(1 + 3 * width)
    rows = b"".join(packer.compress(row) for _ in range(min(height, 500))) + packer.flush()
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


# -- what is refused


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GIF89a",
        b"not an image at all",
        b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        b"<!doctype html><p>captcha",
        b"\x89PNG\r\n\x1a\n" + b"\0" * 50,
        b"\xff\xd8\xff\xe0" + b"\0" * 50,
        b"RIFF\x10\0\0\0WEBPVP8 " + b"\0" * 20,
        b"BM" + b"\xff" * 60,
        saved(drawn())[:-30],
        saved(drawn())[:60],
        saved(drawn(), "TIFF"),
        saved(drawn(), "ICO"),
        saved(drawn(), "PPM"),
        saved(drawn(), "EPS"),
        saved(drawn(), "PDF"),
    ],
)
def test_what_is_no_image_of_the_allowed_kinds_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError):
        decode(data)


@pytest.mark.parametrize("size", [(9400, 9400), (4097, 10), (10, 4097), (2000, 1001)])
def test_a_large_image_is_refused_before_it_is_decompressed(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bomb(*size)
    assert len(data) < MAX_BYTES

    def load(self: Image.Image) -> None:
        raise AssertionError("decompressed")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(ImageError, match=f"{size[0]}x{size[1]}"):
        decode(data)


def test_an_image_that_pillow_itself_calls_a_bomb_is_an_image_error() -> None:
    with pytest.raises(ImageError):
        decode(bomb(30000, 30000))


def test_many_bytes_are_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.Image, "open", lambda *args, **kwargs: pytest.fail("opened"))
    with pytest.raises(ImageError, match="at most 1048576 bytes, got 1048577"):
        decode(saved(drawn()) + bytes(MAX_BYTES + 1 - len(saved(drawn()))))


def test_the_largest_allowed_image_is_read() -> None:
    assert decode(saved(drawn("1", (2000, 1000)))).shape == (1000, 2000, 3)
    assert decode(saved(drawn("1", (4096, 400)))).shape == (400, 4096, 3)


def test_running_out_of_memory_is_an_image_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: Image.Image) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(ImageError, match="not enough memory"):
        decode(saved(drawn()))


# -- what is read


def transparent(mode: str) -> Image.Image:
    """Black ink on a transparent ground whose hidden colour is black."""
    alpha = Image.new("L", (90, 32), 0)
    ImageDraw.Draw(alpha).rectangle((10, 8, 30, 20), fill=255)
    image = Image.new("RGB", (90, 32), "black").convert("L" if mode == "LA" else "RGB")
    image.putalpha(alpha)
    return image


def palette_with_transparency() -> bytes:
    image = Image.new("P", (90, 32), 0)
    image.putpalette([10, 10, 10, 0, 0, 0] + [0] * 762)
    ImageDraw.Draw(image).rectangle((10, 8, 30, 20), fill=1)
    return saved(image, "PNG", transparency=0)


def sixteen_bit() -> bytes:
    levels = np.full((32, 90), 65535, np.uint16)
    levels[8:21, 10:31] = 0
    return saved(Image.fromarray(levels))


def animated() -> bytes:
    blank = Image.new("RGB", (90, 32), "red")
    return saved(drawn(), "GIF", save_all=True, append_images=[blank], duration=100)


IMAGES = {
    "RGB": saved(drawn()),
    "grey": saved(drawn("L")),
    "one bit": saved(drawn("1")),
    "palette": saved(drawn("P")),
    "RGBA": saved(transparent("RGBA")),
    "LA": saved(transparent("LA")),
    "palette with transparency": palette_with_transparency(),
    "16 bit": sixteen_bit(),
    "GIF": saved(drawn("P"), "GIF"),
    "animated GIF": animated(),
    "BMP": saved(drawn(), "BMP"),
    "WEBP": saved(drawn(), "WEBP", lossless=True),
    "JPEG": saved(drawn(), "JPEG", quality=100, subsampling=0),
    "CMYK JPEG": saved(drawn("CMYK"), "JPEG", quality=100),
    "progressive JPEG": saved(drawn("L"), "JPEG", quality=100, progressive=True),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_every_kind_of_image_gives_the_same_picture(kind: str) -> None:
    pixels = decode(IMAGES[kind])
    assert pixels.dtype == np.uint8
    assert pixels.shape == (32, 90, 3)
    expected = np.asarray(drawn()).astype(int)
    assert np.abs(pixels - expected).max() <= 12


@pytest.mark.parametrize("kind", IMAGES)
def test_every_kind_of_image_gives_the_same_input(kind: str) -> None:
    assert np.abs(prepare(IMAGES[kind]) - prepare(IMAGES["RGB"])).max() < 0.06


def test_a_deep_image_that_uses_eight_bits_keeps_its_levels() -> None:
    levels = np.full((32, 90), 255, np.uint16)
    levels[8:21, 10:31] = 100
    pixels = decode(saved(Image.fromarray(levels)))
    assert set(np.unique(pixels)) == {100, 255}


# -- the network's input


def test_the_input_has_the_network_s_shape_and_range() -> None:
    array = prepare(saved(drawn(size=(200, 60))))
    assert array.shape == (HEIGHT, WIDTH)
    assert array.dtype == np.float32
    assert array.max() == 1.0
    assert array.min() == 0.0


@pytest.mark.parametrize("ink", ["#9cd3ff", "yellow", "#888", "red"])
def test_ink_of_any_colour_is_as_dark(ink: str) -> None:
    array = prepare(saved(drawn(ink=ink)))
    assert array[14, 20] == pytest.approx(0, abs=0.02)
    assert array[2, 70] == 1.0


def test_light_text_on_a_dark_ground_looks_like_dark_on_light() -> None:
    dark = np.asarray(drawn())
    inverted = contrast(shrink(255 - dark))
    assert inverted == pytest.approx(contrast(shrink(dark)))


@pytest.mark.parametrize("colour", ["white", "black", "#336699"])
def test_an_empty_image_is_all_background(colour: str) -> None:
    array = prepare(saved(Image.new("RGB", (90, 32), colour)))
    assert array.min() == array.max() == 1.0


def test_noise_of_a_weak_contrast_is_not_blown_up() -> None:
    noise = np.random.default_rng(1).integers(250, 256, (32, 90, 3), np.uint8)
    assert contrast(noise).min() > 0.8


def test_a_batch_gives_what_its_images_give() -> None:
    images = np.stack([np.asarray(drawn(ink=ink)) for ink in ("black", "red", "#9cd3ff")])
    batch = contrast(images)
    assert batch.shape == (3, HEIGHT, WIDTH)
    for image, array in zip(images, batch, strict=True):
        assert np.array_equal(contrast(image), array)
    nested = contrast(images[None])
    assert nested.shape == (1, 3, HEIGHT, WIDTH)


def test_a_wrong_shape_is_named() -> None:
    with pytest.raises(ValueError, match=r"expected shape .*32, 90, 3.*got \(32, 91, 3\)"):
        contrast(np.zeros((32, 91, 3), np.uint8))


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (90, 32), (360, 128)])
def test_any_size_is_brought_to_the_network_s(size: tuple[int, int]) -> None:
    assert shrink(np.asarray(drawn(size=size))).shape == (HEIGHT, WIDTH, 3)
    assert prepare(saved(drawn(size=size))).shape == (HEIGHT, WIDTH)
