"""One crawl of the ordinary site: how many items, and the time from the first to the last of them.

    python ordinary_crawl.py URL [--concurrency 16] [--model BUNDLE]

With a model the add-on is enabled and the site is listed; without one it is bare Scrapy.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any
from urllib.parse import urlsplit

import scrapy
from scrapy.crawler import AsyncCrawlerProcess


class Pages(scrapy.Spider):
    """Follows every link of the index and takes two values from each page."""

    name = "pages"

    def parse(self, response: Any) -> Any:
        for link in response.css("a::attr(href)").getall():
            yield response.follow(link, self.parse_page)

    def parse_page(self, response: Any) -> Any:
        name = response.css(".name::text").get()
        yield {"name": name, "price": response.css(".price::text").get()}


def crawl(url: str, *, concurrency: int, model: str | None) -> dict[str, Any]:
    """Crawl in this process."""
    settings: dict[str, Any] = {
        "CONCURRENT_REQUESTS": concurrency,
        "CONCURRENT_REQUESTS_PER_DOMAIN": concurrency,
        "DOWNLOAD_DELAY": 0,
        "LOG_LEVEL": "ERROR",
        "TELNETCONSOLE_ENABLED": False,
    }
    if model is not None:
        settings |= {
            "ADDONS": {"scrapy_captcha.Addon": 500},
            "CAPTCHA_SITES": {urlsplit(url).hostname: {}},
            "CAPTCHA_DATASET": None,
            "CAPTCHA_MODEL": model,
        }
    times: list[tuple[float, float]] = []

    def item_scraped() -> None:
        times.append((time.perf_counter(), time.process_time()))

    process = AsyncCrawlerProcess(settings)
    crawler = process.create_crawler(Pages)
    crawler.signals.connect(item_scraped, scrapy.signals.item_scraped, weak=False)
    process.crawl(crawler, start_urls=[url])
    process.start()
    first, last = times[0], times[-1]
    return {"items": len(times), "seconds": last[0] - first[0], "cpu": last[1] - first[1]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url")
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--model")
    options = parser.parse_args()
    print(json.dumps(crawl(options.url, concurrency=options.concurrency, model=options.model)))
