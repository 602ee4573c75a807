"""What a crawl leaves in the dataset: each judged answer, under its own image's name."""

from __future__ import annotations

import hashlib
import json
import sys
from typing import TYPE_CHECKING

import pytest
from sites import Gate, png

from scrapy_captcha.dataset import confirmed_pairs
from scrapy_captcha.naming import site_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from crawling import Crawl, Driver
    from sites import Session


def named(image: bytes, label: str = "") -> str:
    digest = hashlib.sha256(image).hexdigest()[:16]
    return f"{label}_{digest}.png" if label else f"{digest}.png"


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("case", ["lower", "upper"])
def test_every_judged_answer_is_kept(
    crawl: Callable[..., Crawl], tmp_path: Path, case: str
) -> None:
    with Gate(accept=3, every=4) as site:
        result = crawl(site, 12, {"case": case})
    folder = tmp_path / "captchas" / site_folder(site.netloc)
    accepted = {named(image, answer.lower()): image for image, answer in site.accepted}
    assert files(folder / "confirmed") == accepted
    assert files(folder / "rejected") == {named(image): image for image, _ in site.rejected}
    assert result.captcha["accepted"] == result.captcha["stored"] == len(site.accepted) == 3
    assert result.captcha["rejected"] == len(site.rejected) == 6
    (log,) = (folder / "attempts").iterdir()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["verdict"] for line in lines] == ["rejected", "rejected", "accepted"] * 3
    assert {line["site"] for line in lines} == {site.netloc}
    answers = [(image, answer.lower()) for image, answer in site.rejected + site.accepted]
    expected = {(hashlib.sha256(image).hexdigest(), answer) for image, answer in answers}
    assert {(line["image"], line["guess"]) for line in lines} == expected


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_no_file_stays_open_after_a_crawl(
    crawl: Callable[..., Crawl], driver: Callable[[], Driver], tmp_path: Path
) -> None:
    with Gate(accept=2) as site:
        crawl(site, 2)
    assert (tmp_path / "captchas").is_dir()
    assert [path for path in driver().open_files() if str(tmp_path) in path] == []


def test_a_rule_names_its_own_folder(crawl: Callable[..., Crawl], tmp_path: Path) -> None:
    with Gate() as site:
        crawl(site, 1, {"dataset": "theirs"})
    assert [path.name for path in (tmp_path / "captchas").iterdir()] == ["theirs"]
    assert len(list((tmp_path / "captchas" / "theirs" / "confirmed").iterdir())) == 1


def test_nothing_is_kept_when_nothing_shall_be(crawl: Callable[..., Crawl], tmp_path: Path) -> None:
    with Gate(accept=2) as site:
        result = crawl(site, 3, CAPTCHA_DATASET=None)
    assert len(result.items) == 3
    assert list(tmp_path.iterdir()) == []
    assert result.captcha["accepted"] == 1
    assert "stored" not in result.captcha


@pytest.mark.parametrize("min_confidence", [0.0, 1.0])
def test_a_dataset_that_cannot_be_written_does_not_stop_the_crawl(
    crawl: Callable[..., Crawl], tmp_path: Path, min_confidence: float
) -> None:
    (tmp_path / "captchas").write_text("a file where a folder should be")
    with Gate(accept=3) as site:
        result = crawl(site, 4, {"min_confidence": min_confidence})
    assert len(result.items) == 4
    assert result.failures == []
    assert result.captcha["failed/storage"] == 1
    assert result.captcha["accepted"] == 1
    assert "stored" not in result.captcha
    assert any("Nothing more of" in line for line in result.log)


def test_one_image_accepted_under_two_texts_is_a_conflict(
    crawl: Callable[..., Crawl], tmp_path: Path
) -> None:
    class SameImage(Gate):
        def new_image(self, session: Session) -> bytes:
            super().new_image(session)
            session.images[-1] = png(1)
            return png(1)

    with SameImage(every=2) as site:
        first = crawl(site, 4, {"charset": "0123456789"})
        second = crawl(site, 4, {"charset": "abcdefghij"})
    assert "conflict" not in first.captcha
    assert second.captcha["conflict"] == second.captcha["stored"] == 2
    said = [line for line in second.log if "another text" in line]
    assert len(said) == 2
    pairs, conflicts = confirmed_pairs(tmp_path / "captchas" / site_folder(site.netloc))
    assert not pairs
    assert len(conflicts) == 1


def test_seconds_and_counts_are_kept_by_site_too(crawl: Callable[..., Crawl]) -> None:
    with Gate(accept=2) as site, Gate(accept=3) as other:
        other.cookie = "other"  # cookies know no ports
        sites = {site.netloc: {}, other.netloc: {}}
        result = crawl(site, [*site.pages(3), *other.pages(3)], CAPTCHA_SITES=sites)
    assert len(result.items) == 6
    counts = [result.site_stats(netloc) for netloc in sites]
    assert [count["rejected"] for count in counts] == [1, 2]
    assert result.captcha["rejected"] == 3
    total = sum(count["seconds"] for count in counts)
    assert result.stats["captcha/seconds"] == pytest.approx(total)
    assert total > 0
