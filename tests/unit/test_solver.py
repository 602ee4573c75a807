"""When a solve ends that no site has ended, without a crawler."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from scrapy.signalmanager import SignalManager
from scrapy.statscollectors import StatsCollector
from twisted.internet.defer import Deferred

from scrapy_captcha.breaker import Breaker
from scrapy_captcha.client import Visit
from scrapy_captcha.config import SiteRule
from scrapy_captcha.errors import AttemptFailed, CaptchaUnsolved
from scrapy_captcha.solver import Solver, Stopping
from scrapy_captcha.stats import Counters

if TYPE_CHECKING:
    from collections.abc import Callable

RULE = SiteRule("shop.example", max_attempts=5)


class Unreachable:
    """A captcha that cannot be fetched."""

    page_is_reply = False
    challenge = None

    def __init__(self, asked: Callable[[], None]) -> None:
        self.visit = Visit(SimpleNamespace(), RULE)  # type: ignore[arg-type]
        self.count = 0
        self._asked = asked

    async def ask(self) -> Any:
        self.count += 1
        self._asked()
        raise AttemptFailed("download", "it is not there")


def end_of_solve(
    task: Unreachable, breaker: Breaker, stopping: Callable[[], bool] = lambda: False
) -> Exception:
    crawler: Any = SimpleNamespace(settings={}, signals=SignalManager())
    crawler.settings = SimpleNamespace(getbool=lambda name: False)
    counters = Counters(StatsCollector(crawler))
    solver = Solver(crawler, counters, None, None, stopping)  # type: ignore[arg-type]
    solve = solver.solve(SimpleNamespace(rule=RULE), task, breaker)  # type: ignore[arg-type]
    failures: list[Any] = []
    Deferred.fromCoroutine(solve).addErrback(failures.append)
    (failure,) = failures
    error: Exception = failure.value
    return error


def test_a_solve_has_so_many_attempts() -> None:
    task = Unreachable(lambda: None)
    error = end_of_solve(task, Breaker(1))
    assert isinstance(error, CaptchaUnsolved)
    assert error.reason == "download"
    assert task.count == 5


def test_a_solve_ends_when_the_breaker_opens_for_others() -> None:
    breaker = Breaker(1)
    task = Unreachable(lambda: task.count == 2 and breaker.fail())  # type: ignore[func-returns-value]
    error = end_of_solve(task, breaker)
    assert isinstance(error, CaptchaUnsolved)
    assert error.reason == "breaker_open"
    assert task.count == 2


def test_the_probe_of_an_open_breaker_has_all_its_attempts() -> None:
    breaker = Breaker(1)
    breaker.fail()
    task = Unreachable(lambda: breaker.fail() and None)
    assert end_of_solve(task, breaker).reason == "download"  # type: ignore[attr-defined]
    assert task.count == 5


def test_a_solve_ends_when_the_spider_is_closing() -> None:
    task = Unreachable(lambda: None)
    with pytest.raises(Stopping):
        raise end_of_solve(task, Breaker(1), lambda: task.count == 2)
    assert task.count == 2
