from __future__ import annotations

import random

import pytest

from scrapy_captcha.drift import WINDOW, Drift


def feed(drift: Drift, share: float, answers: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    said = [drift.add(rng.random() < share) for _ in range(answers)]
    return [warning for warning in said if warning is not None]


def test_there_is_no_share_before_the_first_answer():
    assert Drift().share is None
    assert not Drift().fallen


def test_the_share_is_of_the_last_100_answers_and_of_fewer_at_first():
    drift = Drift()
    for accepted in (True, False, True, True):
        drift.add(accepted)
    assert drift.share == 0.75
    for _ in range(WINDOW):
        drift.add(False)
    assert drift.share == 0.0


def test_a_fall_is_said_once_with_what_it_was_and_what_it_is():
    drift = Drift()
    assert feed(drift, 1.0, 1000) == []
    warning, *more = feed(drift, 0.0, 1000)
    assert more == []
    assert "100% of the best 300 before" in warning
    assert "of the last 100 answers were accepted" in warning
    assert drift.fallen
    assert drift.describe().startswith("0% of the last 100")


def test_a_site_that_is_as_it_was_again_has_not_fallen():
    drift = Drift()
    feed(drift, 0.9, 500)
    feed(drift, 0.1, 100)
    assert drift.fallen
    feed(drift, 0.9, 100)
    assert not drift.fallen


def test_nothing_is_said_below_200_answers():
    drift = Drift()
    assert feed(drift, 1.0, 100) == []
    assert feed(drift, 0.0, 99) == []
    assert len(feed(drift, 0.0, 1)) == 1


def test_a_site_that_was_learnt_is_measured_by_what_it_had_come_to():
    drift = Drift()
    for tenth in range(10):
        assert feed(drift, tenth / 10, 200, tenth) == []
    assert feed(drift, 0.95, 300) == []
    assert len(feed(drift, 0.6, 200)) == 1  # the mean of its past is below that


def test_a_slow_decline_shows():
    drift = Drift()
    warnings = [
        warning
        for step in range(40)
        for warning in feed(drift, 0.95 - step / 100, 100, step)  # a point less each 100 answers
    ]
    assert len(warnings) == 1


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.98])
def test_a_steady_site_is_hardly_ever_warned_of(share: float):
    warned = sum(bool(feed(Drift(), share, 2000, seed)) for seed in range(20))
    assert warned <= 1


def test_a_fall_from_nine_in_ten_to_a_half_is_found_within_150_answers():
    for seed in range(20):
        drift = Drift()
        feed(drift, 0.9, 600, seed)
        assert feed(drift, 0.5, 150, 1000 + seed)
