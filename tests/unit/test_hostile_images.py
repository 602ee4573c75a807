"""Files that were made to harm give a reading or an ``ImageError``, soon, and nothing else."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import contextlib

import hostile_corpus
import hostile_images
from ordinary_images import chunk, drawn, inserted, originals, saved

from scrapy_captcha import Recognition, Recognizer
from scrapy_captcha.errors import ImageError
from scrapy_captcha.image import decode, prepare
from scrapy_captcha.wrapping import unwrap

BENCHMARKS = Path(hostile_images.__file__).parent

measured = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def benchmark(*words: str) -> list[dict]:
    """What the program prints; it judges by its own limits and fails above them."""
    command = [sys.executable, str(BENCHMARKS / "hostile_images.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@measured
def test_no_bomb_gives_anything_but_a_reading_or_an_image_error_or_takes_50_mb() -> None:
    *found, total = benchmark("bombs", "--limit-ms", "5000")
    assert total["images"] == len(found) > 180
    assert total["read"] + total["refused"] == total["images"]
    outcomes = {each["name"]: each["outcome"] for each in found}
    for name in ("PNG 60 MB of zTXt", "APNG 10,000 frames", "JPEG YCCK", "PNG transparent black"):
        assert outcomes[name] == "read"
    for name in ("PNG 9400x9400", "JPEG 60,000 scans", "SVG", "one byte", "TIFF", "nothing"):
        assert outcomes[name] == "refused"


@measured
def test_no_mutation_gives_anything_but_a_reading_or_an_image_error() -> None:
    (total,) = benchmark("mutations", "--count", "1500", "--limit-ms", "5000")
    assert total["read"] + total["refused"] == 1500
    assert min(total["read"], total["refused"]) > 200


@measured
@pytest.mark.slow
def test_no_mutation_of_a_hundred_thousand_gives_anything_but_a_reading_or_an_error() -> None:
    (total,) = benchmark("mutations", "--count", "100000", "--seed", "1", "--limit-ms", "1000")
    assert total["read"] + total["refused"] == 100_000


@pytest.mark.parametrize("kind", [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM", b"RIFF"])
@given(data=st.binary(max_size=300))
@settings(deadline=None, max_examples=60)
def test_any_bytes_behind_a_magic_number_are_an_image_error_or_an_image(
    kind: bytes, data: bytes
) -> None:
    with contextlib.suppress(ImageError):
        assert prepare(kind + data).shape == (32, 90)


@given(
    name=st.sampled_from(sorted(originals())),
    cuts=st.lists(
        st.tuples(st.floats(0, 1), st.binary(max_size=8), st.integers(0, 40)), max_size=5
    ),
)
@settings(deadline=None, max_examples=200)
def test_an_image_with_pieces_replaced_is_an_image_error_or_an_image(
    name: str, cuts: list[tuple[float, bytes, int]]
) -> None:
    data = originals()[name]
    for where, piece, length in cuts:
        at = int(where * len(data))
        data = data[:at] + piece + data[at + length :]
    for each in (data, hostile_images.repaired(data)) if name.startswith("PNG") else (data,):
        with contextlib.suppress(ImageError):
            prepare(each)


def test_a_reader_says_the_same_of_a_file_with_a_bomb_around_the_picture() -> None:
    reader = Recognizer.load("alnum4")
    data = saved(drawn(), "PNG")
    text = zlib.compress(bytes(1_000_000), 9)
    texts = b"".join(chunk(b"zTXt", b"k%d\0\0" % i + text) for i in range(60))
    assert isinstance(reader.read(data), Recognition)
    assert reader.read(inserted(data, texts)) == reader.read(data)


# -- what is left of a file


@pytest.mark.parametrize("name", sorted(originals()))
def test_a_picture_looks_as_in_the_whole_file(name: str) -> None:
    data = originals()[name]
    picture = unwrap(data)
    assert len(picture.data) <= len(data) + 60
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data)) as whole, Image.open(io.BytesIO(picture.data)) as part:
            assert picture.size == whole.size == part.size
            assert picture.format == whole.format == part.format
            assert np.array_equal(np.asarray(whole.convert("RGBA")), part.convert("RGBA"))
    assert unwrap(picture.data) == picture


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"tEXt", b"transparency\0x"),
        chunk(b"tEXt", b"bbox\0x"),
        chunk(b"acTL", bytes(8)) * 2,
        chunk(b"eXIf", b"II*\0\xff\xff\xff\xff"),
        chunk(b"zTXt", b"a\0\1"),
        chunk(b"iCCP", b""),
        chunk(b"fcTL", b""),
    ],
)
def test_what_stands_beside_the_pixels_of_a_png_cannot_spoil_it(extra: bytes) -> None:
    data = saved(drawn(), "PNG")
    assert unwrap(inserted(data, extra)) == unwrap(data)
    assert np.array_equal(decode(inserted(data, extra)), decode(data))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_what_the_file_says_beside_its_picture_is_left_out(kind: str) -> None:
    more = {
        "exif": b"Exif\0\0II*\0SECRET",
        "comment": b"SECRET",
        "xmp": b"SECRET",
        "icc_profile": b"SECRET",
    }
    data = saved(drawn(), kind, **more)
    assert b"SECRET" in data
    assert b"SECRET" not in unwrap(data).data


@pytest.mark.parametrize(
    ("size", "count", "read"),
    [
        ((2000, 1000), 29, True),
        ((2000, 1000), 40, False),
        ((90, 32), 900, True),
        ((90, 32), 1000, False),
    ],
)
def test_a_jpeg_may_have_as_many_scans_as_its_size_affords(
    size: tuple[int, int], count: int, read: bool
) -> None:
    data = hostile_corpus.scans(size, count)
    if read:
        assert decode(data).shape == (size[1], size[0], 3)
    else:
        with pytest.raises(ImageError, match=r"too many scans|more than 1000 segments"):
            decode(data)


def test_progressive_images_of_the_largest_size_are_read() -> None:
    for mode in ("L", "RGB"):
        image = drawn(mode, (2000, 1000))
        assert decode(saved(image, "JPEG", progressive=True, subsampling=0)).shape == (
            1000,
            2000,
            3,
        )
    cmyk = saved(drawn("CMYK", (2000, 1000)), "JPEG", progressive=True)
    assert decode(cmyk).shape == (1000, 2000, 3)


def test_a_decoder_never_sees_a_size_that_was_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should the two ever disagree on how large an image is, it is not decoded."""
    opened = Image.open

    def larger(*args: object, **kwargs: object) -> Image.Image:
        image = opened(*args, **kwargs)  # type: ignore[arg-type]
        image._size = (4000, 4000)
        return image

    monkeypatch.setattr(Image, "open", larger)
    with pytest.raises(ImageError, match="another size"):
        decode(saved(drawn(), "PNG"))


def test_a_mutation_can_be_made_again_by_its_number() -> None:
    images = list(originals().values())
    first, again = (
        [hostile_images.mutated(random.Random(f"0 {i}"), images) for i in range(40)]
        for _ in range(2)
    )
    assert first == again
    assert len(set(first)) == 40


@measured
def test_a_process_that_dies_and_an_error_of_another_kind_are_noticed(tmp_path: Path) -> None:
    """The program that finds no fault finds one where there is one."""
    sick = tmp_path / "sick.py"
    sick.write_text(
        "import os, pathlib, sys, hostile_images as h\n"
        "died = pathlib.Path(__file__).with_name('died')\n"
        "def read(self, data, real=h.Judge.read, calls=[]):\n"
        "    calls.append(data)\n"
        "    if len(calls) == 50 and not died.exists():\n"
        "        died.touch()\n"
        "        os.abort()\n"
        "    return real(self, 7 if len(calls) == 60 else data)\n"
        "h.Judge.read = read\n"
        "h.__file__ = __file__\n"
        "sys.exit(h.main())\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(BENCHMARKS), *sys.path])}
    command = [sys.executable, str(sick), "mutations", "--count", "80"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1, done.stderr
    total = json.loads(done.stdout)
    assert [each["number"] for each in total["died"]] == [18]
    assert ["TypeError" in each["said"] for each in total["wrong"]] == [True]
