"""Where requests wait without taking a place in CONCURRENT_REQUESTS from other sites."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scrapy import Request
    from scrapy.crawler import Crawler

#: More requests than this wait in their place, so that a queue is not emptied into memory.
MAX_PARKED = 1000


class Parking:
    """Counts the requests that wait outside of the downloader's count.

    :ivar parked: how many there are; the spider must not be closed for being idle meanwhile
    """

    def __init__(self, crawler: Crawler) -> None:
        self.parked = 0
        self._crawler = crawler

    @contextmanager
    def park(self, request: Request) -> Iterator[None]:
        """Take a request out of the downloader's count until its turn has come."""
        engine = self._crawler.engine
        assert engine is not None
        active = engine.downloader.active
        if self.parked >= MAX_PARKED or request not in active:
            yield
            return
        self.parked += 1
        active.discard(request)
        if engine._slot is not None:
            # nothing else tells the engine that it may send another request now
            engine._slot.nextcall.schedule()
        try:
            yield
        finally:
            self.parked -= 1
            active.add(request)
