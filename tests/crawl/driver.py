"""Run crawls described in JSON, and say in JSON what the spider got.

python driver.py serve            one job a line on stdin, one result a line on stdout
python driver.py once < JOB       one crawl in a process of its own, as ``scrapy crawl`` runs it
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
from typing import TYPE_CHECKING, Any

import scrapy
from scrapy.crawler import AsyncCrawlerProcess, AsyncCrawlerRunner, CrawlerProcess
from scrapy.exceptions import IgnoreRequest
from scrapy.http.request import NO_CALLBACK
from scrapy.utils.defer import deferred_from_coro
from scrapy.utils.log import configure_logging
from scrapy.utils.reactor import install_reactor

from scrapy_captcha import captcha_form, retraining, signals

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from scrapy.crawler import Crawler
    from scrapy.http import Response
    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

ASYNCIO = "twisted.internet.asyncioreactor.AsyncioSelectorReactor"
TRAINER = retraining.COMMAND
NOT_SHOWN = {
    "captcha_form",
    "depth",
    "download_latency",
    "download_slot",
    "download_timeout",
    "is_start_request",
}


class Pages(scrapy.Spider):
    """Asks for what the job lists, and knows captchas only where it sends a query form."""

    name = "pages"

    def __init__(self, job: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.job = job
        self.items: list[dict[str, Any]] = []
        self.failures: list[dict[str, Any]] = []
        self.signals: list[list[str]] = []

    async def start(self) -> AsyncIterator[Any]:
        for request in self.job["requests"]:
            yield self.ask(**request)

    def ask(
        self, url: str, queries: Any = None, then: Any = None, inline: Any = None, **kwargs: Any
    ) -> scrapy.Request:
        if queries is not None:
            kwargs = {**kwargs, "callback": self.parse_form, "cb_kwargs": {"queries": queries}}
        if then is not None:
            kwargs = {**kwargs, "callback": self.parse_index, "cb_kwargs": {"then": then}}
        if inline is not None:
            kwargs = {**kwargs, "callback": self.parse_inline, "cb_kwargs": {"inline": inline}}
        return scrapy.Request(url, **{"callback": self.parse, "errback": self.fail, **kwargs})

    def parse_index(self, response: Response, then: list[Any]) -> Iterator[Any]:
        for request in then:
            yield self.ask(**(request if isinstance(request, dict) else {"url": request}))

    async def parse_inline(self, response: Response, inline: list[str]) -> AsyncIterator[Any]:
        for url in inline:
            request = scrapy.Request(url, callback=NO_CALLBACK)
            try:
                page = await self.crawler.engine.download_async(request)
            except IgnoreRequest as e:
                self.failures.append(self.failure(request, e))
            else:
                for item in self.parse(page):
                    yield item

    def parse_form(self, response: Response, queries: list[dict[str, Any]]) -> Iterator[Any]:
        for query in queries:
            yield captcha_form(response, callback=self.parse, errback=self.fail, **query)

    def parse(self, response: Response, **kwargs: Any) -> Iterator[Any]:
        request = response.request
        assert request is not None
        text = getattr(response, "text", "")
        html = isinstance(response, scrapy.http.HtmlResponse)
        yield {
            "url": response.url,
            "status": response.status,
            "name": response.css(".name::text").get() if html else None,
            "text": text[:2000],
            "asked": request.url,
            "method": request.method,
            "body": request.body.decode(),
            "priority": request.priority,
            "cb_kwargs": kwargs,
            "meta": {k: v for k, v in response.meta.items() if k not in NOT_SHOWN},
        }

    def fail(self, failure: Failure) -> None:
        request = failure.request  # type: ignore[attr-defined]
        self.failures.append(self.failure(request, failure.value))

    def failure(self, request: scrapy.Request, error: BaseException) -> dict[str, Any]:
        return {
            "url": request.url,
            "error": type(error).__name__,
            "reason": getattr(error, "reason", None),
            "text": str(error),
        }


class Log(logging.Handler):
    """Keeps warnings and worse, tracebacks included."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith("tldextract"):  # it says so when there is no network
            self.lines.append(self.format(record))


def connect(crawler: Crawler) -> None:
    """Note items, and the signals of the package, in the order in which they come."""

    def spider() -> Pages:
        assert isinstance(crawler.spider, Pages)
        return crawler.spider

    def item_scraped(item: dict[str, Any]) -> None:
        spider().items.append(item)

    def attempt_finished(verdict: str, detail: str) -> None:
        spider().signals.append(["attempt_finished", verdict, detail])

    def challenge_failed(request: scrapy.Request, reason: str) -> None:
        spider().signals.append(["challenge_failed", request.url, reason])

    def challenge_solved(request: scrapy.Request, response: Response) -> None:
        spider().signals.append(["challenge_solved", request.url, response.url])

    def challenge_detected(request: scrapy.Request, response: Response) -> None:
        spider().signals.append(["challenge_detected", request.url, response.url])

    def reader_changed(site: str, model: str, reason: str) -> None:
        spider().signals.append(["reader_changed", reason, model])

    def site_quarantined(site: str, images: int) -> None:
        spider().signals.append(["site_quarantined", site, str(images)])

    for receiver, signal in (
        (item_scraped, scrapy.signals.item_scraped),
        (attempt_finished, signals.attempt_finished),
        (challenge_failed, signals.challenge_failed),
        (challenge_solved, signals.challenge_solved),
        (challenge_detected, signals.challenge_detected),
        (reader_changed, signals.reader_changed),
        (site_quarantined, signals.site_quarantined),
    ):
        crawler.signals.connect(receiver, signal, weak=False)


def result(crawler: Crawler, log: Log, error: str | None = None) -> str:
    spider = crawler.spider
    stats = crawler.stats
    gc.collect()  # what nobody awaits says so when it is collected
    return json.dumps(
        {
            "items": spider.items if isinstance(spider, Pages) else [],
            "failures": spider.failures if isinstance(spider, Pages) else [],
            "signals": spider.signals if isinstance(spider, Pages) else [],
            "stats": stats.get_stats() if stats else {},
            "finish_reason": stats.get_value("finish_reason") if stats else None,
            "log": log.lines,
            "error": error,
        },
        default=str,
    )


async def run(job: dict[str, Any]) -> str:
    use_trainer(job)
    log = Log()
    logging.root.addHandler(log)
    try:
        runner = AsyncCrawlerRunner(job["settings"])
        crawler = runner.create_crawler(Pages)
        connect(crawler)
        error = None
        try:
            await runner.crawl(crawler, job=job)
        except Exception as e:  # noqa: BLE001 - any of them is the result
            error = f"{type(e).__name__}: {e}"
        return result(crawler, log, error)
    finally:
        logging.root.removeHandler(log)


async def serve() -> None:
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(await run(json.loads(line)), flush=True)


def use_trainer(job: dict[str, Any]) -> None:
    """Have crawls start another process than the real trainer."""
    retraining.COMMAND = job.get("trainer") or TRAINER


def once(job: dict[str, Any]) -> None:
    use_trainer(job)
    settings = job["settings"]
    log = Log()
    by_deferreds = settings.get("TWISTED_REACTOR", ASYNCIO) != ASYNCIO
    process = (CrawlerProcess if by_deferreds else AsyncCrawlerProcess)(settings)
    logging.root.addHandler(log)
    crawler = process.create_crawler(Pages)
    connect(crawler)
    process.crawl(crawler, job=job)
    process.start()
    print(result(crawler, log), flush=True)


def main() -> None:
    if sys.argv[1] == "once":
        once(json.load(sys.stdin))
        return
    install_reactor(ASYNCIO)
    configure_logging({"LOG_INSTALL_ROOT_HANDLER": False})
    from twisted.internet.task import react  # noqa: PLC0415 - it would install another reactor

    def begin(_reactor: object) -> Deferred[None]:
        return deferred_from_coro(serve())

    react(begin)


if __name__ == "__main__":
    main()
