"""Pages and answers that no site should send, and that some do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sites import Answer, Gate, Plain, Seen, Session, as_json, redirect

if TYPE_CHECKING:
    from collections.abc import Callable

    from crawling import Crawl


class BrokenLinks(Plain):
    """Ordinary pages with URLs that are none."""

    def page(self, seen: Seen) -> Answer:
        src = ["http://[x/a.png", "//[", "http://a:99999999/"][int(seen.path[-1]) - 1]
        return Answer(
            f'<h1 class="name">{seen.path}</h1>'
            f'<form action="http://[y"><img src="{src}"><input name="code">'
            '<input name="who"></form>'
        )


def test_a_page_with_broken_urls_is_delivered(crawl: Callable[..., Crawl]) -> None:
    with BrokenLinks() as site:
        result = crawl(site, 3)
    assert result.names == ["/page/1", "/page/2", "/page/3"]


class BrokenLocation(Gate):
    """Sends an accepted visitor to an address that is none."""

    def __init__(self, location: str) -> None:
        super().__init__()
        self.location = location

    def passed(self, session: Session, seen: Seen) -> Answer:
        return redirect(self.location)


@pytest.mark.parametrize("location", ["http://[x/", "http://a:99999999/"])
def test_a_broken_address_after_an_answer_fails_the_attempt(
    crawl: Callable[..., Crawl], location: str
) -> None:
    with BrokenLocation(location) as site:
        result = crawl(site, 3)
    assert result.captcha["failed/redirect_host"] == 1
    assert sorted([*result.reasons, *["delivered"] * len(result.names)]) == [
        "delivered",
        "delivered",
        "redirect_host",
    ]


class LeadsAway(Gate):
    """Asks before each page, and its pages are on another host."""

    def __init__(self, other: Plain) -> None:
        super().__init__(every=1)
        self.other = other

    def page(self, seen: Seen) -> Answer:
        return redirect(f"{self.other.url}{seen.path}")


def test_a_page_on_another_host_is_fetched_once_and_not_solved_again(
    crawl: Callable[..., Crawl],
) -> None:
    with Plain() as other, LeadsAway(other) as site:
        result = crawl(site, 3)
    assert result.names == ["page 1", "page 2", "page 3"]
    assert len(site.submissions) == 3


class Bans(Gate):
    """Says no in JSON, and then shows the visitor the door."""

    def refused(self, session: Session, seen: Seen) -> Answer:
        session.passed = True
        return as_json({"code": 400})

    def page(self, seen: Seen) -> Answer:
        return Answer("<h1>Too many attempts</h1>", 403)


def test_a_ban_after_a_wrong_answer_is_not_taken_for_acceptance(
    crawl: Callable[..., Crawl],
) -> None:
    with Bans(accept=0) as site:
        result = crawl(site, 1)
    assert result.names == []
    assert result.captcha["submitted"] == 1
    assert not {"accepted", "stored", "rejected"} & result.captcha.keys()


class Broken(Gate):
    """Behind its captcha stands a page that the server cannot make."""

    def page(self, seen: Seen) -> Answer:
        return Answer("<h1>Internal error</h1>", 500)


def test_an_error_behind_a_wall_is_left_to_the_crawls_own_retries(
    crawl: Callable[..., Crawl],
) -> None:
    with Broken() as site:
        result = crawl(site, 1, RETRY_TIMES=2)
    assert result.names == []
    assert len(site.submissions) == 1
    # the wall, where the answer led, once more to see, and the crawl's retries
    assert len(site.requests("/page/1")) <= 5


class HalfElsewhere(Gate):
    """Sends half of its visitors to another host, before any captcha."""

    def __init__(self, other: Plain) -> None:
        super().__init__(every=7)
        self.other = other

    def route(self, session: Session, seen: Seen) -> Answer:
        if seen.path.startswith("/go/"):
            return redirect(f"{self.other.url}/page/{seen.path.removeprefix('/go/')}")
        return super().route(session, seen)


def test_requests_that_a_spider_keeps_do_not_hold_up_those_that_wait() -> None:
    script = Path(__file__).with_name("kept_requests.py")
    with Plain() as other, HalfElsewhere(other) as site:
        done = subprocess.run(
            [sys.executable, script, site.url, "30"],
            stdout=subprocess.PIPE,
            check=True,
            timeout=120,
        )
    assert json.loads(done.stdout) == [60, "finished"]
