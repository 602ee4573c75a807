"""What a site that never accepts costs, to the request."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from sites import HOLD_SECONDS, Gate, Plain, Seen

if TYPE_CHECKING:
    from collections.abc import Callable

    from crawling import Crawl


def test_eight_solves_of_eight_answers_and_the_breaker_opens(crawl: Callable[..., Crawl]) -> None:
    with Gate(accept=0) as site, Plain() as other:
        result = crawl(site, [*site.pages(20), *other.pages(5)])
    assert len(site.submissions) == 8 * 8
    assert len(site.requests("/captcha.png")) == 8 * 8
    assert site.strangers == 0
    # a solve asks for its page afresh when other pages came meanwhile or the last solve failed
    assert len(site.requests("/page/*")) <= 20 + 8
    assert result.reasons == ["attempts"] * 8 + ["breaker_open"] * 12
    assert sorted(failure["url"] for failure in result.failures) == sorted(site.pages(20))
    assert result.names == [f"page {number}" for number in range(1, 6)]
    assert result.captcha["unsolved"] == 20
    assert result.captcha["breaker_open"] == 1
    assert result.captcha["rejected"] == 64
    assert result.finish_reason == "finished"
    assert any("pages fail from now on" in line for line in result.log)


def test_behind_an_open_breaker_pages_are_not_asked_for(crawl: Callable[..., Crawl]) -> None:
    with Gate(accept=0) as site:
        result = crawl(
            site,
            30,
            {"max_attempts": 1},
            CAPTCHA_BREAKER=2,
            CONCURRENT_REQUESTS=1,
            CONCURRENT_REQUESTS_PER_DOMAIN=1,
        )
    assert result.reasons == ["attempts"] * 2 + ["breaker_open"] * 28
    assert len(site.submissions) == 2
    assert {seen.path for seen in site.requests("/page/*")} == {"/page/1", "/page/2"}


def test_the_spider_closes_when_it_shall(crawl: Callable[..., Crawl]) -> None:
    with Gate(accept=0) as site:
        result = crawl(site, 30, {"max_attempts": 1}, CAPTCHA_BREAKER=3, CAPTCHA_CLOSE_SPIDER=True)
    assert result.finish_reason == "captcha_unsolved"
    assert len(site.submissions) == 3
    assert result.reasons.count("attempts") == 3


def test_a_page_that_failed_leaves_the_next_one_its_own_try(crawl: Callable[..., Crawl]) -> None:
    with Gate(accept=5) as site:
        result = crawl(site, 6, {"max_attempts": 4})
    assert result.reasons == ["attempts"]
    assert len(result.items) == 5
    assert len(site.submissions) == 5
    assert result.captcha["unsolved"] == 1


def test_success_closes_the_ranks_of_failures(crawl: Callable[..., Crawl]) -> None:
    """Failed solves count towards the breaker only when they come in a row."""
    with Gate(accept=2, every=1) as site:
        result = crawl(
            site,
            12,
            {"max_attempts": 1},
            CAPTCHA_BREAKER=2,
            CONCURRENT_REQUESTS=1,
            CONCURRENT_REQUESTS_PER_DOMAIN=1,
        )
    assert len(result.items) == 6
    assert result.reasons == ["attempts"] * 6


class Slow(Gate):
    """Holds its images back until somebody says so."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()
        self.on_request = self.hold
        self.gave_up = False

    def hold(self, seen: Seen) -> None:
        if seen.path == "/captcha.png" and not self.released.wait(HOLD_SECONDS):
            self.gave_up = True


def test_a_solve_ends_when_its_time_is_over(crawl: Callable[..., Crawl]) -> None:
    with Slow() as site:
        result = crawl(site, 1, CAPTCHA_TIMEOUT=1)
        site.released.set()
    assert result.reasons == ["timeout"]
    assert len(site.requests("/captcha.png")) == 1
    assert site.submissions == []
    assert result.stats["captcha/seconds"] < 5


def test_other_sites_are_crawled_to_the_end_while_a_captcha_is_slow(
    crawl: Callable[..., Crawl],
) -> None:
    class Beside(Plain):
        def receive(self, seen: Seen) -> object:  # type: ignore[override]
            answer = super().receive(seen)
            if len(self.seen) == 30:
                site.released.set()
            return answer

    with Slow() as site, Beside() as other:
        walled = [{"url": url, "priority": 10} for url in site.pages(100)]
        result = crawl(
            site,
            [*walled, *other.pages(30)],
            CONCURRENT_REQUESTS=4,
            CONCURRENT_REQUESTS_PER_DOMAIN=4,
        )
    assert not site.gave_up
    assert len(result.items) == 130
    assert result.failures == []
    assert len(site.accepted) == 1
