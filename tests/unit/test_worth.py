"""From the verdicts of a site follows which readings are worth a submission."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, cast

import pytest

from scrapy_captcha.config import SiteRule
from scrapy_captcha.lineup import Arm
from scrapy_captcha.site import Site
from scrapy_captcha.worth import JUDGED_BEFORE, JUDGED_LATELY, Worth, shift

if TYPE_CHECKING:
    from scrapy_captcha.recognizer import Reader


def reader() -> Arm:
    return Arm(cast("Reader", None), "ab")


ARM = reader()


def worth(*verdicts: bool, confidence: float = 0.5, images: int = 1) -> Worth:
    made = Worth()
    for accepted in verdicts:
        made.add(ARM, accepted, confidence, images)
    return made


def chance(confidence: float, shifted: float) -> float:
    return 1 / (1 + math.exp(-math.log(confidence / (1 - confidence)) - shifted))


def test_all_are_until_the_site_is_known() -> None:
    assert worth().least(ARM) == 0
    assert worth(*[True] * (JUDGED_BEFORE - 1)).least(ARM) == 0
    assert worth(*[True] * JUDGED_BEFORE).least(ARM) > 0


def test_where_the_confidence_is_right_it_is_the_accepted_answers_of_a_request() -> None:
    honest = worth(*[True, False] * 50, confidence=0.5)
    assert honest.least(ARM) == pytest.approx(1 / 4)
    three_images = worth(*[True, False] * 50, confidence=0.5, images=4)
    assert three_images.least(ARM) == pytest.approx(1 / 10)


def test_a_reader_that_is_better_than_it_says_has_more_of_its_readings_submitted() -> None:
    modest = worth(*[True] * 95, *[False] * 5, confidence=0.4)
    boastful = worth(*[True] * 50, *[False] * 50, confidence=0.95)
    assert modest.least(ARM) < 0.1
    assert boastful.least(ARM) > 0.7


def test_where_nothing_is_accepted_all_are_submitted() -> None:
    assert worth(*[False] * 50).least(ARM) == 0


def test_only_the_last_verdicts_count() -> None:
    late = worth(*[False] * 300, *[True] * JUDGED_LATELY)
    assert late.least(ARM) == worth(*[True] * JUDGED_LATELY).least(ARM)


def test_another_reader_begins_anew() -> None:
    known, other = worth(*[True] * 50), reader()
    assert known.least(other) == 0
    known.add(other, True, 0.5, 1)
    assert known.least(other) == known.least(ARM) == 0


@pytest.mark.parametrize("off", [-3.0, -0.5, 0.0, 2.0])
def test_the_shift_is_found_from_verdicts(off: float) -> None:
    rng = random.Random(1)
    sure = [rng.uniform(0.02, 0.98) for _ in range(2000)]
    answers = [(confidence, rng.random() < chance(confidence, off)) for confidence in sure]
    assert shift(answers) == pytest.approx(off, abs=0.2)


@pytest.mark.parametrize("accepted", [True, False])
@pytest.mark.parametrize("confidence", [0.0, 1e-9, 0.5, 1.0])
def test_one_sided_verdicts_shift_it_within_reason(accepted: bool, confidence: float) -> None:
    found = shift([(confidence, accepted)] * 100)
    assert abs(found) < 20
    assert (found >= 0) == accepted or abs(found) < 0.01


def test_challengers_answers_tell_nothing_of_the_champions_and_a_contest_passes_none_over() -> None:
    site = Site(SiteRule("shop.example"), ARM)
    challenger = reader()
    for _ in range(JUDGED_BEFORE):
        site.judged(ARM, True, 0.5, 1)
        site.judged(challenger, False, 0.9, 1)
    assert site.worth_submitting == worth(*[True] * JUDGED_BEFORE).least(ARM)
    assert site.acceptance == 0.5
    site.lineup.challenge(challenger)
    assert site.worth_submitting == 0
