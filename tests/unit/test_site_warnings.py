"""What a user is told when canaries cannot tell anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from scrapy_captcha.config import SiteRule
from scrapy_captcha.dataset import SiteDataset
from scrapy_captcha.honesty import UNANSWERED
from scrapy_captcha.lineup import Arm
from scrapy_captcha.site import WAITED_LONG, WAITED_ROUNDS, Site

if TYPE_CHECKING:
    from pathlib import Path

    from scrapy_captcha.recognizer import Reader


def make_site(folder: Path, retrain_after: int | None = 5, canary_rate: float = 0.02) -> Site:
    rule = SiteRule("shop.example", canary_rate=canary_rate)
    dataset = SiteDataset(rule.site, folder)
    return Site(rule, Arm(cast("Reader", None), "ab"), dataset, retrain_after)


def confirm(site: Site, images: int) -> None:
    for _ in range(images):
        site.judged(site.lineup.champion, accepted=True, confidence=0.9, images=1)
        site.fresh += 1


@pytest.mark.parametrize("retrain_after", [5, 100])
def test_images_that_wait_long_for_a_first_canary_are_worth_one_warning(
    tmp_path: Path, retrain_after: int
) -> None:
    site = make_site(tmp_path, retrain_after)
    confirm(site, retrain_after + max(WAITED_LONG, WAITED_ROUNDS * retrain_after) - 1)
    assert site.warning() is None
    confirm(site, 1)
    assert "no reading yet" in str(site.warning())
    confirm(site, 1000)
    assert site.warning() is None


def test_images_of_earlier_crawls_have_not_waited(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    site.fresh = 10_000
    confirm(site, 5)
    assert site.warning() is None


def test_a_trainer_that_takes_its_time_is_not_the_canaries_fault(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    site.canaries.returned(accepted=False)
    confirm(site, 1000)
    assert site.warning() is None


@pytest.mark.parametrize("settings", [{"retrain_after": None}, {"canary_rate": 0.0}])
def test_where_no_canary_is_waited_for_there_is_nothing_to_say(
    tmp_path: Path, settings: dict[str, float | None]
) -> None:
    site = make_site(tmp_path, **settings)  # type: ignore[arg-type]
    confirm(site, 1000)
    assert site.warning() is None


def test_canaries_without_a_verdict_are_worth_one_warning_with_or_without_retraining(
    tmp_path: Path,
) -> None:
    site = make_site(tmp_path, retrain_after=None)
    for _ in range(UNANSWERED - 1):
        site.canaries.returned(accepted=None)
    assert site.warning() is None
    for _ in range(3):
        site.canaries.returned(accepted=None)
    assert "give the rule a `rejected`" in str(site.warning())
    site.canaries.returned(accepted=None)
    assert site.warning() is None
