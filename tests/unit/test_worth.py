"""From the verdicts of a site follows which readings are worth a submission."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from scrapy_captcha.config import JUDGED_BEFORE, JUDGED_LATELY, SiteRule
from scrapy_captcha.lineup import Arm
from scrapy_captcha.site import Site

if TYPE_CHECKING:
    from scrapy_captcha.recognizer import Reader


def site(*verdicts: bool) -> Site:
    made = Site(SiteRule("shop.example"), Arm(cast("Reader", None), "ab"))
    for accepted in verdicts:
        made.judged(accepted)
    return made


def test_all_are_until_the_site_is_known() -> None:
    assert site().worth_submitting == 0
    assert site(*[True] * (JUDGED_BEFORE - 1)).worth_submitting == 0
    assert site(*[True] * JUDGED_BEFORE).worth_submitting == 0.5


def test_the_less_a_site_accepts_the_more_are() -> None:
    assert site(*[True, False, False, False] * 10).worth_submitting == pytest.approx(1 / 8)
    assert site(*[False] * 50).worth_submitting == 0


def test_images_that_were_passed_over_count_as_requests() -> None:
    made = site()
    for _ in range(JUDGED_BEFORE):
        made.judged(True, images=3)
    assert made.worth_submitting == 1 / 4


def test_only_the_last_verdicts_count() -> None:
    assert site(*[False] * 300, *[True] * JUDGED_LATELY).worth_submitting == 0.5
