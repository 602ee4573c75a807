from __future__ import annotations

import os
import tracemalloc
import zipfile

import numpy as np
import pytest
from drawn_captchas import captcha, texts, write_folder

from scrapy_captcha.dataset import Dataset
from scrapy_captcha.errors import DatasetError
from trainer import zips
from trainer.corpus import Task, check_labels, doubt, encode, gather, load


def test_a_plain_folder_gives_labels_and_ignores_what_is_no_image(tmp_path):
    (tmp_path / "1a8m.png").write_bytes(captcha("1a8m"))
    (tmp_path / "0B_x_y.png").write_bytes(captcha("0b"))
    (tmp_path / "._1a8m.png").write_bytes(b"what a Mac leaves behind")
    (tmp_path / "README.txt").write_text("no image", encoding="utf-8")
    loaded = load([tmp_path], "lower")
    assert loaded.labels == ["0b", "1a8m"]
    assert loaded.images.shape == (2, 32, 90)
    assert load([tmp_path], "as-is").labels == ["0B", "1a8m"]


def test_of_a_folder_no_image_is_held_in_memory(tmp_path):
    for number in range(30):
        (tmp_path / f"ab_{number}.png").write_bytes(captcha("ab", number) + bytes(900_000))
    tracemalloc.start()
    try:
        samples = gather([tmp_path])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len({sample.digest for sample in samples}) == 30
    assert samples[0].data == (tmp_path / "ab_0.png").read_bytes()
    assert peak < 10 << 20


def test_a_zip_is_read_without_unpacking_wherever_the_images_are_in_it(tmp_path):
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        archive.writestr("some/ab_1.png", captcha("ab"))
        archive.writestr("cd.png", captcha("cd"))
        archive.writestr("__MACOSX/some/ab_1.png", b"not an image")
        archive.writestr("big_1.png", b"\0" * (2 << 20))
    loaded = load([tmp_path / "some.zip"], "lower")
    assert sorted(loaded.labels) == ["ab", "cd"]
    assert len(loaded.notes) == 1
    assert "big_1.png" in loaded.notes[0]


@pytest.mark.parametrize("given", ["", "example.com", "example.com/confirmed"])
def test_what_a_crawl_harvested_is_read_at_every_level_and_rejected_images_are_not(tmp_path, given):
    dataset = Dataset(tmp_path / "captchas")
    site = dataset.site("example.com")
    for verdict, text in [("accepted", "ab"), ("accepted", "a/"), ("rejected", "zz")]:
        site.store(captcha(text), text, 0.9, "0" * 16, verdict)
    dataset.close()
    loaded = load([tmp_path / "captchas" / given], "lower")
    assert sorted(loaded.labels) == ["a/", "ab"]


def test_a_conflict_with_a_label_too_long_for_a_file_name_is_left_out_as_any_other(tmp_path):
    site = Dataset(tmp_path).site("example.com")
    long = "\N{CJK UNIFIED IDEOGRAPH-9A8C}" * 12
    for image, label in (("00", "00"), ("00", long), ("11", "11"), ("22", "22")):
        site.store(captcha(image), label, 0.9, "0" * 16, "accepted")
    site.close()
    loaded = load([tmp_path], "lower")
    assert sorted(loaded.labels) == ["11", "22"]
    assert sorted(sample.label for sample in loaded.conflicts) == ["00", long]


def test_copies_conflicts_and_unreadable_images_are_left_out_each_with_a_count(tmp_path):
    write_folder(tmp_path, ["00", "11", "22"])
    (tmp_path / "00_again.png").write_bytes((tmp_path / "00_0000.png").read_bytes())
    (tmp_path / "77_0001.png").write_bytes((tmp_path / "11_0001.png").read_bytes())
    (tmp_path / "33_torn.png").write_bytes(captcha("33")[:100])
    (tmp_path / "44_empty.png").write_bytes(b"")
    (tmp_path / "55.png").write_bytes(captcha("55"))
    loaded = load([tmp_path], "lower")
    assert loaded.labels == ["00", "22", "55"]
    notes = "\n".join(loaded.notes)
    assert "left out 2 files (unreadable or damaged)" in notes
    assert "33_torn.png" in notes
    assert "44_empty.png" in notes
    assert "left out 1 file (second copies of an image)" in notes
    assert "left out 2 files (one image under two labels)" in notes
    assert "77_0001.png" in notes


def test_of_two_labels_of_an_image_that_is_named_which_cannot_be_right(tmp_path):
    write_folder(tmp_path, ["00", "11", "22"])
    for name in ("777", "0z"):
        (tmp_path / f"{name}_0001.png").write_bytes((tmp_path / "11_0001.png").read_bytes())
    loaded = load([tmp_path], "lower")
    task = Task("0127", 2, 2, "lower")
    check_labels(loaded.samples, task)  # one that is left out stops nothing
    (line,) = doubt(loaded.conflicts, task)
    assert "these are not 2 of the characters that are read" in line
    assert line.endswith(f": {tmp_path / '0z_0001.png'}, {tmp_path / '777_0001.png'}")
    assert doubt(loaded.conflicts, Task("0127z", 3, 2, "lower")) == []


def test_labels_that_differ_only_in_case_are_no_conflict_once_folded(tmp_path):
    (tmp_path / "ab.png").write_bytes(captcha("ab"))
    (tmp_path / "AB.png").write_bytes(captcha("ab"))
    (tmp_path / "cd.png").write_bytes(captcha("cd"))
    assert load([tmp_path], "lower").labels == ["ab", "cd"]
    with pytest.raises(DatasetError, match="got 1"):
        load([tmp_path], "as-is")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "holds no labelled images"),
        (["ab_1"], "at least 2 usable labelled images, got 1"),
        (["ab_1", "ab_2", "ab_3"], "all 3 images have the one label 'ab'"),
    ],
)
def test_too_little_to_learn_from_is_an_error(tmp_path, names, message):
    for number, name in enumerate(names):
        (tmp_path / f"{name}.png").write_bytes(captcha("ab", number))
    with pytest.raises(DatasetError, match=message):
        load([tmp_path], "lower")


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA], ids=str
)
def test_a_zip_that_says_it_unpacks_to_less_is_not_unpacked_further(tmp_path, method):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("abcd.png", bytes(30 << 20))
    data = bytearray(path.read_bytes())
    for header, field in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        at = data.index(header) + field
        data[at : at + 4] = (1000).to_bytes(4, "little")
    path.write_bytes(data)
    tracemalloc.start()
    try:
        (sample,) = gather([path])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sample.origin == b""
    assert peak < 10 << 20


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA], ids=str)
def test_images_packed_in_a_way_that_cannot_be_bounded_are_left_out(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "site.zip", "w") as archive:
        for name in ("00", "11"):
            archive.writestr(f"{name}.png", captcha(name))
        archive.writestr("22.png", captcha("22"), method)
    loaded = load([tmp_path / "site.zip"], "lower")
    assert loaded.labels == ["00", "11"]
    assert "left out 1 file (unreadable or damaged)" in loaded.notes[0]


@pytest.mark.parametrize("damage", [(8, b"\0\x08"), (6, b"\xff")], ids=["name", "version"])
def test_a_zip_whose_directory_python_cannot_read_is_an_error_with_its_path(tmp_path, damage):
    path = tmp_path / "site.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ab.png", captcha("ab"))
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\1\2")
    data[entry + 46] = 0xFF
    at, there = damage
    data[entry + at : entry + at + len(there)] = there
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=r"site\.zip does not open"):
        gather([path])


def test_the_directory_of_a_zip_is_not_read_when_it_is_too_large(tmp_path, monkeypatch):
    path = tmp_path / "site.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(40):
            archive.writestr(f"ab_{number:02}.png", captcha("ab"))
    monkeypatch.setattr(zips, "MAX_DIRECTORY_BYTES", 40 * (46 + len("ab_00.png")))
    assert len(gather([path])) == 40
    monkeypatch.setattr(zips, "MAX_DIRECTORY_BYTES", 40 * (46 + len("ab_00.png")) - 1)
    with pytest.raises(DatasetError, match="directory has 2200 bytes, at most 2199"):
        gather([path])


def test_a_zip_of_gigabytes_is_to_be_unpacked_by_its_owner(tmp_path, monkeypatch):
    path = tmp_path / "site.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(5):
            archive.writestr(f"abc{number}.png", bytes(1 << 20))
    assert len(gather([path])) == 5
    monkeypatch.setattr(zips, "MAX_ZIP_BYTES", 4 << 20)
    with pytest.raises(DatasetError, match="more than 4 MB: unpack it into a folder"):
        gather([path])


def test_a_path_that_is_neither_folder_nor_zip_is_an_error(tmp_path):
    with pytest.raises(DatasetError, match="no such folder or zip"):
        gather([tmp_path / "nowhere"])
    (tmp_path / "file.zip").write_bytes(b"PK\3\4 not really")
    with pytest.raises(DatasetError, match="does not open"):
        gather([tmp_path / "file.zip"])


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("place", [0, 9, 40, -3])
def test_a_damaged_member_of_a_zip_is_left_out_and_the_rest_is_read(tmp_path, method, place):
    path = tmp_path / "site.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name in ("00", "01", "10"):
            archive.writestr(f"{name}.png", captcha(name))
        second = archive.getinfo("01.png")
    content = bytearray(path.read_bytes())
    start = second.header_offset + 30 + len("01.png")
    at = start + (place if place >= 0 else second.compress_size + place)
    content[at : at + 3] = bytes(byte ^ 0xFF for byte in content[at : at + 3])
    path.write_bytes(content)
    loaded = load([path], "lower")
    assert loaded.labels == ["00", "10"]
    assert f"left out 1 file (unreadable or damaged): {path}:01.png" in loaded.notes


def test_labels_that_do_not_fit_are_named_and_counted(tmp_path):
    write_folder(tmp_path, ["00", "0z", "111", *texts(20)])
    loaded = load([tmp_path], "lower")
    with pytest.raises(DatasetError) as caught:
        check_labels(loaded.samples, Task("0147", 2, 2, "lower"))
    assert "1 of 23 labels have characters (z) outside the charset 0147" in str(caught.value)
    assert "0z_0001.png" in str(caught.value)
    assert "1 of 23 labels are not 2 characters long" in str(caught.value)
    assert "111_0002.png" in str(caught.value)


def test_short_labels_are_filled_up_with_the_blank():
    assert encode(["ab", "cab"], Task("abc", 4, 2, "lower")).tolist() == [
        [0, 1, 3, 3],
        [2, 0, 1, 3],
    ]


def test_the_holdout_is_a_tenth_and_no_image_joins_it_later(tmp_path):
    write_folder(tmp_path / "now", texts(150))
    write_folder(tmp_path / "later", texts(300, seed=1))
    now = load([tmp_path / "now"], "lower")
    grown = load([tmp_path / "now", tmp_path / "later"], "lower")
    held = {s.digest for s, h in zip(grown.samples, grown.held_out(), strict=True) if h}
    assert 0.05 < len(held) / len(grown.samples) < 0.16
    for sample, was_held in zip(now.samples, now.held_out(), strict=True):
        assert was_held == (sample.digest in held)
    part = grown.pick(grown.held_out())
    assert {s.digest for s in part.samples} == held
    assert np.array_equal(part.images, grown.images[grown.held_out()])


def test_beside_the_holdout_only_the_images_that_were_stored_last_are_read(tmp_path):
    site = Dataset(tmp_path).site("example.com")
    for age, text in enumerate(texts(60, seed=1)):
        path = site.store(captcha(text, age), text, 0.9, "0" * 16, "accepted").path
        os.utime(path, (1e9 - age, 1e9 - age))
    site.close()
    whole = load([tmp_path], "lower")
    known: dict = {}
    part = load([tmp_path], "lower", known, newest=10)
    held, others = whole.pick(whole.held_out()), whole.pick(~whole.held_out())
    assert held.samples
    assert [s.digest for s in part.pick(part.held_out()).samples] == [
        s.digest for s in held.samples
    ]
    last = sorted(others.samples, key=lambda s: -s.origin.stat().st_mtime)[:10]
    assert {s.digest for s in part.pick(~part.held_out()).samples} == {s.digest for s in last}
    assert set(known) == {s.digest for s in part.samples}
    assert load([tmp_path], "lower", newest=60).labels == whole.labels
