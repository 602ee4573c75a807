"""One crawl of the walled site: what became of each page, how late the event loop was, its memory.

    python walled_crawl.py URL --pages 1000 [--concurrency 16] [--timeout 1] [--sample 5]

Prints one line of JSON. ``--bare`` crawls without the add-on. With ``--jobdir`` the crawl can be
interrupted and resumed by the same command; the pages that came, and those that failed, are then
added to ``pages`` in that folder.

The event loop is asked every 10 ms how late it is. A loop that is blocked for 300 ms is not one
late answer among many but thirty: what was due at each of those 10 ms had to wait for the rest.
``own`` counts of that no more than the CPU time that the process used meanwhile, in all threads, so
that what other processes took is left out, and leaves out the pauses of Python's garbage collector,
too; ``collector`` has these by themselves.

CONCURRENT_ITEMS is 1. Scrapy makes as many tasks for each page, and with its own default of 100,
and 128 pages that come at once, that alone keeps the loop busy for 200 ms.
"""

from __future__ import annotations

import argparse
import array
import asyncio
import gc
import json
import logging
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import psutil
import scrapy
from scrapy.crawler import AsyncCrawlerProcess
from scrapy.utils.asyncio import create_looping_call

from scrapy_captcha import CaptchaMiddleware, Recognizer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

EVERY = 0.01


class Trouble(logging.Handler):
    """Counts what nobody may see in a log, and keeps the first of it."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.seen: list[str] = []
        self.on_closing: Callable[[], None] = lambda: None
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record with a traceback, or any error but those that are meant."""
        if record.msg.startswith("Closing spider"):
            self.on_closing()
        meant = record.name.startswith(("scrapy_captcha", "scrapy.downloadermiddlewares.retry"))
        if record.exc_info or (record.levelno >= logging.ERROR and not meant):
            self.seen.append(self.format(record)[:3000])


class Lag:
    """How late the event loop is."""

    def __init__(self) -> None:
        self._late = array.array("d")
        self._own = array.array("d")
        self._reading = array.array("b")
        self._task: asyncio.Task[None] | None = None
        self._readers = 0
        self._read = False
        self._collecting = self._paused = 0.0
        self._pauses: list[float] = []

    def watch(self) -> None:
        """Begin, if it has not yet, in the loop's own thread."""
        if self._task is None:
            gc.callbacks.append(self._collector)
            self._task = asyncio.get_running_loop().create_task(self._watch())

    def end(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            gc.callbacks.remove(self._collector)

    def _collector(self, phase: str, _info: dict[str, int]) -> None:
        now = time.perf_counter()
        if phase == "start":
            self._collecting = now
            return
        self._paused += now - self._collecting
        self._pauses.append(now - self._collecting)

    async def _watch(self) -> None:
        due, used = time.perf_counter(), time.process_time()
        while True:
            due += EVERY
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            now, reading = time.perf_counter(), self._read or self._readers > 0
            own, used = time.process_time() - used - self._paused, time.process_time()
            self._paused = 0.0
            while due <= now:
                self._late.append(now - due)
                self._own.append(max(0.0, min(now - due, own)))
                self._reading.append(reading)
                due += EVERY
            due -= EVERY
            self._read = self._readers > 0

    def note_reading(self) -> None:
        """Have each reading leave a note that it was going on."""
        read = Recognizer.read

        def noted(*args: Any, **kwargs: Any) -> Any:
            self._readers += 1
            self._read = True
            try:
                return read(*args, **kwargs)
            finally:
                self._readers -= 1

        Recognizer.read = noted  # type: ignore[method-assign]

    def result(self) -> dict[str, Any]:
        """Milliseconds."""
        late, own = 1000 * np.array(self._late), 1000 * np.array(self._own)
        reading = np.array(self._reading, bool)
        return {
            "all": _quantiles(late),
            "own": _quantiles(own),
            "reading": _quantiles(late[reading]),
            "reading own": _quantiles(own[reading]),
            "collector": _quantiles(1000 * np.array(self._pauses)),
        }


def _quantiles(late: np.ndarray) -> dict[str, float]:
    if not late.size:
        return {"n": 0}
    p50, p99 = np.quantile(late, [0.5, 0.99])
    figures = {"p50": p50, "p99": p99, "max": late.max()}
    return {"n": late.size} | {name: round(float(ms), 2) for name, ms in figures.items()}


class Pages(scrapy.Spider):
    """Asks for so many pages, and keeps account of what came of each."""

    name = "pages"

    def __init__(self, url: str, options: argparse.Namespace, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.url = url
        self.options = options
        self.delivered = bytearray(options.pages)
        self.failed = bytearray(options.pages)
        self.why: Counter[str] = Counter()
        self.odd: Counter[str] = Counter()
        self.samples: list[tuple[float, float, int, int, int]] = []
        self.lag = Lag()
        self.begun = time.perf_counter()
        self.seconds = 0.0
        self.done = 0
        self.solving = 0
        self._process = psutil.Process()
        self._tick = create_looping_call(self._sample)
        self._journal = None
        if options.jobdir is not None:
            options.jobdir.mkdir(parents=True, exist_ok=True)
            self._journal = (options.jobdir / "pages").open("a", encoding="ascii")

    @classmethod
    def from_crawler(cls, crawler: Any, *args: Any, **kwargs: Any) -> Any:
        """Measure from the spider's beginning to its end."""
        spider = super().from_crawler(crawler, *args, **kwargs)
        crawler.signals.connect(spider.opened, scrapy.signals.spider_opened)
        crawler.signals.connect(spider.ended, scrapy.signals.spider_closed)
        return spider

    def opened(self) -> None:
        """Begin to measure."""
        self.begun = time.perf_counter()
        self.lag.note_reading()
        if self.options.sample:
            self._tick.start(self.options.sample)

    def ended(self) -> None:
        """Stop measuring."""
        self.seconds = time.perf_counter() - self.begun
        self.lag.end()
        if self._tick.running:
            self._tick.stop()
        if self.options.sample:
            self._sample()
        if self._journal is not None:
            self._journal.close()

    def _sample(self) -> None:
        times = time.perf_counter() - self.begun, time.process_time()
        memory, files = self._process.memory_info().rss, self._process.num_fds()
        self.samples.append((*times, self.done, memory, files))

    async def start(self) -> AsyncIterator[Any]:
        """Ask for all pages, or for the index that leads to them."""
        if self.options.index:
            yield scrapy.Request(self.url, self.parse_index, meta={"captcha": False})
            return
        engine = self.crawler.engine
        assert engine is not None
        for request in self._all():
            # Scrapy takes all that there is as soon as its downloader is busy, without a pause
            while engine.needs_backout():
                await self.crawler.signals.wait_for(scrapy.signals.scheduler_empty)
            yield request

    def _all(self) -> Iterator[scrapy.Request]:
        jars = self.options.cookiejars
        for number in range(self.options.pages):
            yield scrapy.Request(
                f"{self.url}/page/{number}",
                self.parse_page,
                errback=self.fail,
                meta={"cookiejar": number % jars} if jars else {},
                dont_filter=self.options.unfiltered,
            )

    def parse_index(self, _response: Any) -> Iterator[scrapy.Request]:
        """Ask for all pages."""
        yield from self._all()

    def parse_page(self, response: Any) -> None:
        """A page came; with the first, Scrapy has loaded what it needs for cookies."""
        self.lag.watch()
        number = int(response.request.url.rpartition("/")[2])
        self._note(self.delivered, number, "d")
        if f"page {number}<".encode() not in response.body:
            wall = b'name="code"' in response.body  # whole enough to be known for one
            self.odd["wall" if wall else "cut"] += 1
        elif urlsplit(response.url).path != f"/page/{number}":
            self.odd["address"] += 1

    def fail(self, failure: Any) -> None:
        """A page failed."""
        self._note(self.failed, int(failure.request.url.rpartition("/")[2]), "f")
        reason = getattr(failure.value, "reason", "")
        self.why[f"{type(failure.value).__name__} {reason if isinstance(reason, str) else ''}"] += 1

    def _note(self, ends: bytearray, number: int, what: str) -> None:
        self.done += 1
        ends[number] = min(255, ends[number] + 1)
        if self._journal is not None:
            self._journal.write(f"{what} {number}\n")
            self._journal.flush()

    def result(self) -> dict[str, Any]:
        """What became of the pages."""
        both = [d + f for d, f in zip(self.delivered, self.failed, strict=True)]
        return {
            "pages": len(both),
            "callbacks": sum(self.delivered),
            "errbacks": sum(self.failed),
            "twice": sum(count > 1 for count in both),
            "lost": both.count(0),
            "odd": self.odd,
            "why": self.why,
            "seconds": round(self.seconds, 2),
            "solving": self.solving,
            "lag": self.lag.result(),
            "samples": self.samples,
        }


def settings_for(url: str, options: argparse.Namespace) -> dict[str, Any]:
    """The crawl's settings."""
    settings: dict[str, Any] = {
        "CONCURRENT_REQUESTS": options.concurrency,
        "CONCURRENT_REQUESTS_PER_DOMAIN": options.concurrency,
        "CONCURRENT_ITEMS": options.items,
        "DOWNLOAD_DELAY": 0,
        "DOWNLOAD_TIMEOUT": options.timeout,
        "LOG_LEVEL": options.log,
        "LOG_FORMAT": "%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(message)s",
        "TELNETCONSOLE_ENABLED": False,
    }
    if options.jobdir is not None:
        settings["JOBDIR"] = str(options.jobdir)
        settings["SCHEDULER_DEBUG"] = True
    if not options.bare:
        settings |= {
            "ADDONS": {"scrapy_captcha.Addon": 500},
            "CAPTCHA_SITES": {urlsplit(url).netloc: {"length": 4}},
            "CAPTCHA_DATASET": options.dataset and str(options.dataset),
            "CAPTCHA_TIMEOUT": options.solve_timeout,
        }
    return settings


def crawl(url: str, options: argparse.Namespace) -> dict[str, Any]:
    """Crawl in this process."""
    os.environ.setdefault("TLDEXTRACT_PUBLIC_SUFFIX_LIST_URLS", "")
    process = AsyncCrawlerProcess(settings_for(url, options))
    trouble = Trouble()
    logging.root.addHandler(trouble)
    crawler = process.create_crawler(Pages)

    def note_solves() -> None:
        captchas = crawler.get_downloader_middleware(CaptchaMiddleware)
        assert isinstance(crawler.spider, Pages)
        if captchas is not None:
            crawler.spider.solving = sum(session.solving for session in captchas._sessions)

    trouble.on_closing = note_solves
    process.crawl(crawler, url=url, options=options)
    process.start()
    assert isinstance(crawler.spider, Pages)
    assert crawler.stats is not None
    stats = crawler.stats.get_stats()
    return crawler.spider.result() | {
        "finish_reason": stats.get("finish_reason"),
        "trouble": trouble.seen[:20],
        "stats": {
            key: value
            for key, value in stats.items()
            if key.startswith(("captcha/", "retry/", "downloader/exception_type_count"))
            and not key.startswith("captcha/site/")
        },
    }


def apart(url: str, *options: str) -> dict[str, Any]:
    """Crawl in a process of its own, and look through its log, too."""
    environment = os.environ | {"TLDEXTRACT_PUBLIC_SUFFIX_LIST_URLS": ""}
    command = [sys.executable, __file__, url, *options]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode or not done.stdout:
        raise RuntimeError(f"the crawl ended with code {done.returncode}:\n{done.stderr[-5000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if "Traceback" in done.stderr:
        result["trouble"].append(done.stderr[-5000:])
    return result


def parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url")
    parser.add_argument("--pages", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--items", type=int, default=1, help="CONCURRENT_ITEMS")
    parser.add_argument("--cookiejars", type=int, default=0, help="how many; 0: the default one")
    parser.add_argument("--timeout", type=float, default=60, help="DOWNLOAD_TIMEOUT")
    parser.add_argument("--solve-timeout", type=float, default=60, help="CAPTCHA_TIMEOUT")
    parser.add_argument("--dataset", type=Path)
    parser.add_argument("--jobdir", type=Path)
    parser.add_argument("--index", action="store_true", help="ask for the pages in a callback")
    parser.add_argument("--unfiltered", action="store_true", help="without the duplicate filter")
    parser.add_argument("--sample", type=float, default=0.0, help="seconds between samples")
    parser.add_argument("--bare", action="store_true", help="without the add-on")
    parser.add_argument("--log", default="ERROR", help="LOG_LEVEL")
    return parser


def main() -> None:
    """Crawl, and say what came of it."""
    options = parser().parse_args()
    print(json.dumps(crawl(options.url, options)), flush=True)


if __name__ == "__main__":
    main()
