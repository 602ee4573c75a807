"""A crawl that is interrupted and resumed delivers or fails every page: none vanishes."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from crawling import Job, Process
from sites import HOLD_SECONDS, Answer, Gate, Seen, Session, redirect
from test_limits import Slow
from test_query import Registry, people, queries

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import stopping

if TYPE_CHECKING:
    from collections.abc import Callable

    from crawling import Crawl

pytestmark = pytest.mark.skipif(os.name == "nt", reason="there is no SIGINT for a child process")


class Interrupted:
    """Interrupts a crawl at a request, which the site answers once the crawl is closing."""

    def __init__(self, site: Gate, when: Callable[[Seen], bool]) -> None:
        self.when = when
        self.met = threading.Event()
        self.closing = threading.Event()
        site.on_request = self.on_request

    def on_request(self, seen: Seen) -> None:
        if not self.met.is_set() and self.when(seen):
            self.met.set()
            self.closing.wait(HOLD_SECONDS)

    def result(self, crawl: Process) -> Crawl:
        assert self.met.wait(HOLD_SECONDS)
        crawl.popen.send_signal(signal.SIGINT)
        assert crawl.says("shutting down gracefully", HOLD_SECONDS)
        self.closing.set()
        return crawl.result()


def in_two_runs(
    crawl: Callable[..., Crawl],
    site: Gate,
    when: Callable[[Seen], bool],
    requests: list[Any],
    tmp_path: Path,
    rule: dict[str, Any] | None = None,
) -> tuple[Crawl, Crawl]:
    settings = {
        "CAPTCHA_SITES": {site.netloc: rule or {}},
        "CAPTCHA_DATASET": str(tmp_path / "captchas"),
        "CONCURRENT_REQUESTS": 4,
        "CONCURRENT_REQUESTS_PER_DOMAIN": 4,
        "JOBDIR": str(tmp_path / "job"),
        "LOG_LEVEL": "INFO",
        "SCHEDULER_DEBUG": True,
    }
    # a callback's requests are in the queue when the crawl stops; start() would not be resumed
    index = {"url": f"{site.url}/", "then": requests, "meta": {"captcha": False}}
    interrupted = Interrupted(site, when)
    process = Process(Job([index], settings))
    first = interrupted.result(process)
    assert first.finish_reason == "shutdown"
    assert not process.says("Unable to serialize", 0)
    second = crawl(site, [], **settings)
    assert second.finish_reason == "finished"
    return first, second


MOMENTS: dict[str, Callable[[Gate], Callable[[Seen], bool]]] = {
    "after some pages": lambda site: lambda seen: len(site.requests("/page/*")) >= 15,
    "at the image": lambda site: lambda seen: seen.path == "/captcha.png",
    "at the submission": lambda site: lambda seen: seen.path == "/verify",
    "at the first page": lambda site: lambda seen: seen.path.startswith("/page/"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_every_page_is_delivered_once(
    crawl: Callable[..., Crawl], tmp_path: Path, moment: str
) -> None:
    with Gate(accept=2) as site:
        requests = [
            {"url": url, "method": "POST", "body": f"n={n}"} if n % 3 == 0 else url
            for n, url in enumerate(site.pages(30))
        ]
        first, second = in_two_runs(crawl, site, MOMENTS[moment](site), requests, tmp_path)
    assert first.failures == second.failures == []
    names = Counter(item["name"] for item in first.items + second.items)
    assert names == Counter(f"page {number}" for number in range(1, 31))
    assert second.items != []


def test_pages_that_were_redirected_to_a_captcha_page_are_delivered(
    crawl: Callable[..., Crawl], tmp_path: Path
) -> None:
    with Gate(accept=2, redirects=True) as site:
        first, second = in_two_runs(
            crawl,
            site,
            MOMENTS["at the image"](site),
            site.pages(20),
            tmp_path,
            {"redirect": "captcha"},
        )
    assert first.failures == second.failures == []
    names = Counter(item["name"] for item in first.items + second.items)
    assert names == Counter(f"page {number}" for number in range(1, 21))


def test_queries_are_asked_again(crawl: Callable[..., Crawl], tmp_path: Path) -> None:
    with Registry(accept=2) as site:
        first, second = in_two_runs(
            crawl,
            site,
            lambda seen: len(site.requests("/captcha.png")) == 5,
            queries(site, *people(8)),
            tmp_path,
        )
    assert first.failures == second.failures == []
    names = Counter(item["name"] for item in first.items + second.items)
    assert names == Counter(f"person {number} a" for number in range(8))
    assert first.items != []
    assert second.items != []


@pytest.mark.parametrize("robots", [False, True])
def test_a_request_that_somebody_awaits_does_not_keep_the_crawl_open(
    tmp_path: Path, robots: bool
) -> None:
    """It cannot go back to the queue, so it ends at its caller."""

    class Closed(Gate):
        def route(self, session: Session, seen: Seen) -> Answer:
            if seen.path == "/robots.txt" and robots:
                return self.wall(session, "/robots.txt")
            return super().route(session, seen)

    with Closed(accept=0) as site:
        meta = {"captcha": False, "dont_obey_robotstxt": True}
        index = {"url": f"{site.url}/", "inline": site.pages(3), "meta": meta}
        settings = {
            "CAPTCHA_SITES": {site.netloc: {}},
            "CAPTCHA_DATASET": str(tmp_path / "captchas"),
            "ROBOTSTXT_OBEY": robots,
            "LOG_LEVEL": "INFO",
        }
        interrupted = Interrupted(site, MOMENTS["at the image"](site))
        result = interrupted.result(Process(Job([index], settings)))
    assert result.finish_reason == "shutdown"
    assert result.items == []
    assert len(result.failures) == 3
    assert len(site.requests("/robots.txt")) <= 2
    assert len(site.requests("/page/*")) <= 4


@pytest.mark.parametrize("reactor", ["asyncioreactor.AsyncioSelectorReactor", "selectreactor"])
def test_a_request_that_is_never_answered_does_not_keep_the_crawl_open(
    crawl: Callable[..., Crawl], tmp_path: Path, reactor: str
) -> None:
    if reactor == "selectreactor":
        reactor += ".SelectReactor"
    settings = {
        "CAPTCHA_DATASET": str(tmp_path / "captchas"),
        "JOBDIR": str(tmp_path / "job"),
        "LOG_LEVEL": "INFO",
    }
    with Slow() as site:
        settings["CAPTCHA_SITES"] = {site.netloc: {}}
        index = {"url": f"{site.url}/", "then": site.pages(9), "meta": {"captcha": False}}
        asked = threading.Event()
        hold = site.hold
        site.on_request = lambda seen: (seen.path == "/captcha.png" and asked.set()) or hold(seen)
        more = {"TWISTED_REACTOR": f"twisted.internet.{reactor}"}
        process = Process(Job([index], settings | more))
        assert asked.wait(HOLD_SECONDS)
        process.popen.send_signal(signal.SIGINT)
        first = process.result()
        assert not site.gave_up  # the image, that is: it was still to come
        site.released.set()
        second = crawl(site, [], **settings)
    assert first.finish_reason == "shutdown"
    assert first.items == first.failures == second.failures == []
    assert second.names == [f"page {number}" for number in range(1, 10)]


def test_a_redirect_that_leads_nowhere_does_not_keep_the_crawl_open(
    crawl: Callable[..., Crawl], tmp_path: Path
) -> None:
    asked, ended = threading.Event(), threading.Event()

    class Moved(Gate):
        def route(self, session: Session, seen: Seen) -> Answer:
            if seen.path.startswith("/page/") and not ended.is_set():
                return redirect("/slow")
            return super().route(session, seen)

    def hold(seen: Seen) -> None:
        if seen.path == "/slow":
            asked.set()
            ended.wait(HOLD_SECONDS)

    with Moved() as site:
        site.on_request = hold
        settings = {
            "CAPTCHA_SITES": {site.netloc: {}},
            "CAPTCHA_DATASET": str(tmp_path / "captchas"),
            "JOBDIR": str(tmp_path / "job"),
            "LOG_LEVEL": "INFO",
        }
        index = {"url": f"{site.url}/", "then": site.pages(3), "meta": {"captcha": False}}
        process = Process(Job([index], settings))
        assert asked.wait(HOLD_SECONDS)
        process.popen.send_signal(signal.SIGINT)
        first = process.result()
        assert not ended.is_set()
        ended.set()
        second = crawl(site, [], **settings)
    assert first.finish_reason == "shutdown"
    assert first.items == first.failures == second.failures == []
    assert second.names == ["page 1", "page 2", "page 3"]


def test_crawls_interrupted_at_random_moments_lose_no_page() -> None:
    given = {"pages": 30, "delay": 0.02, "faults": 0.1, "timeout": 1.0, "drip": False}
    options = stopping.argparse.Namespace(**given)
    for number in range(2):
        found = stopping.moment(number, options, stopping.random.Random(number))
        assert found["reason"] in {"shutdown", "finished"}
        assert (found["vanished"], found["twice"], found["trouble"]) == (0, 0, []), found
