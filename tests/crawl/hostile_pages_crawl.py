"""A spider that reads no page: ``hostile_pages_crawl.py SETTINGS URL...``, both in JSON.

Prints how each request ended, how long the event loop was busy at once at most, and the stats.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from time import monotonic
from typing import TYPE_CHECKING, Any

import scrapy
from scrapy.crawler import AsyncCrawlerProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Blind(scrapy.Spider):
    name = "blind"
    ended: dict[str, str] = {}  # noqa: RUF012
    longest = 0.0

    async def start(self) -> AsyncIterator[Any]:
        self.watcher = asyncio.create_task(self.watch())
        for url in json.loads(sys.argv[2]):
            yield scrapy.Request(url, self.parse, errback=self.fail)

    async def watch(self) -> None:
        while True:
            started = monotonic()
            await asyncio.sleep(0)
            Blind.longest = max(Blind.longest, monotonic() - started)
            await asyncio.sleep(0.01)

    def parse(self, response: Any) -> None:
        self.ended[response.request.url] = hashlib.sha256(response.body).hexdigest()

    def fail(self, failure: Any) -> None:
        self.ended[failure.request.url] = getattr(failure.value, "reason", repr(failure.value))


process = AsyncCrawlerProcess(json.loads(sys.argv[1]))
crawler = process.create_crawler(Blind)
process.crawl(crawler)
process.start()
result = {
    "ended": Blind.ended,
    "busy": Blind.longest,
    "stats": crawler.stats.get_stats(),
}
print(json.dumps(result, default=str))
