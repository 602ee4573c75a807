"""Who solves, who waits, who is sent: the schedule of one session, without a crawler."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from scrapy import Request
from scrapy.utils.asyncio import CallLaterResult
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from scrapy_captcha import session as module
from scrapy_captcha.session import Session, Sessions, Turn, Want

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """No reactor: a Deferred is awaited as it is, and time passes when a test says so."""
    clock = Clock()
    monkeypatch.setattr(module, "maybe_deferred_to_future", lambda deferred: deferred)
    monkeypatch.setattr(
        module,
        "call_later",
        lambda *args: CallLaterResult.from_twisted(clock.callLater(*args)),
    )
    return clock


def run(awaitable: Awaitable[object]) -> list[object]:
    """Run a coroutine as far as it goes; the list gets its result, in time."""
    results: list[object] = []
    Deferred.fromCoroutine(awaitable).addBoth(results.append)  # type: ignore[arg-type]
    return results


class Crawl:
    """A crawler's part: requests that ask for their turn, and what they were told."""

    def __init__(self, concurrency: int = 100) -> None:
        self.session = Session(lambda: concurrency)
        self.requests: list[Request] = []

    def request(self) -> Request:
        self.requests.append(Request(f"http://shop.example/{len(self.requests)}"))
        return self.requests[-1]

    def send(self) -> Request | None:
        """Ask to be sent at once; the request when it may."""
        request = self.request()
        return request if self.session.turn_at_once(request) else None

    def ask(
        self, want: Want, request: Request | None = None, epoch: int | None = None
    ) -> list[object]:
        epoch = self.session.epoch if epoch is None else epoch
        return run(self.session.turn(request or self.request(), want, epoch))

    def meet_wall(self, request: Request, epoch: int | None = None) -> list[object]:
        epoch = self.session.epoch if epoch is None else epoch
        self.session.land(request, wall=True, epoch=epoch)
        return self.ask(Want.PASS, request, epoch)

    def get_page(self, request: Request) -> None:
        self.session.land(request, wall=False, epoch=self.session.epoch)

    def solve(self) -> None:
        self.session.solved()
        self.session.release()

    def sent(self, count: int) -> list[Request]:
        requests = [self.send() for _ in range(count)]
        assert None not in requests
        return requests  # type: ignore[return-value]


def test_pages_are_sent_at_once_while_there_is_no_wall() -> None:
    crawl = Crawl()
    assert len(crawl.sent(50)) == 50
    assert crawl.session.waiting == 0


def test_the_first_at_the_wall_solves_and_the_others_wait() -> None:
    crawl = Crawl()
    first, second, third = crawl.sent(3)
    assert crawl.meet_wall(first) == [Turn.SOLVE]
    assert crawl.meet_wall(second) == []
    assert crawl.meet_wall(third) == []
    assert crawl.session.waiting == 2
    assert crawl.session.walled


def test_nothing_is_sent_during_a_solve() -> None:
    crawl = Crawl()
    (first,) = crawl.sent(1)
    crawl.meet_wall(first)
    assert crawl.send() is None
    assert crawl.ask(Want.PAGE) == []


def test_after_a_solve_who_met_the_wall_goes_before_new_pages() -> None:
    crawl = Crawl(concurrency=3)
    first, second, third = crawl.sent(3)
    crawl.meet_wall(first)
    waiting = [crawl.meet_wall(second), crawl.meet_wall(third)]
    new = [crawl.ask(Want.PAGE) for _ in range(3)]
    crawl.solve()
    assert waiting == [[Turn.SEND], [Turn.SEND]]
    assert new == [[Turn.SEND], [], []]
    crawl.get_page(second)
    assert new == [[Turn.SEND], [Turn.SEND], []]
    assert crawl.session.epoch == 1


def test_waiting_pages_are_sent_in_the_order_in_which_they_came() -> None:
    crawl = Crawl(concurrency=1)
    (first,) = crawl.sent(1)
    crawl.meet_wall(first)
    order: list[int] = []

    async def ask(number: int) -> None:
        await crawl.session.turn(crawl.request(), Want.PAGE, 0)
        order.append(number)
        crawl.get_page(crawl.requests[number + 1])

    for number in range(5):
        run(ask(number))
    crawl.solve()
    assert order == [0, 1, 2, 3, 4]


def test_a_page_that_asks_while_others_wait_queues_behind_them() -> None:
    crawl = Crawl(concurrency=1)
    (first,) = crawl.sent(1)
    crawl.meet_wall(first)
    waiting = crawl.ask(Want.PAGE)
    late = crawl.ask(Want.PAGE)
    crawl.solve()
    assert waiting == [Turn.SEND]
    assert late == []
    assert crawl.send() is None


def test_who_was_sent_before_the_wall_fell_replays_and_does_not_solve() -> None:
    crawl = Crawl()
    first, slow = crawl.sent(2)
    crawl.meet_wall(first)
    crawl.solve()
    assert crawl.meet_wall(slow, epoch=0) == [Turn.SEND]


def test_who_was_sent_after_the_wall_fell_and_meets_it_solves_again() -> None:
    crawl = Crawl()
    (first,) = crawl.sent(1)
    crawl.meet_wall(first)
    crawl.solve()
    (second,) = crawl.sent(1)
    assert crawl.meet_wall(second) == [Turn.SOLVE]


def test_who_met_a_wall_that_was_kept_in_a_cache_is_sent_first() -> None:
    crawl = Crawl()
    assert crawl.ask(Want.PASS, epoch=-1) == [Turn.SEND]


def test_when_a_solve_fails_the_next_one_tries() -> None:
    crawl = Crawl()
    first, second, third = crawl.sent(3)
    crawl.meet_wall(first)
    waiting = [crawl.meet_wall(second), crawl.meet_wall(third)]
    crawl.session.release()
    assert waiting == [[Turn.SOLVE], []]
    crawl.session.release()
    assert waiting == [[Turn.SOLVE], [Turn.SOLVE]]


def test_queries_have_the_captcha_one_after_the_other() -> None:
    crawl = Crawl()
    queries = [crawl.ask(Want.FORM) for _ in range(3)]
    assert queries == [[Turn.SOLVE], [], []]
    crawl.session.release()
    assert queries == [[Turn.SOLVE], [Turn.SOLVE], []]


def test_pages_are_sent_while_a_query_has_the_captcha() -> None:
    crawl = Crawl()
    crawl.ask(Want.FORM)
    assert crawl.send() is not None


def test_a_wall_waits_until_a_query_is_done_with_the_captcha() -> None:
    crawl = Crawl()
    (first,) = crawl.sent(1)
    crawl.ask(Want.FORM)
    waiting = crawl.meet_wall(first)
    assert waiting == []
    crawl.session.release()
    assert waiting == [Turn.SOLVE]


def test_no_more_are_sent_than_may_be_on_their_way() -> None:
    crawl = Crawl(concurrency=2)
    sent = crawl.sent(4)
    crawl.meet_wall(sent[0])
    waiting = [crawl.meet_wall(request) for request in sent[1:]]
    crawl.solve()
    assert waiting == [[Turn.SEND], [Turn.SEND], []]
    crawl.session.lost(sent[1])
    assert waiting == [[Turn.SEND]] * 3


def test_a_lost_request_that_was_never_sent_changes_nothing() -> None:
    crawl = Crawl()
    crawl.session.lost(Request("http://shop.example/"))
    assert crawl.send() is not None


# -- stopping


def test_when_the_spider_closes_everybody_goes_home() -> None:
    crawl = Crawl()
    first, second = crawl.sent(2)
    crawl.meet_wall(first)
    waiting = [crawl.meet_wall(second), crawl.ask(Want.PAGE), crawl.ask(Want.FORM)]
    crawl.session.stop()
    assert waiting == [[Turn.STOP]] * 3
    assert crawl.session.waiting == 0


def test_the_solver_may_still_finish_when_the_others_have_gone() -> None:
    crawl = Crawl()
    (first,) = crawl.sent(1)
    crawl.meet_wall(first)
    crawl.session.stop()
    crawl.solve()
    assert crawl.send() is not None


# -- draining


@pytest.fixture
def drained() -> Callable[[Crawl], list[object]]:
    return lambda crawl: run(crawl.session.drained(10))


def test_the_solver_waits_for_what_is_on_its_way(
    drained: Callable[[Crawl], list[object]], clock: Clock
) -> None:
    crawl = Crawl()
    first, second, third = crawl.sent(3)
    crawl.meet_wall(first)
    done = drained(crawl)
    crawl.meet_wall(second)
    assert done == []
    crawl.get_page(third)
    assert done == [None]
    assert clock.getDelayedCalls() == []


def test_with_nothing_on_its_way_the_solver_does_not_wait(
    drained: Callable[[Crawl], list[object]], clock: Clock
) -> None:
    crawl = Crawl()
    (first,) = crawl.sent(1)
    crawl.meet_wall(first)
    assert drained(crawl) == [None]
    assert clock.getDelayedCalls() == []


def test_the_solver_does_not_wait_for_ever(
    drained: Callable[[Crawl], list[object]], clock: Clock
) -> None:
    crawl = Crawl()
    first, stuck = crawl.sent(2)
    crawl.meet_wall(first)
    done = drained(crawl)
    clock.advance(9.9)
    assert done == []
    clock.advance(0.2)
    assert done == [None]
    crawl.get_page(stuck)


def test_a_request_that_came_to_nothing_is_not_waited_for(
    drained: Callable[[Crawl], list[object]],
) -> None:
    crawl = Crawl()
    first, broken = crawl.sent(2)
    crawl.meet_wall(first)
    done = drained(crawl)
    crawl.session.lost(broken)
    assert done == [None]


# -- a site that asks again after so many pages


def served(crawl: Crawl, count: int) -> Request:
    """Get so many pages, and then the request that meets the wall."""
    for _ in range(count):
        (request,) = crawl.sent(1)
        crawl.get_page(request)
    (request,) = crawl.sent(1)
    crawl.meet_wall(request)
    return request


def test_the_number_of_pages_between_two_walls_is_expected_again() -> None:
    crawl = Crawl()
    served(crawl, 0)
    crawl.solve()
    served(crawl, 3)  # the solver's own page is one more
    crawl.solve()
    together = [crawl.send() for _ in range(6)]
    assert [request is not None for request in together] == [True] * 3 + [False] * 3


def test_when_the_expected_wall_is_not_there_twice_as_many_go_on() -> None:
    crawl = Crawl()
    served(crawl, 0)
    crawl.solve()
    served(crawl, 1)
    crawl.solve()
    (ahead,) = crawl.sent(1)
    assert crawl.send() is None
    crawl.get_page(ahead)
    (scout,) = crawl.sent(1)
    assert crawl.send() is None
    crawl.get_page(scout)
    (fourth,) = crawl.sent(1)
    assert crawl.send() is None
    crawl.get_page(fourth)
    (scout,) = crawl.sent(1)
    crawl.get_page(scout)
    together = [crawl.send() for _ in range(5)]
    assert [request is not None for request in together] == [True] * 3 + [False] * 2


def test_sessions_that_nobody_uses_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_IDLE", 3)
    sessions = Sessions(lambda: 1)
    for number in range(10):
        sessions.of(number)
        sessions.of("kept")
    assert len(list(sessions)) == 3
    kept = sessions.of("kept")
    assert kept is sessions.of("kept")
    assert kept in list(sessions)


def test_no_session_is_forgotten_while_something_of_it_is_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_IDLE", 2)
    sessions = Sessions(lambda: 1)
    request = Request("http://shop.example/")
    sending, solving = sessions.of("sending"), sessions.of("solving")
    assert sending.turn_at_once(request)
    assert run(solving.turn(Request("http://shop.example/"), Want.PASS, 0)) == [Turn.SOLVE]
    for number in range(10):
        sessions.of(number)
    assert sessions.of("sending") is sending
    assert sessions.of("solving") is solving
    sending.land(request, wall=False, epoch=0)
    solving.release()
    assert sending.idle
    assert solving.idle
    for number in range(10, 20):
        sessions.of(number)
    assert len(list(sessions)) == 2
    assert sending not in list(sessions)
