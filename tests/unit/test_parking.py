"""Waiting requests take no place from others, and cost no long collections."""

from __future__ import annotations

import gc
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import twisted.internet
from scrapy import Request

from scrapy_captcha.parking import MAX_ALONE, MAX_PARKED, Parking

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    gc.unfreeze()
    yield
    assert gc.get_freeze_count() == 0


def crawler(*active: Request) -> Any:
    slot = SimpleNamespace(nextcall=SimpleNamespace(schedule=lambda: None))
    downloader = SimpleNamespace(active=set(active))
    return SimpleNamespace(engine=SimpleNamespace(downloader=downloader, _slot=slot))


def test_a_request_is_out_of_the_count_while_it_waits() -> None:
    request = Request("http://a.example/")
    crawl = crawler(request)
    parking = Parking(crawl)
    with parking.park(request):
        assert (parking.parked, crawl.engine.downloader.active) == (1, set())
    assert (parking.parked, crawl.engine.downloader.active) == (0, {request})
    parking.close()


@pytest.mark.parametrize(
    ("seen", "most"),
    [
        (["a.example"] * 3, MAX_ALONE),
        (["a.example", "b.example"], MAX_PARKED),
        (["b.example", "a.example", "a.example"], MAX_PARKED),
    ],
)
def test_no_more_than_so_many_wait_there(seen: list[str], most: int) -> None:
    requests = [Request(f"http://a.example/{number}") for number in range(most + 1)]
    crawl = crawler(*requests)
    parking = Parking(crawl)
    for netloc in seen:
        parking.see(netloc)
    waiting = [parking.park(request) for request in requests]
    for each in waiting:
        each.__enter__()
    assert (parking.parked, crawl.engine.downloader.active) == (most, {requests[-1]})
    for each in waiting:
        each.__exit__(None, None, None)
    assert (parking.parked, crawl.engine.downloader.active) == (0, set(requests))
    parking.close()


def test_what_was_there_is_left_out_of_collections_until_the_last_crawl_ends() -> None:
    first, second, idle = (Request(f"http://{name}.example/") for name in "abc")
    one, other, third = Parking(crawler(first)), Parking(crawler(second)), Parking(crawler(idle))
    with one.park(first), other.park(second):
        assert gc.get_freeze_count() > 1000
    one.close()
    assert gc.get_freeze_count() > 1000
    third.close()
    assert gc.get_freeze_count() > 1000
    other.close()
    assert gc.get_freeze_count() == 0


def test_what_the_program_itself_has_left_out_stays_out_when_nothing_has_waited() -> None:
    gc.freeze()
    Parking(crawler()).close()
    assert gc.get_freeze_count() > 1000
    gc.unfreeze()


def test_twisted_is_reminded_of_timers_that_are_over_once_a_request_has_waited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[float] = []
    reactor = SimpleNamespace(callLater=lambda delay, _function: asked.append(delay))
    monkeypatch.setitem(sys.modules, "twisted.internet.reactor", reactor)
    monkeypatch.setattr(twisted.internet, "reactor", reactor, raising=False)
    request = Request("http://a.example/")
    parking = Parking(crawler(request))
    parking.tick()
    assert asked == []
    with parking.park(request):
        parking.tick()
    assert asked == [0]
    monkeypatch.delitem(sys.modules, "twisted.internet.reactor")
    parking.tick()
    assert asked == [0]
    parking.close()
