"""A spider that keeps every request it makes: ``kept_requests.py SITE_URL PAGES``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import scrapy
from scrapy.crawler import CrawlerProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Keeper(scrapy.Spider):
    name = "keeper"
    kept: list[scrapy.Request] = []  # noqa: RUF012
    ended: list[str] = []  # noqa: RUF012

    async def start(self) -> AsyncIterator[Any]:
        for path in ("go", "page"):
            for number in range(int(sys.argv[2])):
                url = f"{sys.argv[1]}/{path}/{number}"
                self.kept.append(scrapy.Request(url, self.parse, errback=self.fail))
                yield self.kept[-1]

    def parse(self, response: Any) -> None:
        self.ended.append(response.url)

    def fail(self, failure: Any) -> None:
        self.ended.append(repr(failure.value))


process = CrawlerProcess(
    {
        "ADDONS": {"scrapy_captcha.Addon": 500},
        "CAPTCHA_SITES": {urlsplit(sys.argv[1]).netloc: {}},
        "CAPTCHA_DATASET": None,
        "CLOSESPIDER_TIMEOUT": 60,
        "LOG_LEVEL": "ERROR",
        "TELNETCONSOLE_ENABLED": False,
    }
)
crawler = process.create_crawler(Keeper)
process.crawl(crawler)
process.start()
print(json.dumps([len(set(Keeper.ended)), crawler.stats.get_value("finish_reason")]))
