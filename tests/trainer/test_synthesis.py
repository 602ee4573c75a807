from __future__ import annotations

import multiprocessing
import random
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from scrapy_captcha.errors import CaptchaError
from scrapy_captcha.image import HEIGHT, WIDTH, prepare
from trainer import damage, drawing, fonts, glyphs, synthesis
from trainer.__main__ import main
from trainer.fonts import Typeface


@pytest.fixture(scope="module")
def faces():
    found = fonts.font_files()
    if not found:
        pytest.skip("no scalable font is installed")
    plain = [path for path in found if fonts.PLAIN.search(str(path.parent))]
    usable = fonts.legible((plain or found)[:12])
    return tuple(Typeface(str(path), 1.0, True) for path in usable)


@pytest.fixture
def installed(faces, monkeypatch):
    """A handful of typefaces instead of all that the system has, which take long to judge."""
    monkeypatch.setattr(drawing, "typefaces", lambda folders: faces)


def test_a_stream_is_what_a_network_takes(installed):
    images, labels = next(synthesis.stream(seed=1, batch=32, workers=0))
    assert images.shape == (32, HEIGHT, WIDTH, 1)
    assert images.dtype == np.float32
    assert images.min() >= 0
    assert images.max() <= 1
    assert labels.shape == (32, 4)
    assert labels.dtype == np.int32
    assert 0 <= labels.min() <= labels.max() < 36
    assert images.std(axis=(1, 2, 3)).min() > 0  # no empty picture


def test_one_seed_gives_one_stream_and_another_seed_another(installed):
    def first(seed):
        return next(synthesis.stream(seed=seed, batch=16, workers=0))

    for one, other in zip(first(3), first(3), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (first(3)[1] != first(4)[1]).any()


def test_worker_processes_change_nothing_but_the_speed(installed):
    def labels(workers):
        chunks = synthesis.chunks(
            seed=5, charset="ab12", length=(4, 4), batch=4, workers=workers, start=2
        )
        try:
            return [(images.copy(), texts.copy()) for images, texts in islice(chunks, 3)]
        finally:
            chunks.close()

    for (image, text), (image_2, text_2) in zip(labels(0), labels(2), strict=True):
        np.testing.assert_array_equal(image, image_2)
        np.testing.assert_array_equal(text, text_2)


def test_varying_lengths_are_left_aligned_and_filled_with_the_blank_class(faces):
    drawer = drawing.Synthesizer("0123456789", (3, 6), faces)
    _, labels = drawer.chunk(1, 0, 80, 1.0)
    assert labels.shape == (80, 6)
    blanks = labels == 10
    assert set((~blanks).sum(axis=1)) == {3, 4, 5, 6}
    assert (np.diff(blanks.astype(int), axis=1) >= 0).all()


def test_a_lower_case_charset_is_drawn_in_both_cases_and_labelled_in_lower_case(faces):
    drawer = drawing.Synthesizer("abcdefgh", (4, 4), faces)
    rng = random.Random(1)
    texts = [drawer._text(rng) for _ in range(200)]
    assert all(text.islower() and drawn.lower() == text for text, drawn in texts)
    assert any(drawn.isupper() for _, drawn in texts)
    assert any(drawn.islower() for _, drawn in texts)
    assert any(not drawn.isupper() and not drawn.islower() for _, drawn in texts)


def test_a_case_sensitive_charset_is_drawn_as_it_is_labelled(faces):
    drawer = drawing.Synthesizer("abAB", (4, 4), faces)
    rng = random.Random(1)
    assert all(text == drawn for text, drawn in (drawer._text(rng) for _ in range(50)))


@pytest.mark.parametrize(("charset", "length"), [("", (4, 4)), ("ab", (0, 4)), ("ab", (5, 4))])
def test_a_task_that_makes_no_sense_is_refused(faces, charset, length):
    with pytest.raises(ValueError, match="shortest <= longest"):
        drawing.Synthesizer(charset, length, faces)


@pytest.mark.parametrize(("charset", "named"), [("漢字", "漢 字"), ("a_/.", "_ / ."), ("abé", "é")])
def test_characters_that_typefaces_may_lack_are_named_and_not_drawn_as_boxes(
    tmp_path, capsys, charset, named
):
    out = tmp_path / "drawn"
    assert main(["synthesize", "--out", str(out), "--charset", charset]) == 2
    assert f"cannot draw {named}: " in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("sheet", "message"),
    [
        ("sheet", "to end in .bmp, .gif, .jpeg, .jpg, .png, .webp, got"),
        ("sheet.psd", "to end in"),
        ("missing/sheet.png", "cannot write the sheet"),
    ],
)
def test_a_sheet_that_cannot_be_written_is_refused_before_it_is_drawn(
    tmp_path, capsys, monkeypatch, sheet, message
):
    monkeypatch.setattr(synthesis, "contact_sheet", lambda *_, **__: pytest.fail("it was drawn"))
    assert main(["synthesize", "--sheet", str(tmp_path / sheet)]) == 2
    assert message in capsys.readouterr().err


def test_images_that_cannot_be_written_say_where(installed, tmp_path, capsys):
    (tmp_path / "file").write_bytes(b"")
    assert main(["synthesize", "--out", str(tmp_path / "file"), "--count", "1"]) == 2
    assert capsys.readouterr().err == (
        f"error: cannot write images to {tmp_path / 'file'}: File exists\n"
    )


def test_a_process_that_dies_while_drawing_ends_the_stream_with_what_to_do(installed):
    # a chunk that is larger than what a pipe holds, so that it dies in the middle of one
    chunks = synthesis.chunks(seed=5, charset="ab12", length=(4, 4), batch=40, workers=1)
    with closing(chunks):
        next(chunks)
        (process,) = multiprocessing.active_children()
        process.kill()
        with pytest.raises(CaptchaError, match=r"ended with code -9.*the same command again"):
            for _ in chunks:
                pass


def test_sizes_shapes_and_colours_vary(faces):
    drawer, rng = drawing.Synthesizer(drawing.ALNUM, (4, 4), faces), random.Random(7)
    images = [drawer.draw(rng)[0] for _ in range(120)]
    ratios = [image.width / image.height for image in images]
    assert min(ratios) < 2.1
    assert max(ratios) > 4
    assert {image.mode for image in images} == {"RGB"}
    assert min(image.height for image in images) <= 24
    assert max(image.height for image in images) >= 70
    grounds = [np.median(np.asarray(image.convert("L"))) for image in images]
    assert min(grounds) < 60
    assert max(grounds) > 240


def test_without_clutter_and_damage_most_of_the_picture_is_background(faces):
    drawer, rng = drawing.Synthesizer(drawing.ALNUM, (4, 4), faces), random.Random(7)
    quiet = [np.mean(prepare(synthesis.encoded(drawer.draw(rng, 0.0)[0])) > 0.8) for _ in range(60)]
    busy = [np.mean(prepare(synthesis.encoded(drawer.draw(rng, 1.0)[0])) > 0.8) for _ in range(60)]
    assert np.mean(quiet) > np.mean(busy)
    assert np.mean(quiet) > 0.7


class Rolled(random.Random):
    """Always the same roll, so that one thing happens and no other."""

    def __init__(self, roll):
        super().__init__(0)
        self._roll = roll

    def random(self):
        return self._roll


def bar_on(ground, ink):
    image = Image.new("RGB", (80, 30), ground)
    image.paste(ink, (20, 5, 30, 25))
    image.paste(tuple((a + b) // 2 for a, b in zip(ground, ink, strict=True)), (30, 5, 31, 25))
    return image


def test_one_in_a_hundred_is_saved_in_black_and_white_with_greys_as_dots():
    grey = Image.new("RGB", (80, 30), (150, 150, 150))
    saved = damage.damage(grey, Rolled(0.999), 1.0)
    assert {colour for _, colour in saved.getcolors()} == {(0, 0, 0), (255, 255, 255)}
    assert np.asarray(saved).mean() == pytest.approx(150, abs=5)


def test_a_transparent_background_is_white_as_a_crawl_decodes_it_and_edges_have_a_seam():
    image = bar_on((220, 230, 200), (40, 0, 90))
    roll = 1 - damage.DITHERED - damage.TRANSPARENT / 2
    saved = damage.damage(image, Rolled(roll), 1.0)
    assert saved.getpixel((5, 5)) == (255, 255, 255)
    assert saved.getpixel((25, 15)) == (40, 0, 90)
    opaque = np.array(image.getpixel((30, 15)), float)
    assert np.abs(opaque - saved.getpixel((30, 15))).max() > 20
    seams = {damage.transparent(image, random.Random(i)).getpixel((30, 15)) for i in range(20)}
    assert len(seams) > 5


def test_light_text_on_dark_ground_is_not_made_transparent():
    image = bar_on((30, 30, 60), (250, 250, 250))
    assert damage.transparent(image, random.Random(1)) is image


def test_written_images_are_a_plain_dataset_of_labelled_files(installed, tmp_path):
    synthesis.write_images(tmp_path / "set", 12, 1, "0123456789", (5, 5))
    files = sorted((tmp_path / "set").iterdir())
    assert len(files) == 12
    for path in files:
        label, _, rest = path.name.partition("_")
        assert len(label) == 5
        assert label.isdecimal()
        assert rest.endswith(".png")
        assert prepare(path.read_bytes()).shape == (HEIGHT, WIDTH)


def test_the_contact_sheet_is_a_picture_of_the_asked_size(installed, tmp_path):
    synthesis.contact_sheet(tmp_path / "sheet.png", 1, columns=3, rows=2)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (3 * 154, 2 * 54)
        assert len(sheet.convert("RGB").getcolors(1 << 20)) > 20


def test_fonts_without_readable_letters_are_left_out(tmp_path, faces):
    (tmp_path / "broken.ttf").write_bytes(b"not a font")
    (tmp_path / "SomeIcons.ttf").write_bytes(Path(faces[0].path).read_bytes())
    (tmp_path / "text.ttf").write_bytes(Path(faces[0].path).read_bytes())
    assert [p.name for p in fonts.font_files([tmp_path])] == ["broken.ttf", "text.ttf"]
    assert [p.name for p in fonts.legible(fonts.font_files([tmp_path]))] == ["text.ttf"]


def test_a_machine_without_fonts_is_told_to_install_some(tmp_path):
    with pytest.raises(FileNotFoundError, match="install the font packages"):
        fonts.typefaces((tmp_path,))


def test_glyphs_are_cropped_to_their_ink(faces):
    mask = glyphs.filled(faces[0].path, 24, "e", False)
    assert mask.getbbox() == (0, 0, *mask.size)
    reference = ImageFont.truetype(faces[0].path, 24).getmask("e").getbbox()
    assert mask.size == (reference[2] - reference[0], reference[3] - reference[1])


def test_a_skeleton_has_far_less_ink_than_the_glyph(faces):
    full = np.asarray(glyphs.filled(faces[0].path, 40, "B", True)) > 0
    thin = np.asarray(glyphs.skeleton(faces[0].path, 40, "B")) > 0
    assert 20 < thin.sum() < 0.6 * full.sum()


def test_a_turn_by_a_right_angle_swaps_width_and_height(faces):
    mask = glyphs.filled(faces[0].path, 40, "l", False)
    turned = glyphs.transformed(mask, degrees=90, shear=0, scale_x=1, scale_y=1, smooth=True)
    assert abs(turned.width - mask.height) <= 2
    assert abs(turned.height - mask.width) <= 2


def test_shear_leans_the_top_to_the_right():
    bar = Image.new("L", (5, 31), 255)
    leaning = np.asarray(
        glyphs.transformed(bar, degrees=0, shear=0.5, scale_x=1, scale_y=1, smooth=False)
    )
    assert np.flatnonzero(leaning[1]).mean() > np.flatnonzero(leaning[-2]).mean() + 10
