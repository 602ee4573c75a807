"""When a site's model is trained again."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from scrapy_captcha.config import SiteRule
from scrapy_captcha.dataset import SiteDataset
from scrapy_captcha.lineup import Arm
from scrapy_captcha.retraining import Answer
from scrapy_captcha.site import Site

if TYPE_CHECKING:
    from pathlib import Path

    from scrapy_captcha.recognizer import Reader


@pytest.mark.parametrize(("trained_on", "enough"), [(0, 25), (500, 25), (501, 26), (20_000, 1000)])
def test_the_more_images_are_known_the_more_new_ones_a_training_takes(
    tmp_path: Path, trained_on: int, enough: int
) -> None:
    rule = SiteRule("shop.example")
    arm = Arm(cast("Reader", None), "ab")
    site = Site(rule, arm, SiteDataset(rule.site, tmp_path), retrain_after=25)
    site.trained_on = trained_on
    site.fresh = enough - 1
    assert not site.wants_training
    site.fresh = enough
    assert site.wants_training


@pytest.mark.parametrize("said", [None, {}, {"labels": None}, {"labels": -1}, {"labels": True}])
def test_a_trainer_that_does_not_say_what_it_learnt_from_is_taken_to_have_begun(said) -> None:
    assert Answer("shop.example", said=said).labels == 0
    assert Answer("shop.example", said={"labels": 7}).labels == 7
