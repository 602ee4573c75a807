from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from scrapy_captcha.dataset import Dataset, Rejection, confirmed_pairs, rejections

if TYPE_CHECKING:
    from pathlib import Path

    from scrapy_captcha.dataset import SiteDataset

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def site(tmp_path: Path):
    dataset = Dataset(tmp_path / "captchas")
    yield dataset.site("127.0.0.1:8000")
    dataset.close()


def tell(site: SiteDataset, image: bytes, guess: str, verdict: str) -> Path:
    return site.store(PNG + image, guess, 0.5, "0123abcd", verdict).path


def sha256(image: bytes) -> str:
    return hashlib.sha256(PNG + image).hexdigest()


def test_a_rejected_image_comes_with_each_wrong_reading_once(site):
    path = tell(site, b"a", "aaaa", "rejected")
    for guess in ("bbbb", "aaaa"):
        tell(site, b"a", guess, "rejected")
    assert rejections(site.path) == [Rejection(path, sha256(b"a"), ("aaaa", "bbbb"))]


def test_what_is_confirmed_by_now_is_no_rejection(site):
    tell(site, b"a", "aaaa", "rejected")
    tell(site, b"a", "bbbb", "accepted")
    assert rejections(site.path) == []


def test_an_image_with_two_labels_is_no_rejection_either(site):
    tell(site, b"a", "aaaa", "rejected")
    tell(site, b"a", "bbbb", "accepted")
    tell(site, b"a", "cccc", "accepted")
    assert rejections(site.path) == []


def test_a_rejected_image_moved_under_its_label_is_a_hand_label(site):
    path = tell(site, b"a", "aaaa", "rejected")
    path.parent.with_name("confirmed").mkdir(exist_ok=True)
    path.rename(path.parent.with_name("confirmed") / f"cccc_{path.name}")
    assert rejections(site.path) == []
    assert [pair.label for pair in confirmed_pairs(site.path)[0]] == ["cccc"]


def test_a_hand_label_outranks_what_the_site_accepted_when_it_came_from_rejected(site):
    path = tell(site, b"a", "aaaa", "rejected")
    tell(site, b"a", "bbbb", "accepted")
    path.rename(path.parent.with_name("confirmed") / f"cccc_{path.name}")
    pairs, conflicts = confirmed_pairs(site.path)
    assert [pair.label for pair in pairs] == ["cccc"]
    assert conflicts == []


def test_a_file_that_belies_its_name_and_one_without_attempts_are_left_out(site, caplog):
    path = tell(site, b"a", "aaaa", "rejected")
    path.write_bytes(PNG + b"something else")
    (path.parent / "found.png").write_bytes(PNG + b"nobody tried")
    assert rejections(site.path) == []
    assert "is not the image that its name says" in caplog.text


def test_a_folder_without_anything_has_none(tmp_path):
    assert rejections(tmp_path) == []
