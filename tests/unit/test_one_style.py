from __future__ import annotations

import json
import random
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scrapy_captcha.image import prepare

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import one_style

try:
    one_style.faces()
except FileNotFoundError:
    pytest.skip("none of the style's typefaces is installed", allow_module_level=True)


def test_the_same_seed_draws_the_same_images_whatever_the_number_of_processes(monkeypatch):
    monkeypatch.setattr(one_style, "CHUNK", 5)
    alone = list(one_style.chunks(7, 12, workers=1))
    together = list(one_style.chunks(7, 12, workers=2))
    assert [len(pixels) for pixels, _ in alone] == [5, 5, 2]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
    assert not np.array_equal(one_style.chunk(8, 0, 5)[0], alone[0][0])


def test_an_image_is_black_on_white_with_a_line_at_the_top_and_the_left():
    rng = random.Random(1)
    for _ in range(20):
        data, label = one_style.draw(rng)
        assert len(label) == 4
        assert set(label) <= set(one_style.CHARSET)
        with Image.open(BytesIO(data)) as image:
            assert (image.format, image.size) == ("JPEG", (90, 32))
            grey = np.asarray(image.convert("L"))
        assert grey[0].max() < 64
        assert grey[:, 0].max() < 64
        ink = grey[1:, 1:] < 128
        assert 0.08 < ink.mean() < 0.35
        assert not ink[:4].all(axis=1).any()  # the line is one pixel thick
        assert ((grey > 64) & (grey < 192)).mean() < 0.01
        # the reader's input is what a plain grey image would have been
        assert np.abs(prepare(data) - grey / 255).mean() < 0.01


def test_labels_name_the_classes_evenly_though_letters_are_drawn_in_two_cases():
    labels = one_style.chunk(3, 0, 400)[1]
    counts = np.bincount(labels.ravel(), minlength=36)
    assert counts.min() > 20
    assert counts.max() < 80


def test_every_character_leaves_ink_on_the_image():
    for character in one_style.DRAWN:
        shape = one_style.glyph(one_style.faces()[0], character)
        image = Image.new("RGB", (90, 32), (255, 255, 255))
        one_style.stamp(image, shape, 24.0, (10.0, 25.0), 0.4)
        ink = np.asarray(image)[..., 0] == 0
        assert ink.sum() > 30, character
        assert not ink[:, 50:].any(), character


def test_a_glyph_that_is_not_turned_stands_on_its_baseline_at_its_pen():
    shape = one_style.glyph(one_style.faces()[0], "H")
    image = Image.new("RGB", (90, 32), (255, 255, 255))
    one_style.stamp(image, shape, 24.0, (10.0, 26.0), 0.0)
    rows, columns = np.nonzero(np.asarray(image)[..., 0] == 0)
    assert rows.max() == 25
    assert rows.max() - rows.min() + 1 == pytest.approx(0.729 * 24, abs=1)  # a capital's height
    assert 10 < columns.min() < columns.max() < 10 + shape.advance * 24 / one_style.EM


def test_images_are_drawn_once_and_kept(tmp_path, monkeypatch, capsys):
    first = one_style.open_images(tmp_path / "images", train=8, unseen=4, seed=2)
    assert first.pixels.shape == (8, 32, 90)
    assert first.unseen_pixels.shape == (4, 32, 90)
    assert first.labels.shape == (8, 4)
    monkeypatch.setattr(one_style, "chunks", lambda *_: pytest.fail("drawn again"))
    again = one_style.open_images(tmp_path / "images", train=8, unseen=4, seed=2)
    np.testing.assert_array_equal(again.pixels, first.pixels)
    np.testing.assert_array_equal(again.unseen_labels, first.unseen_labels)
    assert "12 of 12" in capsys.readouterr().err


def test_other_images_than_those_asked_for_are_refused(tmp_path):
    one_style.open_images(tmp_path, train=8, unseen=4, seed=2)
    with pytest.raises(ValueError, match="holds other images"):
        one_style.open_images(tmp_path, train=8, unseen=4, seed=3)


def test_images_whose_drawing_was_interrupted_are_drawn_anew(tmp_path):
    (tmp_path / "pixels.npy").write_bytes(b"half an ar")
    assert one_style.open_images(tmp_path, train=2, unseen=1, seed=2).pixels.shape == (2, 32, 90)
    assert json.loads((tmp_path / "style.json").read_text())["train"] == 2


def test_the_sheet_shows_many(tmp_path):
    one_style.sheet(tmp_path / "sheet.png", None, columns=2, rows=2, zoom=1)
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.size == (2 * 94 + 4, 2 * 36 + 4)
