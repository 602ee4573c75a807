from __future__ import annotations

import pytest

from scrapy_captcha import breaker as module
from scrapy_captcha.breaker import PROBE_AFTER, Breaker


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    return clock


def test_it_opens_at_the_last_of_so_many_failures_in_a_row(clock: Clock) -> None:
    breaker = Breaker(3)
    assert [breaker.fail() for _ in range(3)] == [False, False, True]
    assert breaker.is_open
    assert breaker.refuses


def test_a_success_in_between_starts_the_count_again(clock: Clock) -> None:
    breaker = Breaker(2)
    breaker.fail()
    breaker.succeed()
    assert not breaker.fail()
    assert not breaker.is_open
    assert breaker.fail()


def test_it_opens_once_however_often_it_fails(clock: Clock) -> None:
    breaker = Breaker(1)
    assert breaker.fail()
    assert not breaker.fail()
    assert breaker.is_open


def test_one_probe_is_allowed_when_it_is_due(clock: Clock) -> None:
    breaker = Breaker(1)
    breaker.fail()
    clock.now += PROBE_AFTER - 1
    assert breaker.is_open
    assert breaker.refuses
    clock.now += 1
    assert not breaker.refuses
    assert not breaker.is_open  # the probe
    assert breaker.is_open
    assert breaker.refuses


def test_a_probe_that_fails_waits_for_the_next(clock: Clock) -> None:
    breaker = Breaker(5)
    for _ in range(5):
        breaker.fail()
    clock.now += PROBE_AFTER
    assert not breaker.is_open
    clock.now += 10
    assert not breaker.fail()
    clock.now += PROBE_AFTER - 1
    assert breaker.is_open
    clock.now += 1
    assert not breaker.is_open


def test_a_probe_that_succeeds_closes_it(clock: Clock) -> None:
    breaker = Breaker(2)
    breaker.fail()
    breaker.fail()
    clock.now += PROBE_AFTER
    assert not breaker.is_open
    breaker.succeed()
    assert not breaker.is_open
    assert not breaker.refuses
    assert not breaker.fail()
