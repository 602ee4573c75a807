"""The captcha summary at the end of a crawl."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from scrapy import signals

if TYPE_CHECKING:
    from scrapy.crawler import Crawler
    from scrapy.statscollectors import StatsCollector


class CaptchaSummary:
    """Print the crawl's ``captcha/...`` stats once it has ended."""

    COUNTS = ("detected", "submitted", "accepted", "rejected", "stored", "unsolved")

    def __init__(self, stats: StatsCollector) -> None:
        self.stats = stats

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Made by Scrapy; asks to be told when the engine has stopped."""
        assert crawler.stats is not None
        extension = cls(crawler.stats)
        crawler.signals.connect(extension.engine_stopped, signal=signals.engine_stopped)
        return extension

    def engine_stopped(self) -> None:
        """Every answer has been judged and stored by now."""
        counts = (f"{name} {self.stats.get_value(f'captcha/{name}', 0)}" for name in self.COUNTS)
        print("captchas: " + ", ".join(counts), flush=True)
