"""When a solve ends that no site has ended, without a crawler."""

from __future__ import annotations

import asyncio
import math
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from scrapy.signalmanager import SignalManager
from scrapy.statscollectors import StatsCollector
from twisted.internet.defer import Deferred

from scrapy_captcha import solver as solver_module
from scrapy_captcha.breaker import Breaker
from scrapy_captcha.client import Visit
from scrapy_captcha.config import SiteRule
from scrapy_captcha.errors import AttemptFailed, CaptchaUnsolved
from scrapy_captcha.recognizer import Recognition
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


# -- readings in threads


class OneThread(ThreadPoolExecutor):
    """Reads one image at a time, when it is let go."""

    def __init__(self) -> None:
        super().__init__(1)
        self.asked = 0
        self.begun = threading.Semaphore(0)
        self.let_go = threading.Event()

    @property
    def threads(self) -> OneThread:
        return self

    def submit(self, *given: Any, **named: Any) -> Future[Any]:
        self.asked += 1
        return super().submit(*given, **named)

    def read(self, *given: object) -> Recognition:
        self.begun.release()
        self.let_go.wait()
        return Recognition("1a8m", 1.0, ())


class Standing(Unreachable):
    """A captcha whose image is there."""

    def __init__(self, deadline: float) -> None:
        super().__init__(lambda: None)
        self.visit = Visit(SimpleNamespace(), RULE, deadline)  # type: ignore[arg-type]
        page = SimpleNamespace(url="http://shop.example/")
        self.challenge: Any = SimpleNamespace(
            response=page, image_url="data:", field="code", form="form"
        )


class Client:
    async def image(self, *given: object) -> bytes:
        return b"image"

    def stop(self) -> None:
        pass


@pytest.mark.parametrize("reason", ["closing", "breaker_open", "timeout"])
def test_a_solve_ends_though_its_reading_waits_for_a_thread(
    reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, breaker, closing = OneThread(), Breaker(1), False
    crawler: Any = SimpleNamespace(signals=SignalManager())
    crawler.settings = SimpleNamespace(getbool=lambda name: False)
    given: Any = (crawler, Counters(StatsCollector(crawler)), Client(), None, lambda: closing)
    solver = Solver(*given)
    lineup = SimpleNamespace(next_arm=lambda: SimpleNamespace(reader=reader))
    site: Any = SimpleNamespace(rule=RULE, lineup=lineup)

    async def main() -> None:
        nonlocal closing
        begun, waiting = solves = [
            asyncio.ensure_future(solver.solve(site, Standing(1e9), breaker))  # type: ignore[arg-type]
            for _ in range(2)
        ]
        while reader.asked < 2:  # noqa: ASYNC110 - it takes a few turns of the loop
            await asyncio.sleep(0)
        await asyncio.to_thread(reader.begun.acquire)
        solver.tick()
        closing = reason == "closing"
        if reason == "breaker_open":
            breaker.fail()
        elif reason == "timeout":
            monkeypatch.setattr(solver_module, "monotonic", lambda: math.inf)
        solver.tick()
        await asyncio.wait([waiting])
        assert begun.done() is (reason != "closing")
        # what has begun may still come, for a while
        monkeypatch.setattr(solver_module, "monotonic", lambda: math.inf)
        solver.tick()
        for error in await asyncio.gather(*solves, return_exceptions=True):
            assert isinstance(error, Stopping if closing else CaptchaUnsolved)
            assert getattr(error, "reason", reason) == reason

    try:
        asyncio.run(main())
    finally:
        reader.let_go.set()
        reader.shutdown()
    assert not reader.begun.acquire(blocking=False)
