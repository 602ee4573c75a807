"""Who solves, who waits, who may be sent: one :class:`Session` for each (site, cookiejar, proxy).

No Scrapy in here but its way to await a Deferred, which works on every reactor and without one.
"""

from __future__ import annotations

import enum
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING
from weakref import WeakSet

from scrapy.utils.asyncio import call_later
from scrapy.utils.defer import maybe_deferred_to_future
from twisted.internet.defer import Deferred

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from scrapy import Request

#: More sessions than this are not kept while nothing of theirs is under way. One that is forgotten
#: begins anew, and meets its wall at worst.
MAX_IDLE = 1000


class Turn(enum.Enum):
    """What a request that asked for its turn may do now."""

    SEND = "send"
    SOLVE = "solve"
    STOP = "stop"


class Want(enum.Enum):
    """What a request waits for.

    ``PAGE``: to be sent. ``PASS``: it has met the wall; to solve it, or to be sent again once
    somebody else has. ``FORM``: to have the session's captcha to itself, for a query form.
    """

    PAGE = "page"
    PASS = "pass"  # noqa: S105
    FORM = "form"


@dataclass
class _Waiter:
    request: Request
    want: Want
    epoch: int
    turn: Deferred[Turn] = field(default_factory=Deferred)


class Session:
    """The state of one key.

    :ivar epoch: how often its wall has been passed; a request that was sent before the wall fell
        and meets it afterwards is sent again instead of solving it again
    :ivar walled: whether the last page that came was a wall
    """

    def __init__(self, concurrency: Callable[[], int]) -> None:
        self.epoch = 0
        self.walled = False
        self.landed = 0
        self._concurrency = concurrency
        self._solving: Want | None = None
        self._pages: deque[_Waiter] = deque()
        self._holders: deque[_Waiter] = deque()
        self._in_flight: WeakSet[Request] = WeakSet()
        self._empty: Deferred[None] | None = None
        # A site may ask again after so many pages. When it has done so once, that number is
        # expected of it again: one request goes ahead to see, instead of all meeting the wall.
        self._allowance: int | None = None
        self._sent = 0
        self._passed = 0

    @property
    def waiting(self) -> int:
        """How many requests wait for their turn."""
        return len(self._pages) + len(self._holders)

    @property
    def solving(self) -> bool:
        """Whether a captcha of the session is being solved."""
        return self._solving is not None

    @property
    def idle(self) -> bool:
        """Whether nothing of it is under way."""
        return not (self.waiting or self.solving or self._in_flight)

    def turn_at_once(self, request: Request) -> bool:
        """Send a page without waiting, if that is allowed; the way nearly every request goes."""
        if self.waiting or not self._may_send():
            return False
        self._depart(request)
        return True

    async def turn(self, request: Request, want: Want, epoch: int) -> Turn:
        """Wait in line for a turn.

        :param epoch: of the session when the request was last sent
        """
        waiter = _Waiter(request, want, epoch)
        (self._pages if want is Want.PAGE else self._holders).append(waiter)
        self.pump()
        return await maybe_deferred_to_future(waiter.turn)

    def land(self, request: Request, wall: bool, epoch: int) -> None:
        """A request that was sent has come back with a page or an exception."""
        self._in_flight.discard(request)
        self.landed += 1
        self.walled = wall
        if not wall and epoch == self.epoch:
            self._passed += 1
            if self._allowance is not None and self._passed > self._allowance:
                # not without a limit: pages that failed may have counted on the site's side
                self._allowance *= 2
        if not self._in_flight:
            self._end_draining()
        if not wall:  # who has met the wall asks for a turn before anybody else is sent
            self.pump()

    def lost(self, request: Request) -> None:
        """A request that was sent came to nothing."""
        if request in self._in_flight:
            self._in_flight.discard(request)
            if not self._in_flight:
                self._end_draining()
            self.pump()

    async def drained(self, seconds: float) -> None:
        """Wait until nothing of this key is on its way, or for so long."""
        if not self._in_flight:
            return
        empty: Deferred[None] = Deferred()
        self._empty = empty
        timer = call_later(seconds, self._end_draining)
        await maybe_deferred_to_future(empty)
        timer.cancel()

    def _end_draining(self) -> None:
        if self._empty is not None:
            empty, self._empty = self._empty, None
            empty.callback(None)

    def solved(self) -> None:
        """The solver of the wall has its page: a new epoch, in which one page has been served."""
        if self.epoch and self._passed:
            self._allowance = self._passed
        self.epoch += 1
        self._sent = self._passed = 1
        self.walled = False

    def release(self) -> None:
        """The solver is done, with success or without."""
        self._solving = None
        self.landed += 1  # whatever others hold is stale now
        self.pump()

    def stop(self) -> None:
        """The spider is closing: everybody who waits goes home."""
        waiters = [*self._holders, *self._pages]
        self._holders.clear()
        self._pages.clear()
        for waiter in waiters:
            waiter.turn.callback(Turn.STOP)

    def pump(self) -> None:
        """Give their turn to those who can have it: who has met the wall first, then the others."""
        granted = [*self._grant_solve(), *self._grant_replays()]
        while self._pages and self._room() and self._may_send():
            waiter = self._pages.popleft()
            self._depart(waiter.request)
            granted.append((waiter, Turn.SEND))
        # only now: a callback may come back here at once
        for waiter, turn in granted:
            waiter.turn.callback(turn)

    def _grant_solve(self) -> list[tuple[_Waiter, Turn]]:
        if self._solving is not None:
            return []
        for waiter in self._holders:
            if waiter.want is Want.FORM or waiter.epoch == self.epoch:
                self._solving = waiter.want
                self._holders.remove(waiter)
                return [(waiter, Turn.SOLVE)]
        return []

    def _grant_replays(self) -> list[tuple[_Waiter, Turn]]:
        granted = []
        for waiter in list(self._holders):
            if not (self._room() and self._may_send()):
                break
            if waiter.want is Want.PASS and waiter.epoch != self.epoch:
                self._holders.remove(waiter)
                self._depart(waiter.request)
                granted.append((waiter, Turn.SEND))
        return granted

    def _room(self) -> bool:
        return len(self._in_flight) < self._concurrency()

    def _may_send(self) -> bool:
        if self._solving is Want.PASS:
            return False
        return self._allowance is None or self._sent < self._allowance or not self._in_flight

    def _depart(self, request: Request) -> None:
        self._sent += 1
        self._in_flight.add(request)


class Sessions:
    """The sessions of a crawl by their keys, without most of those that nobody uses any more.

    :param concurrency: how many requests of one session may be on their way
    """

    def __init__(self, concurrency: Callable[[], int]) -> None:
        self._concurrency = concurrency
        self._sessions: OrderedDict[Hashable, Session] = OrderedDict()

    def __iter__(self) -> Iterator[Session]:
        return iter(self._sessions.values())

    def of(self, key: Hashable) -> Session:
        """The session of a key."""
        session = self._sessions.get(key)
        if session is None:
            session = self._sessions[key] = Session(self._concurrency)
            self._forget()
        self._sessions.move_to_end(key)
        return session

    def _forget(self) -> None:
        """Drop who was used longest ago, if it is idle; else it is as good as used now."""
        excess = len(self._sessions) - MAX_IDLE
        for key in list(islice(self._sessions, min(2, max(0, excess)))):
            if self._sessions[key].idle:
                del self._sessions[key]
            else:
                self._sessions.move_to_end(key)
