"""Has the disk fail during a crawl, as its setting ``FAILING_DISK`` says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from scrapy import signals

sys.path.append(str(Path(__file__).resolve().parent.parent))

from failing_disk import FailingDisk

if TYPE_CHECKING:
    from typing import Self

    from scrapy.crawler import Crawler


class Extension:
    """Breaks the disk before the crawl begins; which calls failed is in its stats in the end."""

    _last: FailingDisk | None = None

    def __init__(self, crawler: Crawler) -> None:
        self._crawler = crawler
        self._disk = FailingDisk(**crawler.settings.getdict("FAILING_DISK"))
        crawler.signals.connect(self.engine_stopped, signal=signals.engine_stopped)

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        if cls._last is not None:  # of a crawl that did not come to its end
            cls._last.repair()
        extension = cls(crawler)
        cls._last = extension._disk
        return extension

    def engine_stopped(self) -> None:
        self._disk.repair()
        assert self._crawler.stats is not None
        self._crawler.stats.set_value("disk/failed", self._disk.failed)
