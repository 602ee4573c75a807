"""Sites that cost without end: each of their tricks ends by a limit, and to the request."""

from __future__ import annotations

import itertools
import threading
import time
import zlib
from typing import TYPE_CHECKING

import pytest
from sites import HOLD_SECONDS, Answer, Gate, Plain, Seen, Session, png, redirect
from test_query import Registry, people, queries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from crawling import Crawl

ONE_BY_ONE = {"CONCURRENT_REQUESTS": 1, "CONCURRENT_REQUESTS_PER_DOMAIN": 1}


class ByRedirect(Gate):
    """Says no with a redirect to the page, and so to its wall."""

    def refused(self, session: Session, seen: Seen) -> Answer:
        return redirect(self.field(seen, "next"))


class ByWords(Gate):
    """Says no on a page without a captcha."""

    def refused(self, session: Session, seen: Seen) -> Answer:
        return Answer("<h1>That was wrong</h1>")


@pytest.mark.parametrize(
    ("site", "first", "attempt"),
    [
        (Gate(accept=0), 1, 2),
        (Gate(accept=0, redirects=True), 2, 2),
        (ByRedirect(accept=0), 1, 3),
        (ByWords(accept=0), 1, 3),
    ],
    ids=["the wall again", "a redirect to the wall", "a redirect to the page", "words"],
)
def test_who_always_rejects_gets_so_many_requests_and_no_more(
    crawl: Callable[..., Crawl], site: Gate, first: int, attempt: int
) -> None:
    """The page once, an image and an answer an attempt, and what the site's no leads to."""
    with site:
        result = crawl(site, 12, {"max_attempts": 3}, CAPTCHA_BREAKER=2, **ONE_BY_ONE)
    assert result.reasons == ["attempts"] * 2 + ["breaker_open"] * 10
    assert len(site.submissions) == len(site.requests("/captcha.png")) == 2 * 3
    assert len(site.seen) == 2 * (first + 3 * attempt)
    assert result.captcha["breaker_open"] == 1


def test_a_form_that_always_rejects_gets_so_many_requests_and_no_more(
    crawl: Callable[..., Crawl],
) -> None:
    with Registry(accept=0) as site:
        asked = queries(site, *people(12))
        result = crawl(site, asked, {"max_attempts": 3}, CAPTCHA_BREAKER=2, **ONE_BY_ONE)
    assert result.reasons == ["attempts"] * 2 + ["breaker_open"] * 10
    # the spider's own look at the form, and then: the form once, an image and an answer an attempt
    assert len(site.seen) == 1 + 2 * (1 + 3 * 2)


class Pictured(Gate):
    """Its images are what a test says."""

    def __init__(self, image: Callable[[], Answer]) -> None:
        super().__init__()
        self.picture = image

    def image(self, session: Session, seen: Seen) -> Answer:
        return self.picture()


def test_an_image_that_comes_a_byte_at_a_time_ends_with_the_time_of_the_solve(
    crawl: Callable[..., Crawl],
) -> None:
    over = threading.Event()

    def drip() -> Iterator[bytes]:
        for number in itertools.count():
            yield png(1)[number : number + 1] or b"?"
            if over.wait(0.05):
                return

    with Pictured(lambda: Answer(drip(), content_type="image/png")) as site, Plain() as other:
        result = crawl(site, [*site.pages(1), *other.pages(3)], CAPTCHA_TIMEOUT=1)
        over.set()
    assert result.reasons == ["timeout"]
    assert len(result.items) == 3
    assert len(site.requests("/captcha.png")) == 1
    assert result.stats["captcha/seconds"] < HOLD_SECONDS


def test_an_image_without_an_end_is_left_at_a_mebibyte(crawl: Callable[..., Crawl]) -> None:
    sent = []

    def endless() -> Iterator[bytes]:
        while True:
            sent.append(1 << 16)
            yield bytes(1 << 16)

    with Pictured(lambda: Answer(endless(), content_type="image/png")) as site:
        result = crawl(site, 1, {"max_attempts": 2})
    assert result.reasons == ["image_invalid"]
    assert result.captcha["failed/image_invalid"] == 2
    assert sum(sent) < 64 << 20  # what was on its way when the connection was closed, included


def test_an_image_that_decompresses_to_gigabytes_is_left_at_a_mebibyte(
    crawl: Callable[..., Crawl],
) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    parts = [packer.compress(bytes(1 << 20)) for _ in range(1 << 7)]
    bomb = b"".join(parts) + packer.flush()
    headers = (("Content-Encoding", "gzip"),)
    with Pictured(lambda: Answer(bomb, content_type="image/png", headers=headers)) as site:
        result = crawl(site, 1, {"max_attempts": 2})
    assert result.reasons == ["image_invalid"]
    assert result.captcha["failed/image_invalid"] == 2


def test_no_redirect_is_followed_when_the_time_of_the_solve_is_over(
    crawl: Callable[..., Crawl],
) -> None:
    class Detours(Gate):
        """Each answer leads from one slow redirect to the next."""

        def route(self, session: Session, seen: Seen) -> Answer:
            if seen.path == "/verify" or seen.path.startswith("/hop/"):
                return redirect(f"/hop/{len(self.seen)}")
            return super().route(session, seen)

    with Detours() as site:
        site.on_request = lambda seen: time.sleep(0.4) if seen.path.startswith("/hop/") else None
        result = crawl(site, 1, CAPTCHA_TIMEOUT=1)
    assert result.reasons == ["timeout"]
    assert 1 <= len(site.requests("/hop/*")) <= 4
