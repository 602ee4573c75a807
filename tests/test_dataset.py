from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import string
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scrapy_captcha.attempts import read_attempts
from scrapy_captcha.dataset import Dataset, SiteDataset, confirmed_pairs
from scrapy_captcha.errors import DatasetError
from scrapy_captcha.naming import decode_label, encode_label, image_suffix, site_folder

if TYPE_CHECKING:
    from pathlib import Path

PNG = b"\x89PNG\r\n\x1a\n"
HOSTILE = ["../../etc", "", ".", "..", "a/b", "a\\b", "CON", "a_b", "x" * 300, "é" * 200, "验证码"]
HOSTILE += ["con", "con.x", "COM1.tar.gz", "aux.", "lpt9..", "PRN", "a ", "\x1b[2J", "\u202e"]
HOSTILE += ["-rf", "a:b", "\0", "\n", "%41", "a~b", ".hidden", "\ud800", "C:\\x", "nul.png", "a.b "]


@pytest.fixture
def site(tmp_path: Path):
    dataset = Dataset(tmp_path / "captchas")
    yield dataset.site("127.0.0.1:8000")
    dataset.close()


def accept(site: SiteDataset, image: bytes, guess: str):
    return site.store(image, guess, 0.9, "0123abcd", "accepted")


def reject(site: SiteDataset, image: bytes, guess: str):
    return site.store(image, guess, 0.4, "0123abcd", "rejected")


def sha16(image: bytes) -> str:
    return hashlib.sha256(image).hexdigest()[:16]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def labels(site: SiteDataset) -> dict[str, str]:
    pairs, _ = confirmed_pairs(site.path)
    return {pair.sha256[:16]: pair.label for pair in pairs}


def test_nothing_is_made_before_the_first_image(tmp_path):
    site = Dataset(tmp_path / "captchas").site("example.com")
    assert site.count_attempts() == 0
    assert list(read_attempts(site.path)) == []
    assert confirmed_pairs(site.path) == ([], [])
    assert not (tmp_path / "captchas").exists()


def test_attempts_and_images_lie_where_the_design_says(site, tmp_path):
    yes = accept(site, PNG + b"yes", "ab3d")
    no = reject(site, b"GIF89a no", "zz9y")
    folder = tmp_path / "captchas" / "127.0.0.1_8000"
    assert yes.path == folder / "confirmed" / f"ab3d_{sha16(PNG + b'yes')}.png"
    assert no.path == folder / "rejected" / f"{sha16(b'GIF89a no')}.gif"
    assert yes.path.read_bytes() == PNG + b"yes"
    assert no.path.read_bytes() == b"GIF89a no"
    assert (yes.new, yes.conflict, no.new, no.conflict) == (True, False, True, False)
    assert len(files(folder / "confirmed")) == len(files(folder / "rejected")) == 1
    [name] = files(folder / "attempts")
    host, pid, unique = name.removesuffix(".jsonl").rsplit("-", 2)
    assert host
    assert int(pid) == os.getpid()
    assert set(unique) <= set(string.hexdigits)
    lines = (folder / "attempts" / name).read_text().splitlines()
    first, second = map(json.loads, lines)
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "schema": 1,
        "site": "127.0.0.1:8000",
        "image": hashlib.sha256(PNG + b"yes").hexdigest(),
        "guess": "ab3d",
        "confidence": 0.9,
        "model": "0123abcd",
        "verdict": "accepted",
    }
    assert (second["guess"], second["verdict"]) == ("zz9y", "rejected")


def test_an_identical_image_is_kept_once_and_each_attempt_counts(site):
    assert accept(site, PNG, "ab3d").new
    before = (site.path / "confirmed").stat().st_mtime_ns
    again = accept(site, PNG, "ab3d")
    assert not again.new
    assert not again.conflict
    assert (site.path / "confirmed").stat().st_mtime_ns == before
    assert [a.guess for a in read_attempts(site.path)] == ["ab3d", "ab3d"]
    assert site.count_attempts() == 2


def test_one_image_under_two_labels_is_a_conflict_and_no_pair(site):
    first = accept(site, PNG, "ab3d")
    accept(site, PNG + b"other", "zzzz")
    second = accept(site, PNG, "ab8d")
    assert second.new
    assert second.conflict
    assert accept(site, PNG, "ab3d").conflict
    pairs, [conflict] = confirmed_pairs(site.path)
    assert [pair.label for pair in pairs] == ["zzzz"]
    assert conflict.sha256 == hashlib.sha256(PNG).hexdigest()
    assert conflict.labels == ("ab3d", "ab8d")
    assert conflict.paths == (first.path, second.path)
    second.path.unlink()
    assert labels(site)[sha16(PNG)] == "ab3d"


def test_a_conflict_with_another_process_is_noticed(site, tmp_path):
    accept(site, PNG + b"0", "warm")
    other = Dataset(tmp_path / "captchas")
    accept(other.site("127.0.0.1:8000"), PNG, "ab3d")
    other.close()
    assert accept(site, PNG, "ab8d").conflict
    assert site.count_attempts() == 3


def test_a_conflict_with_a_crawl_that_has_ended_or_a_hand_label_is_noticed(tmp_path):
    earlier = Dataset(tmp_path).site("example.com")
    accept(earlier, PNG, "ab3d")
    by_hand = PNG + b"by hand"
    (earlier.path / "confirmed" / f"hand_{sha16(by_hand)}.png").write_bytes(by_hand)
    earlier.close()
    [path] = (earlier.path / "attempts").iterdir()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    path.rename(path.with_name(path.name.replace(f"-{os.getpid()}-", f"-{ended.pid}-")))
    dataset = Dataset(tmp_path)
    site = dataset.site("example.com")
    assert accept(site, PNG, "ab8d").conflict
    assert accept(site, by_hand, "hond").conflict
    assert not accept(site, PNG + b"2", "ab8d").conflict
    dataset.close()


def test_a_rejected_guess_is_no_conflict_and_confirmed_wins(site):
    reject(site, PNG, "wrong")
    result = accept(site, PNG, "right")
    assert result.new
    assert not result.conflict
    assert not reject(site, PNG, "wrong").conflict
    pairs, conflicts = confirmed_pairs(site.path)
    assert [(pair.path, pair.label) for pair in pairs] == [(result.path, "right")]
    assert not conflicts


@pytest.mark.parametrize("name", ["ab8d_{}.png", "ab8d.png", "ab8d_2.PNG"])
@pytest.mark.parametrize("move", [True, False])
def test_a_hand_label_outranks_the_site(site, name, move):
    stored = accept(site, PNG, "ab3d").path
    by_hand = stored.with_name(name.format(sha16(PNG)))
    stored.rename(by_hand) if move else by_hand.write_bytes(PNG)
    pairs, conflicts = confirmed_pairs(site.path)
    assert [(pair.path, pair.label) for pair in pairs] == [(by_hand, "ab8d")]
    assert not conflicts


def test_a_rejected_image_moved_to_confirmed_is_a_pair(site):
    rejected = reject(site, PNG, "ab3d").path
    accept(site, PNG + b"1", "warm")
    rejected.rename(site.path / "confirmed" / f"ab3d_{rejected.name}")
    assert labels(site) == {sha16(PNG): "ab3d", sha16(PNG + b"1"): "warm"}


def test_two_hand_labels_of_one_image_are_a_conflict(site):
    stored = accept(site, PNG, "ab3d").path
    for label in ("ab8d", "ab6d"):
        stored.with_name(f"{label}.png").write_bytes(PNG)
    pairs, [conflict] = confirmed_pairs(site.path)
    assert not pairs
    assert conflict.labels == ("ab6d", "ab8d")


def test_a_damaged_file_is_no_pair_until_it_is_stored_again(site, caplog):
    path = accept(site, PNG + b"whole", "ab3d").path
    path.write_bytes(PNG)
    assert confirmed_pairs(site.path) == ([], [])
    assert path.name in caplog.text
    assert accept(site, PNG + b"whole", "ab3d").new
    assert labels(site) == {sha16(PNG + b"whole"): "ab3d"}


@pytest.mark.parametrize("label", HOSTILE)
def test_a_hostile_label_stays_in_its_folder_and_comes_back(site, tmp_path, label):
    result = accept(site, PNG, label)
    assert result.path.parent == site.path / "confirmed"
    assert files(site.path / "confirmed") == [result.path.name]
    assert files(tmp_path) == ["captchas"]
    assert len(result.path.name) < 130
    # Windows takes these for devices, whatever comes after the first dot
    assert not re.fullmatch("(?i)con|prn|aux|nul|com.|lpt.", result.path.name.split(".")[0])
    assert labels(site) == {sha16(PNG): label}
    assert [attempt.guess for attempt in read_attempts(site.path)] == [label]


@settings(deadline=None)
@given(st.text(st.characters()))
def test_every_label_is_a_safe_name_that_can_be_decoded(label):
    name = encode_label(label)
    assert 0 < len(name) <= 100
    assert set(name) <= set(string.ascii_letters + string.digits + ".-%~")
    assert name[0] not in ".-"
    if "~" not in name:
        assert decode_label(name) == label


@settings(deadline=None)
@given(st.text(st.characters()), st.text(st.characters()))
def test_different_labels_have_different_names(one, other):
    assert (encode_label(one) == encode_label(other)) == (one == other)


def test_long_labels_with_one_beginning_have_different_names():
    assert encode_label("x" * 300) != encode_label("x" * 301)
    with pytest.raises(ValueError, match="shortened"):
        decode_label(encode_label("x" * 300))


@settings(deadline=None)
@given(st.text(st.characters()))
def test_every_site_key_makes_a_safe_folder(key):
    name = site_folder(key)
    assert 0 < len(name) <= 110
    assert set(name) <= set(string.ascii_letters + string.digits + "._-%~")
    assert name[0] not in ".-"
    assert name[-1] != "."


@pytest.mark.parametrize(
    ("key", "folder"),
    [
        ("example.com", "example.com"),
        ("127.0.0.1:8000", "127.0.0.1_8000"),
        ("[::1]:80", "%5B__1%5D_80"),
        ("..", "%2E%2E"),
        ("../x", "%2E.%2Fx"),
        ("con", "%63on"),
        ("", "~"),
    ],
)
def test_site_folders(key, folder):
    assert site_folder(key) == folder


def test_a_rule_may_name_the_folder(tmp_path):
    dataset = Dataset(tmp_path)
    assert dataset.site("example.com", "my shop").path == tmp_path / "my shop"
    assert dataset.site("example.com") is dataset.site("example.com")


@pytest.mark.parametrize(
    ("start", "suffix"),
    [
        (PNG, ".png"),
        (b"\xff\xd8\xff\xe0", ".jpg"),
        (b"GIF87a", ".gif"),
        (b"RIFF\0\0\0\0WEBP", ".webp"),
        (b"BM", ".bmp"),
        (b"<html>", ".bin"),
        (b"", ".bin"),
    ],
)
def test_the_extension_comes_from_the_bytes(start, suffix):
    assert image_suffix(start) == suffix


@pytest.mark.parametrize(("confidence", "verdict"), [(float("nan"), "accepted"), (0.5, "maybe")])
def test_an_attempt_that_makes_no_sense_is_refused(site, confidence, verdict):
    with pytest.raises(ValueError, match="expected"):
        site.store(PNG, "ab3d", confidence, "m", verdict)
    assert not site.path.exists()


def test_threads_storing_the_same_images_are_told_once_that_one_is_new(site):
    images = [PNG + bytes([n]) for n in range(6)] * 8
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda image: accept(site, image, "ab3d"), images))
    assert sum(result.new for result in results) == 6
    assert site.count_attempts() == len(list(read_attempts(site.path))) == 48
    assert len(labels(site)) == 6
    assert len(files(site.path / "attempts")) == 1


def test_after_close_the_next_attempt_opens_a_new_file(site):
    accept(site, PNG, "ab3d")
    site.close()
    site.close()
    accept(site, PNG, "ab3d")
    assert len(files(site.path / "attempts")) == 2
    assert site.count_attempts() == 2


def test_a_dataset_deleted_under_a_crawl_is_made_anew(site):
    accept(site, PNG, "ab3d")
    for folder in ("attempts", "confirmed", "rejected"):
        for path in (site.path / folder).iterdir():
            path.unlink()
        (site.path / folder).rmdir()
    accept(site, PNG, "ab3d")
    assert labels(site) == {sha16(PNG): "ab3d"}
    assert len(list(read_attempts(site.path))) == 1


def test_lines_that_are_no_attempts_are_left_out_with_a_warning(site, caplog):
    accept(site, PNG, "ab3d")
    [path] = (site.path / "attempts").iterdir()
    good = json.loads(path.read_text())
    newer, extra = {**good, "schema": 2}, {**good, "guess": "more", "canary": True}
    bad = [b"", b"nonsense", b"[]", b"\xff\0", json.dumps({**good, "image": "../x"}).encode()]
    lines = [json.dumps(newer).encode(), *bad, json.dumps(extra).encode()]
    with path.open("ab") as f:
        f.write(b"\n".join(lines) + b"\n" + b'{"torn": ')
    assert [attempt.guess for attempt in read_attempts(site.path)] == ["ab3d", "more"]
    assert len(caplog.records) == 6


def test_a_line_without_an_end_takes_no_memory(site):
    accept(site, PNG, "ab3d")
    site.close()
    odd = site.path / "attempts" / "odd.jsonl"
    with odd.open("wb") as f:
        f.truncate(1 << 25)  # of zeros, as a power cut may leave them
    tracemalloc.start()
    assert [attempt.guess for attempt in read_attempts(site.path)] == ["ab3d"]
    assert site.count_attempts() == 1
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()
    [whole] = (path for path in (site.path / "attempts").iterdir() if path != odd)
    with odd.open("ab") as f:
        f.write(b"\n" + whole.read_bytes())  # what comes after the zeros still counts
    assert [attempt.guess for attempt in read_attempts(site.path)] == ["ab3d", "ab3d"]


def test_a_place_that_cannot_be_written_to_is_named_with_what_to_do(tmp_path):
    (tmp_path / "captchas").write_text("not a folder")
    with pytest.raises(DatasetError, match=r"CAPTCHA_DATASET.*captchas") as caught:
        accept(Dataset(tmp_path / "captchas").site("example.com"), PNG, "ab3d")
    assert caught.value.errno in (errno.EEXIST, errno.ENOTDIR)
    with pytest.raises(DatasetError):
        list(read_attempts(tmp_path / "captchas" / "example.com"))
