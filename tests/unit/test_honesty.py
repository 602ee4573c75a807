"""Whether a site's yes means anything."""

from __future__ import annotations

import random

import pytest

from scrapy_captcha.honesty import (
    COMPARED,
    PATIENCE,
    UNANSWERED,
    Canaries,
    Suspicion,
    known_wrong,
)
from scrapy_captcha.recognizer import Recognition

ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"


def reading(text: str, sure: float = 0.5) -> Recognition:
    return Recognition(text, sure ** len(text), tuple((character, sure) for character in text))


def test_a_canary_is_as_long_as_the_reading_and_differs_in_every_character() -> None:
    rng = random.Random(1)
    for _ in range(200):
        wrong = known_wrong(reading("1a8m"), ALPHABET, rng)
        assert wrong is not None
        assert len(wrong) == 4
        assert set(wrong) <= set(ALPHABET)
        assert all(a != b for a, b in zip(wrong, "1a8m", strict=True))


def test_upper_and_lower_case_are_no_difference() -> None:
    rng = random.Random(1)
    found = {known_wrong(reading("aaaaaa", 0.99), "aAbB", rng) for _ in range(300)}
    assert not any(set(wrong) & set("aA") for wrong in found if wrong is not None)


def test_what_might_be_right_after_all_is_no_canary() -> None:
    rng = random.Random(1)
    assert known_wrong(reading("7", 0.5), "0123456789", rng) is None
    assert known_wrong(reading("7", 0.999), "0123456789", rng) is not None
    assert known_wrong(reading("0110", 0.5), "01", rng) is None
    assert known_wrong(reading(""), ALPHABET, rng) is None
    assert known_wrong(reading("77", 0.999), "7", rng) is None


def test_canaries_come_at_their_rate() -> None:
    canaries, rng, sent = Canaries(0.02, random.Random(1)), random.Random(2), 0
    for _ in range(20_000):
        if canaries.takes(rng.random()):
            canaries.sent()
            canaries.returned(accepted=False)
            sent += 1
    assert 0.015 < sent / 20_000 < 0.025


def test_canaries_take_readings_that_were_likely_wrong() -> None:
    canaries, rng, taken = Canaries(0.02, random.Random(1)), random.Random(2), []
    for _ in range(20_000):
        confidence = rng.random()
        if canaries.takes(confidence):
            canaries.sent()
            canaries.returned(accepted=False)
            taken.append(confidence)
    assert sum(taken) / len(taken) < 0.2


def test_a_hastened_canary_waits_for_so_many_readings_at_most() -> None:
    canaries = Canaries(1e-9, random.Random(1))
    for _ in range(COMPARED):
        assert not canaries.takes(0.4)
    canaries.hasten()
    assert [canaries.takes(0.5) for _ in range(PATIENCE)] == [False] * (PATIENCE - 1) + [True]
    canaries.sent()
    canaries.hasten()  # one is on its way
    assert not any(canaries.takes(0.5) for _ in range(2 * PATIENCE))


def test_without_a_rate_there_are_none() -> None:
    canaries = Canaries(0.0, random.Random(1))
    canaries.hasten()
    assert not any(canaries.takes(0.1) for _ in range(100))


def test_a_canary_proves_or_disproves_and_one_without_a_verdict_neither() -> None:
    canaries = Canaries(0.1, random.Random(1))
    assert not canaries.proven
    canaries.returned(accepted=False)
    assert canaries.proven
    canaries.returned(accepted=None)
    assert canaries.proven
    canaries.returned(accepted=True)
    assert not canaries.proven


def test_none_is_hastened_when_the_last_few_had_no_verdict_until_one_has() -> None:
    canaries = Canaries(1e-9, random.Random(1))

    def comes() -> bool:
        canaries.hasten()
        return any(canaries.takes(0.5) for _ in range(PATIENCE))

    for _ in range(UNANSWERED):
        assert comes()
        canaries.sent()
        canaries.returned(accepted=None)
    assert not comes()
    canaries.returned(accepted=False)
    assert comes()


def until(
    accepts_wrong: float, seed: int, errs: float = 1.0, answers: int = 10_000
) -> tuple[int, str] | None:
    """When it becomes suspicious; readings are wrong ``errs`` times as often as they say."""
    suspicion, rng = Suspicion(), random.Random(seed)
    for number in range(answers):
        confidence = rng.betavariate(8, 1.5)
        right = rng.random() >= errs * (1 - confidence)
        since = suspicion.add(confidence, right or rng.random() < accepts_wrong, f"{number:06d}")
        if since is not None:
            return number, since
    return None


def test_a_site_that_accepts_anything_becomes_suspicious() -> None:
    found = [until(1.0, seed) for seed in range(20)]
    assert all(found)
    numbers = [number for number, _ in filter(None, found)]
    assert sum(numbers) / len(numbers) < 400
    assert all(since <= "000100" for _, since in filter(None, found))


@pytest.mark.parametrize("errs", [1.0, 0.5, 1 / 3])
def test_an_honest_site_does_not_even_with_a_modest_reader(errs: float) -> None:
    assert [until(0.0, seed, errs) for seed in range(10)] == [None] * 10


def test_what_came_before_the_sum_was_zero_is_not_suspected() -> None:
    suspicion = Suspicion()
    for number in range(50):
        assert suspicion.add(0.9, number % 2 == 0, f"honest {number}") is None
    since = None
    for number in range(1000):
        since = since or suspicion.add(0.2, accepted=True, time=f"liar {number}")
    assert since == "liar 0"
