from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from scrapy_captcha import quarantine
from scrapy_captcha.attempts import attempts_in_order, read_attempts
from scrapy_captcha.dataset import Dataset, SiteDataset, confirmed_pairs, rejections
from scrapy_captcha.verify import verify

if TYPE_CHECKING:
    from pathlib import Path

PNG = b"\x89PNG\r\n\x1a\n"
KEY = "127.0.0.1:8000"


@pytest.fixture
def site(tmp_path: Path):
    dataset = Dataset(tmp_path / "captchas")
    yield dataset.site(KEY)
    dataset.close()


def accept(site: SiteDataset, *names: str) -> None:
    for name in names:
        site.store(PNG + name.encode(), name, 0.9, "0123abcd", "accepted")


def canary(site: SiteDataset, verdict: str) -> int:
    return site.testify(PNG + b"canary", "0000", 0.5, "0123abcd", f"canary_{verdict}")


def labels(site: SiteDataset) -> list[str]:
    return sorted(pair.label for pair in confirmed_pairs(site.path)[0])


def names(folder: Path) -> list[str]:
    return sorted(p.name.partition("_")[0] for p in folder.iterdir()) if folder.is_dir() else []


def test_an_accepted_canary_takes_back_what_came_since_the_last_rejected_one(site):
    accept(site, "aaaa")
    assert canary(site, "rejected") == 0
    accept(site, "bbbb", "cccc")
    assert canary(site, "accepted") == 2
    assert labels(site) == names(site.path / "confirmed") == ["aaaa"]
    assert names(site.path / "quarantined") == ["bbbb", "cccc"]
    assert site.quarantined


def earlier_crawl(site: SiteDataset, *accepted: str) -> SiteDataset:
    """What a crawl some years ago has left; the dataset of the next one."""
    accept(site, *accepted)
    site.close()
    for log in (site.path / "attempts").iterdir():
        log.write_text(re.sub(r'"20\d\d-', '"2020-', log.read_text()))
    return SiteDataset(KEY, site.path)


def test_without_any_rejected_canary_nothing_that_the_crawl_got_accepted_counts(site):
    accept(site, "aaaa", "bbbb")
    assert canary(site, "accepted") == 2
    assert labels(site) == []


def test_without_any_canary_before_what_earlier_crawls_confirmed_stays(site):
    later = earlier_crawl(site, "aaaa")
    accept(later, "bbbb")
    assert canary(later, "accepted") == 1
    accept(later, "cccc")
    assert canary(later, "accepted") == 0  # nor does it go with the next one
    assert labels(later) == ["aaaa"]
    assert names(later.path / "quarantined") == ["bbbb", "cccc"]
    later.close()


def test_a_canary_that_was_once_rejected_vouches_for_nothing_that_came_after_it(site):
    accept(site, "aaaa")
    canary(site, "rejected")
    later = earlier_crawl(site, "bbbb")
    accept(later, "cccc")
    assert canary(later, "accepted") == 2
    assert labels(later) == ["aaaa"]
    later.close()


def test_in_quarantine_images_go_there_until_a_canary_is_rejected(site):
    canary(site, "accepted")
    accept(site, "aaaa")
    assert labels(site) == names(site.path / "confirmed") == []
    assert names(site.path / "quarantined") == ["aaaa"]
    assert canary(site, "rejected") == 0
    assert not site.quarantined
    accept(site, "bbbb")
    assert labels(site) == ["bbbb"]


def test_an_image_accepted_again_by_an_honest_site_counts(site):
    accept(site, "aaaa")
    canary(site, "accepted")
    canary(site, "rejected")
    accept(site, "aaaa")
    assert labels(site) == ["aaaa"]


def test_what_an_honest_stretch_confirmed_stays_when_it_is_accepted_in_a_bad_one_too(site):
    accept(site, "aaaa")
    canary(site, "rejected")
    accept(site, "aaaa")
    assert canary(site, "accepted") == 0
    assert labels(site) == names(site.path / "confirmed") == ["aaaa"]


def test_improbable_acceptances_are_taken_back_from_where_they_began(site):
    accept(site, "aaaa")
    since = max(attempt.time for attempt in read_attempts(site.path))
    (log,) = (site.path / "attempts").iterdir()
    site.close()
    earlier = log.read_text().replace(since, "2020-01-01T00:00:00.000+00:00")
    log.write_text(earlier)
    accept(site, "bbbb")
    word = (PNG + b"bbbb", "bbbb", 0.1, "0123abcd", "improbable")
    assert site.testify(*word, since="2021-01-01T00:00:00.000+00:00") == 1
    assert labels(site) == ["aaaa"]
    assert site.quarantined


def test_a_file_moved_back_by_hand_counts_as_a_hand_label(site):
    accept(site, "aaaa", "bbbb")
    canary(site, "accepted")
    (path,) = (site.path / "quarantined").glob("aaaa_*")
    path.rename(site.path / "confirmed" / path.name)
    assert site.settle() == 0
    assert labels(site) == ["aaaa"]
    accept(site, "cccc")  # straight to quarantine: the same holds for it
    (path,) = (site.path / "quarantined").glob("cccc_*")
    path.rename(site.path / "confirmed" / path.name)
    assert verify(site.path).quarantined == 0
    assert labels(site) == ["aaaa", "cccc"]


def cut_short(site: SiteDataset, moves: int) -> None:
    """A canary is accepted, and the process dies after so many moves."""
    accept(site, "aaaa")
    canary(site, "rejected")
    accept(site, "bbbb", "cccc")
    site.close()
    script = f"""
import os, pathlib, sys
from scrapy_captcha.dataset import Dataset
moves = {moves}
replace = pathlib.Path.replace
def some(path, target):
    global moves
    if moves == 0:
        os._exit(9)
    moves -= 1
    return replace(path, target)
pathlib.Path.replace = some
site = Dataset(pathlib.Path(sys.argv[1])).site({KEY!r})
site.testify(b"canary", "0000", 0.5, "0123abcd", "canary_accepted")
"""
    command = [sys.executable, "-c", script, str(site.path.parent)]
    assert subprocess.run(command, check=False).returncode == 9


@pytest.mark.parametrize("moves", [0, 1])
def test_a_crash_between_the_canary_and_the_moves_leaves_nothing_to_train_on(site, moves):
    cut_short(site, moves)
    assert len(names(site.path / "confirmed")) == 3 - moves
    assert labels(site) == ["aaaa"]


@pytest.mark.parametrize("moves", [0, 1])
def test_a_crash_between_the_canary_and_the_moves_is_completed_by_verify(site, moves):
    cut_short(site, moves)
    report = verify(site.path)
    assert (report.quarantined, report.missing, report.confirmed) == (2, 0, 1)
    assert names(site.path / "confirmed") == ["aaaa"]
    assert names(site.path / "quarantined") == ["bbbb", "cccc"]
    assert verify(site.path).notes == []


def test_a_crash_between_the_canary_and_the_moves_is_completed_at_the_next_start(site):
    cut_short(site, 1)
    other = SiteDataset(KEY, site.path)
    assert other.settle() == 2
    assert other.quarantined
    other.close()
    assert names(site.path / "quarantined") == ["bbbb", "cccc"]


def test_another_crawl_on_the_same_dataset_learns_of_the_quarantine(site):
    other = SiteDataset(KEY, site.path)
    accept(other, "aaaa")
    canary(site, "accepted")
    accept(other, "bbbb")  # it did not know yet, and reads of it now
    assert other.quarantined
    assert labels(site) == []
    accept(other, "cccc")
    other.settle()
    assert names(site.path / "quarantined") == ["aaaa", "bbbb", "cccc"]
    canary(other, "rejected")
    accept(site, "dddd")
    assert not site.quarantined
    other.close()


def test_the_image_of_a_canary_is_not_kept_and_is_no_rejection(site):
    accept(site, "aaaa")
    canary(site, "rejected")
    assert names(site.path / "rejected") == []
    assert rejections(site.path) == []
    line = attempts_in_order(site.path)[-1]
    assert line.verdict == "canary_rejected"
    assert line.image == hashlib.sha256(PNG + b"canary").hexdigest()
    assert verify(site.path).notes == []


def test_lines_are_weighed_in_the_order_of_time_whoever_wrote_them(tmp_path):
    folder = tmp_path / "attempts"
    folder.mkdir()
    line = {"schema": 1, "site": "s", "confidence": 0.5, "model": "m", "guess": "aaaa"}
    one, two = ({**line, "image": digit * 64} for digit in "12")
    lines = [
        [{**one, "time": "3", "verdict": "accepted"}],
        [{**two, "time": "1", "verdict": "accepted"}, {**two, "time": "2"}],
    ]
    lines[1][1]["verdict"] = "canary_rejected"
    lines.append([{**one, "time": "4", "verdict": "canary_accepted"}])
    for name, some in zip("abc", lines, strict=True):
        text = "".join(json.dumps(entry) + "\n" for entry in some)
        (folder / f"{name}.jsonl").write_text(text)
    words = quarantine.weigh(attempts_in_order(tmp_path))
    assert [image[0] for image, _ in words.valid] == ["2"]
    assert [image[0] for image, _ in words.pending] == ["1"]


def test_a_rejected_canary_goes_through_all_attempts_only_when_there_is_something_to_take_back(
    site, monkeypatch
):
    passes = []

    def counted(site_dir: Path):
        passes.append(site_dir)
        return attempts_in_order(site_dir)

    monkeypatch.setattr(quarantine, "attempts_in_order", counted)
    accept(site, "aaaa")
    site.settle()
    for _ in range(5):
        canary(site, "rejected")
    assert len(passes) == 1
    other = SiteDataset(KEY, site.path)
    canary(other, "accepted")
    other.close()
    accept(site, "bbbb")  # it learns of the quarantine here
    passes.clear()
    canary(site, "rejected")
    assert len(passes) == 1
    assert names(site.path / "quarantined") == ["bbbb"]
    canary(site, "rejected")
    assert len(passes) == 1
