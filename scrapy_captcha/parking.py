"""Where requests wait without taking a place in CONCURRENT_REQUESTS from other sites.

Waiting costs time in another way, too. Each request on its way holds some 80 objects, which survive
the garbage collector's short rounds, and so bring about long ones, through all the objects of the
process: a tenth of a second at a stretch in which the event loop stands still. What was there
before, most of which stays to the end, is therefore left out of them. And Twisted is reminded to
drop the timers of downloads that are over, which it keeps until the first of them would be due.
"""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from scrapy.utils.reactor import is_reactor_installed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scrapy import Request
    from scrapy.crawler import Crawler
    from twisted.internet.base import ReactorBase

#: More requests than this wait in their place, so that a queue is not emptied into memory; of a
#: crawl of one site fewer, for there is nobody to make room for.
MAX_PARKED = 1000
MAX_ALONE = 300
#: Crawls of this process that have what was there before them left out of collections.
_sparing: set[Parking] = set()


def _nothing() -> None:
    pass


class Parking:
    """Counts the requests that wait outside of the downloader's count.

    :ivar parked: how many there are; the spider must not be closed for being idle meanwhile
    """

    def __init__(self, crawler: Crawler) -> None:
        self.parked = 0
        self._crawler = crawler
        self._site: str | None = None
        self._limit = MAX_ALONE

    def see(self, netloc: str) -> None:
        """A request goes to some host, perhaps the second one of the crawl."""
        if netloc != self._site:
            if self._site is not None:
                self._limit = MAX_PARKED
            self._site = netloc

    @contextmanager
    def park(self, request: Request) -> Iterator[None]:
        """Take a request out of the downloader's count until its turn has come."""
        engine = self._crawler.engine
        assert engine is not None
        active = engine.downloader.active
        if self.parked >= self._limit or request not in active:
            yield
            return
        self.parked += 1
        active.discard(request)
        if self not in _sparing:
            _sparing.add(self)
            gc.freeze()
        if engine._slot is not None:
            # nothing else tells the engine that it may send another request now
            engine._slot.nextcall.schedule()
        try:
            yield
        finally:
            self.parked -= 1
            active.add(request)

    def tick(self) -> None:
        """To be called now and then, once anything has waited."""
        if self in _sparing and is_reactor_installed():
            from twisted.internet import reactor  # noqa: PLC0415 - importing it installs one

            cast("ReactorBase", reactor).callLater(0, _nothing)  # whatever is due has it look

    def close(self) -> None:
        """Have everything collected again, unless another crawl of the process still waits."""
        if self in _sparing:
            _sparing.remove(self)
            if not _sparing:
                gc.unfreeze()
