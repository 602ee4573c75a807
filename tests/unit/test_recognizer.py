"""Logits become the most probable text that the rule allows, and bytes become logits."""

from __future__ import annotations

import io
import json
import math
import shutil
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from scrapy_captcha import Recognizer
from scrapy_captcha.bundle import MANIFEST, MODEL, Manifest, resolve
from scrapy_captcha.errors import BundleError, ImageError
from scrapy_captcha.recognizer import EitherRecognizer, allowed_classes, decode_logits

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def manifest(**changes: Any) -> Manifest:
    made = Manifest("trial", "abc1", length=2, min_length=2, architecture="four_head_compact")
    return replace(made, **changes)


def logits(*rows: list[float]) -> NDArray[np.float32]:
    """Logits whose softmax is these probabilities."""
    return np.log(np.array(rows, np.float32))


TWO = logits([0.5, 0.3, 0.1, 0.1], [0.1, 0.2, 0.3, 0.4])


def test_the_best_of_each_head_is_read() -> None:
    read = decode_logits(TWO, manifest())
    assert read.text == "a1"
    assert read.confidence == pytest.approx(0.5 * 0.4)
    assert [character for character, _ in read.characters] == ["a", "1"]
    assert [chance for _, chance in read.characters] == pytest.approx([0.5, 0.4])


def test_a_charset_leaves_only_its_characters() -> None:
    read = decode_logits(TWO, manifest(), charset="bc")
    assert read.text == "bc"
    assert read.confidence == pytest.approx(0.75 * 0.6)
    assert decode_logits(TWO, manifest(), charset="1b").text == "b1"


def test_the_charset_is_folded_to_the_bundle_s_case() -> None:
    assert decode_logits(TWO, manifest(), charset="BC").text == "bc"
    assert decode_logits(TWO, manifest(), charset="aAbB").text == "ab"
    with pytest.raises(ValueError, match="it does not know 'BC'"):
        decode_logits(TWO, manifest(case="as-is"), charset="BC")


def test_a_character_that_the_model_lacks_is_named() -> None:
    with pytest.raises(ValueError, match=r"expected a charset within 'abc1'.*does not know 'é'"):
        allowed_classes(manifest(), "abé")
    with pytest.raises(ValueError, match="expected a charset"):
        allowed_classes(manifest(), "")
    assert allowed_classes(manifest(), None) is None


def test_the_logits_are_left_as_they_were() -> None:
    given = TWO.copy()
    decode_logits(given, manifest(temperature=1.0), charset="bc")
    assert np.array_equal(given, TWO)


def test_the_temperature_changes_the_confidence_and_not_the_text() -> None:
    hot = decode_logits(TWO, manifest(temperature=4.0))
    cold = decode_logits(TWO, manifest(temperature=0.25))
    assert hot.text == cold.text == "a1"
    assert hot.confidence < decode_logits(TWO, manifest()).confidence < cold.confidence


def test_extreme_logits_do_not_overflow() -> None:
    read = decode_logits(np.array([[1e30, -1e30, 0, 0], [3e38, 0, 0, 0]], np.float32), manifest())
    assert read.text == "aa"
    assert read.confidence == pytest.approx(1.0)


@pytest.mark.parametrize("length", [1, 3])
def test_a_fixed_length_is_the_only_one(length: int) -> None:
    assert decode_logits(TWO, manifest(), length=2).text == "a1"
    with pytest.raises(ValueError, match=f"reads 2 characters, not {length}"):
        decode_logits(TWO, manifest(), length=length)


# -- blanks: the last class of each head means that the text has ended

BLANK = manifest(charset="ab", length=4, min_length=2)


def test_a_text_ends_at_the_first_blank() -> None:
    rows = [[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.8, 0.1, 0.1], [0.05, 0.05, 0.9]]
    read = decode_logits(logits(*rows), BLANK)
    assert read.text == "aba"
    twos, threes, fours = 0.95**2 * 0.1 * 0.9, 0.95**2 * 0.9 * 0.9, 0.95**2 * 0.9 * 0.1
    assert read.confidence == pytest.approx(0.9 * 0.9 * 0.8 * 0.9 / (twos + threes + fours))
    assert [chance for _, chance in read.characters] == pytest.approx(
        [0.9 / 0.95] * 2 + [0.8 / 0.9]
    )


def test_the_length_is_chosen_by_all_heads_together() -> None:
    # the third head alone would say "a", but the fourth is sure of the end and cannot follow it
    rows = [[0.9, 0.05, 0.05], [0.9, 0.05, 0.05], [0.45, 0.1, 0.45], [0.01, 0.01, 0.98]]
    assert decode_logits(logits(*rows), BLANK).text in {"aa", "aaa"}
    rows[2] = [0.4, 0.1, 0.5]
    assert decode_logits(logits(*rows), BLANK).text == "aa"


def test_a_blank_in_the_middle_is_no_character() -> None:
    rows = [[0.9, 0.05, 0.05], [0.1, 0.1, 0.8], [0.9, 0.05, 0.05], [0.9, 0.05, 0.05]]
    read = decode_logits(logits(*rows), BLANK)
    assert len(read.text) in {2, 3, 4}
    assert set(read.text) <= {"a", "b"}


def test_a_text_is_never_shorter_than_the_shortest() -> None:
    rows = [[0.05, 0.05, 0.9]] * 4
    assert len(decode_logits(logits(*rows), BLANK).text) == 2


def test_a_rule_s_length_settles_it() -> None:
    rows = [[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.8, 0.1, 0.1], [0.05, 0.05, 0.9]]
    for length in (2, 3, 4):
        read = decode_logits(logits(*rows), BLANK, length=length)
        assert len(read.text) == length
        assert read.confidence == pytest.approx(math.prod(p for _, p in read.characters))
    assert read.confidence == pytest.approx((0.9 / 0.95) ** 2 * 0.8 / 0.9 * 0.5)
    with pytest.raises(ValueError, match="reads 2 to 4 characters, not 5"):
        decode_logits(logits(*rows), BLANK, length=5)


def test_a_charset_keeps_the_blank() -> None:
    rows = [[0.5, 0.4, 0.1], [0.4, 0.5, 0.1], [0.05, 0.05, 0.9], [0.05, 0.05, 0.9]]
    read = decode_logits(logits(*rows), BLANK, charset="b")
    assert read.text == "bb"


def test_the_confidences_of_all_texts_add_up_to_one_at_most() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        read = decode_logits(rng.normal(size=(4, 3)).astype(np.float32), BLANK)
        assert 0 < read.confidence <= 1


# -- models


def picture(text: str = "1a8m") -> bytes:
    image = Image.new("RGB", (90, 32), "white")
    ImageDraw.Draw(image).text((10, 6), text, fill="black", font_size=20)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def alnum4() -> Recognizer:
    return Recognizer.load("alnum4")


def test_the_shipped_model_reads_four_characters(alnum4: Recognizer) -> None:
    read = alnum4.read(picture())
    assert len(read.text) == 4
    assert set(read.text) <= set("0123456789abcdefghijklmnopqrstuvwxyz")
    assert 0 <= read.confidence <= 1
    assert "".join(character for character, _ in read.characters) == read.text


def test_the_shipped_model_reads_plain_print(alnum4: Recognizer) -> None:
    texts = ["2345", "7k3m", "wxyz", "hn4p", "q9t2", "e6rd", "u5bc", "3fgh", "8m2k", "a7cd"]
    read = [alnum4.read(picture(text)).text for text in texts]
    assert sum(a == b for a, b in zip(texts, read, strict=True)) >= 7


def test_a_charset_and_a_length_may_be_given(alnum4: Recognizer) -> None:
    assert set(alnum4.read(picture(), charset="ABC", length=4).text) <= set("abc")
    with pytest.raises(ValueError, match="reads 4 characters, not 5"):
        alnum4.read(picture(), length=5)
    with pytest.raises(ValueError, match="does not know"):
        alnum4.read(picture(), charset="äö")


PRINT = ["k7m", "2345", "7k3m", "wxyz", "hn4p", "q9t2", "w7k2m", "24680", "k3m7x9", "345678"]


def test_auto_is_the_shipped_model_for_a_length() -> None:
    assert Recognizer.load("auto", 4).manifest.name == "alnum4"
    assert Recognizer.load("auto", 6).manifest.name == "alnum8"
    assert Recognizer.load("auto", 6).model_hash == Recognizer.load("alnum8").model_hash


def either(
    general: Recognizer, specialist: Recognizer, chances: dict[int, float], **how: bool
) -> Any:
    """Both models, of which the general one sees the same lengths in every image."""
    made = EitherRecognizer(general, specialist, **how)
    blanks = np.zeros(general.manifest.length)
    for n in range(general.manifest.length):  # the chance that the text has ended before head n
        blanks[n] = sum(chance for length, chance in chances.items() if length <= n)
    rows = np.full((general.manifest.length, general.manifest.classes), -9.0, np.float32)
    rows[:, 5] = np.log(np.maximum(1 - blanks, 1e-9))
    rows[:, -1] = np.log(np.maximum(blanks, 1e-9))
    made.logits = lambda pixels: rows
    return made


def test_auto_reads_four_characters_as_the_model_for_four_does(alnum4: Recognizer) -> None:
    alnum8, image = Recognizer.load("alnum8"), picture("k7m2")
    assert Recognizer.load("auto").model_hash == f"{alnum8.model_hash}+{alnum4.model_hash}"
    auto = either(alnum8, alnum4, {4: 1.0})
    assert auto.read(image).text == alnum4.read(image).text
    assert auto.read(image).confidence == pytest.approx(alnum4.read(image).confidence, rel=0.01)
    expected = replace(alnum4.read(image), model_hash=auto.model_hash)
    assert auto.read(image, length=4) == expected


def test_auto_is_as_unsure_of_a_text_as_of_its_length(alnum4: Recognizer) -> None:
    alnum8, image = Recognizer.load("alnum8"), picture("k7m2")
    auto = either(alnum8, alnum4, {4: 0.5, 5: 0.5})
    assert auto.read(image).text == alnum4.read(image).text
    assert auto.read(image).confidence < 0.95 * alnum4.read(image).confidence
    assert len(either(alnum8, alnum4, {5: 1.0}).read(image).text) == 5
    with pytest.raises(ValueError, match="reads 3 to 8 characters, not 9"):
        auto.read(image, length=9)


def test_auto_may_remember_the_lengths_of_a_site(alnum4: Recognizer) -> None:
    alnum8, image = Recognizer.load("alnum8"), picture("k7m2")
    auto = either(alnum8, alnum4, {6: 1.0}, remembers=True)
    forgetful = either(alnum8, alnum4, {6: 1.0})
    for _ in range(30):
        assert len(auto.read(image).text) == len(forgetful.read(image).text) == 6
    doubtful = either(alnum8, alnum4, {4: 0.6, 6: 0.4}).logits
    auto.logits = forgetful.logits = doubtful
    assert len(auto.read(image).text) == 6
    assert len(forgetful.read(image).text) == 4


def test_the_model_for_many_lengths_reads_plain_print() -> None:
    alnum8 = Recognizer.load("alnum8")
    assert sum(alnum8.read(picture(text)).text == text for text in PRINT) >= 7


def test_many_are_read_as_one_by_one(alnum4: Recognizer) -> None:
    images = [picture(f"{number:04d}") for number in range(5)]
    assert alnum4.read_many(images) == [alnum4.read(image) for image in images]


def test_what_is_no_image_is_an_image_error(alnum4: Recognizer) -> None:
    with pytest.raises(ImageError):
        alnum4.read(b"<html>")


def test_threads_may_share_a_recognizer(alnum4: Recognizer) -> None:
    images = [picture(f"{number:04d}") for number in range(8)]
    expected = alnum4.read_many(images)
    results: list[Any] = [None] * 4

    def read(number: int) -> None:
        results[number] = [alnum4.read_many(images) for _ in range(5)]

    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[expected] * 5] * 4


# -- damage


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the shipped model that a test may damage."""
    return shutil.copytree(resolve("alnum4"), tmp_path / "copy")


def changed(copy: Path, **changes: Any) -> Path:
    data = json.loads((copy / MANIFEST).read_text())
    (copy / MANIFEST).write_text(json.dumps({**data, **changes}))
    return copy


def test_a_copy_of_a_version_is_a_model(copy: Path) -> None:
    assert Recognizer.load(copy).model_hash == Recognizer.load("alnum4").model_hash


def test_a_model_that_does_not_give_the_golden_readings_is_refused(copy: Path) -> None:
    golden = json.loads((copy / MANIFEST).read_text())["golden"]
    assert golden, "the shipped model has golden images"
    first = golden[0]["probabilities"][0]
    first[first.index(min(first))] = 1.0
    with pytest.raises(BundleError, match=r"the golden image .* away from those in the manifest"):
        Recognizer.load(changed(copy, golden=golden))


def test_a_golden_image_that_does_not_decode_is_a_bundle_error(copy: Path) -> None:
    golden = json.loads((copy / MANIFEST).read_text())["golden"]
    golden[0]["image"] = "AAAA"
    with pytest.raises(BundleError):
        Recognizer.load(changed(copy, golden=golden))


def test_a_model_of_another_shape_is_refused(copy: Path) -> None:
    with pytest.raises(BundleError, match="expected shapes"):
        Recognizer.load(changed(copy, charset="0123456789", golden=[]))


def test_a_model_that_was_tampered_with_is_refused_before_it_is_loaded(copy: Path) -> None:
    data = bytearray((copy / MODEL).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / MODEL).write_bytes(data)
    with pytest.raises(BundleError, match="sha256"):
        Recognizer.load(copy)


def test_bytes_that_are_no_model_are_a_bundle_error(copy: Path) -> None:
    from hashlib import sha256  # noqa: PLC0415

    data = json.loads((copy / MANIFEST).read_text())
    (copy / MODEL).write_bytes(b"TFL3 nonsense")
    entry = {"sha256": sha256(b"TFL3 nonsense").hexdigest(), "bytes": 13}
    with pytest.raises(BundleError, match="does not load"):
        Recognizer.load(changed(copy, files={**data["files"], MODEL: entry}))
