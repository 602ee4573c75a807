"""Walls before pages: one answer a session, every page delivered once, as it was asked for."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from sites import HOLD_SECONDS, Answer, Gate, Plain, Seen, Session, redirect

if TYPE_CHECKING:
    from collections.abc import Callable

    from crawling import Crawl

BY_HAND = {
    "ADDONS": {},
    "DOWNLOADER_MIDDLEWARES": {
        "scrapy_captcha.CaptchaMiddleware": 560,
        "scrapy_captcha.CaptchaRedirectMiddleware": 610,
    },
}


def names(count: int) -> list[str]:
    return sorted(f"page {number}" for number in range(1, count + 1))


@pytest.mark.parametrize("status", [200, 401, 403, 429, 503])
def test_one_right_answer_delivers_every_page_once_whatever_the_status_of_the_wall(
    crawl: Callable[..., Crawl], status: int
) -> None:
    with Gate(status=status, accept=2) as site:
        result = crawl(site, 30)
    assert result.names == names(30)
    assert result.failures == []
    assert len(site.accepted) == len(site.rejected) == 1
    assert site.strangers == 0
    expected = {"submitted": 2, "rejected": 1, "accepted": 1, "stored": 1}
    assert expected.items() <= result.captcha.items()
    assert result.captcha["detected"] == result.captcha.get("replayed", 0) + 1
    # once to meet the wall or not, once more for each that has met it, and once to ask afresh
    assert len(site.requests("/page/*")) <= 30 + result.captcha["detected"] + 1
    assert "retry/count" not in result.stats


@pytest.mark.parametrize("rule", [{"redirect": "/captcha$"}, {}])
@pytest.mark.parametrize("settings", [{}, BY_HAND], ids=["add-on", "by hand"])
def test_pages_that_all_redirect_to_one_captcha_page_are_all_delivered(
    crawl: Callable[..., Crawl], rule: dict[str, str], settings: dict[str, object]
) -> None:
    with Gate(redirects=True) as site:
        result = crawl(site, 30, rule, **settings)
    assert result.names == names(30)
    assert len(site.accepted) == 1
    assert len(site.submissions) <= 3
    assert {item["asked"] for item in result.items} == set(site.pages(30))


def test_a_redirect_to_a_wall_is_followed_for_requests_that_want_no_redirects(
    crawl: Callable[..., Crawl],
) -> None:
    class Moving(Gate):
        def page(self, seen: Seen) -> Answer:
            if seen.path == "/page/1":
                return redirect("/page/2")
            return super().page(seen)

    meta = {"dont_redirect": True, "handle_httpstatus_list": [302]}
    with Moving(redirects=True, accept=2) as site:
        requests = [{"url": url, "meta": meta} for url in site.pages(6)]
        result = crawl(site, requests, {"redirect": "/captcha"})
    statuses = {item["asked"]: item["status"] for item in result.items}
    assert statuses == {url: 302 if url == site.pages(1)[0] else 200 for url in site.pages(6)}
    assert len(site.accepted) == 1


def test_the_two_middlewares_do_the_same_when_they_are_enabled_by_hand(
    crawl: Callable[..., Crawl],
) -> None:
    with Gate() as site:
        result = crawl(site, 10, **BY_HAND)
    assert result.names == names(10)
    assert len(site.submissions) == 1


def test_a_site_is_listed_by_its_host_alone(crawl: Callable[..., Crawl]) -> None:
    with Gate() as site:
        result = crawl(site, 3, CAPTCHA_SITES={"127.0.0.1": {}})
    assert result.names == names(3)
    assert result.site_stats("127.0.0.1")["accepted"] == 1


def test_pages_that_a_callback_awaits_are_delivered(crawl: Callable[..., Crawl]) -> None:
    with Gate(accept=2) as site:
        index = {"url": f"{site.url}/", "inline": site.pages(3), "meta": {"captcha": False}}
        result = crawl(site, [index])
    assert result.names == names(3)
    assert len(site.accepted) == 1


def test_one_request_at_a_time_is_enough_to_pass(crawl: Callable[..., Crawl]) -> None:
    with Gate(accept=2) as site:
        result = crawl(site, 5, CONCURRENT_REQUESTS=1, CONCURRENT_REQUESTS_PER_DOMAIN=1)
    assert result.names == names(5)
    assert len(site.submissions) == 2


def test_each_cookiejar_passes_by_itself(crawl: Callable[..., Crawl]) -> None:
    with Gate() as site:
        requests = [
            {"url": url, "meta": {"cookiejar": number % 4}}
            for number, url in enumerate(site.pages(24))
        ]
        result = crawl(site, requests)
    assert result.names == names(24)
    assert len(site.accepted) == len(site.submissions) == 4
    assert len({seen.cookies["sid"] for seen in site.submissions}) == 4


def test_one_cookiejar_does_not_wait_for_the_captcha_of_another(
    crawl: Callable[..., Crawl],
) -> None:
    class Slow(Gate):
        def __init__(self) -> None:
            super().__init__()
            self.other_has_passed = threading.Event()
            self.gave_up = False

        def receive(self, seen: Seen) -> Answer:
            with self.lock:
                first = seen.path == "/captcha.png" and not self.requests("/captcha.png")
                answer = super().receive(seen)
            if first:
                self.gave_up |= not self.other_has_passed.wait(HOLD_SECONDS)
            return answer

        def passed(self, session: Session, seen: Seen) -> Answer:
            self.other_has_passed.set()
            return super().passed(session, seen)

    with Slow() as site:
        requests = [
            {"url": url, "meta": {"cookiejar": number % 2}}
            for number, url in enumerate(site.pages(8))
        ]
        result = crawl(site, requests)
    assert not site.gave_up
    assert result.names == names(8)
    assert len(site.accepted) == 2


@pytest.mark.parametrize(
    ("meta", "settings"), [({"dont_merge_cookies": True}, {}), ({}, {"COOKIES_ENABLED": False})]
)
def test_a_session_that_the_spider_keeps_itself_is_the_one_that_passes(
    crawl: Callable[..., Crawl], meta: dict[str, bool], settings: dict[str, bool]
) -> None:
    with Gate(accept=2) as site:
        site.sessions["mine"] = Session("mine")
        headers = {"Cookie": "sid=mine"}
        requests = [{"url": url, "headers": headers, "meta": meta} for url in site.pages(6)]
        result = crawl(site, requests, **settings)
    assert result.names == names(6)
    assert {seen.cookies["sid"] for seen in site.seen} == {"mine"}
    assert len(site.accepted) == 1


def test_a_site_that_asks_again_after_every_fifth_page_is_answered_hardly_more_often(
    crawl: Callable[..., Crawl],
) -> None:
    with Gate(every=5) as site:
        result = crawl(site, 50)
    assert result.names == names(50)
    assert 10 <= len(site.accepted) <= 12
    assert site.walls < 45


def test_a_site_that_asks_before_each_page_is_passed_by_the_page_that_the_answer_leads_to(
    crawl: Callable[..., Crawl],
) -> None:
    with Gate(every=1) as site:
        result = crawl(site, 8)
    assert result.names == names(8)
    assert len(site.accepted) == 8


def test_a_rejected_answer_is_followed_by_another_to_a_new_image(
    crawl: Callable[..., Crawl],
) -> None:
    with Gate(accept=4) as site:
        result = crawl(site, 3)
    assert result.names == names(3)
    assert len(site.rejected) == 3
    assert len({image for image, _ in site.rejected + site.accepted}) == 4
    assert {"rejected": 3, "accepted": 1, "submitted": 4}.items() <= result.captcha.items()
    verdicts = [signal[1] for signal in result.signals if signal[0] == "attempt_finished"]
    assert verdicts == ["rejected", "rejected", "rejected", "accepted"]


def test_a_post_is_sent_again_with_its_body_and_headers(crawl: Callable[..., Crawl]) -> None:
    with Gate(accept=2) as site:
        requests = [
            {
                "url": url,
                "method": "POST",
                "body": f"number={number}",
                "headers": {"Content-Type": "application/x-www-form-urlencoded", "X-Mine": "yes"},
            }
            for number, url in enumerate(site.pages(6))
        ]
        result = crawl(site, requests)
    assert result.names == names(6)
    for number, item in enumerate(sorted(result.items, key=lambda item: item["name"])):
        assert item["method"] == "POST"
        assert item["body"] == f"number={number}"
        assert f"POST application/x-www-form-urlencoded b&#x27;number={number}" in item["text"]
    sent = Counter(seen.headers.get("x-mine") for seen in site.requests("/page/*", "POST"))
    assert set(sent) == {"yes"}
    assert len(site.accepted) == 1


def test_the_callback_gets_what_the_spider_gave_to_the_request(
    crawl: Callable[..., Crawl],
) -> None:
    with Gate(accept=2) as site:
        requests = [
            {
                "url": url,
                "meta": {"number": number},
                "cb_kwargs": {"label": f"label {number}"},
                "priority": number,
            }
            for number, url in enumerate(site.pages(10))
        ]
        result = crawl(site, requests)
    assert result.names == names(10)
    for item in result.items:
        number = item["meta"]["number"]
        assert item["meta"] == {"number": number}
        assert item["url"] == item["asked"] == f"{site.url}/page/{number + 1}"
        assert item["cb_kwargs"] == {"label": f"label {number}"}
        assert item["priority"] == number


def test_a_request_can_opt_out(crawl: Callable[..., Crawl]) -> None:
    with Gate() as site:
        result = crawl(site, [{"url": site.pages(1)[0], "meta": {"captcha": False}}])
    assert "Please type" in result.items[0]["text"]
    assert [seen.path for seen in site.seen] == ["/page/1"]
    assert result.captcha == {}


class Comments(Plain):
    def page(self, seen: Seen) -> Answer:
        page = super().page(seen)
        assert isinstance(page.body, str)
        return Answer(
            page.body + '<form method="post" action="/comment"><textarea name="text"></textarea>'
            '<input name="author"><img src="/captcha.png"><input name="captcha_code">'
            "<button>Post</button></form>"
        )


def test_a_comment_form_with_a_captcha_is_left_alone(crawl: Callable[..., Crawl]) -> None:
    with Comments() as site:
        result = crawl(site, 10)
    assert result.names == names(10)
    assert len(site.seen) == 10
    assert result.captcha == {}


def test_our_own_requests_look_like_those_of_the_page(crawl: Callable[..., Crawl]) -> None:
    headers = {
        "User-Agent": "Tester/1.0",
        "Accept-Language": "eo",
        "Authorization": "Basic YTpi",
    }
    with Gate(status=401) as site:
        crawl(site, [{"url": url, "headers": headers} for url in site.pages(2)])
    for seen in site.seen:
        for name, value in headers.items():
            assert seen.headers[name.lower()] == value, seen
    (image,) = site.requests("/captcha.png")
    assert image.headers["referer"].startswith(f"{site.url}/page/")
    (submission,) = site.submissions
    assert submission.headers["referer"] == image.headers["referer"]
    assert submission.cookies == image.cookies


def test_cookies_given_to_a_request_do_not_undo_the_session_that_passed(
    crawl: Callable[..., Crawl],
) -> None:
    with Gate(accept=2) as site:
        result = crawl(
            site, [{"url": url, "cookies": {"sid": "stale", "x": "1"}} for url in site.pages(4)]
        )
    assert result.names == names(4)
    assert len(site.accepted) <= 2


def test_an_ordinary_form_page_is_delivered_as_it_is(crawl: Callable[..., Crawl]) -> None:
    class Login(Plain):
        def page(self, seen: Seen) -> Answer:
            return Answer(
                '<h1 class="name">log in</h1><form action="/login"><img src="/logo.png">'
                '<input name="user"><input type="password" name="password"></form>'
            )

    with Login() as site:
        result = crawl(site, 2)
    assert result.names == ["log in", "log in"]
    assert len(site.seen) == 2


def test_each_proxy_passes_by_itself_with_its_own_credentials(crawl: Callable[..., Crawl]) -> None:
    with Gate(accept=2) as site:  # a proxy as well: it takes absolute addresses, too
        requests = [
            {
                "url": f"http://127.0.0.9/page/{number}",
                "meta": {
                    "proxy": f"http://user{number % 2}:pw@{site.netloc}",
                    "cookiejar": number % 2,
                },
            }
            for number in range(1, 9)
        ]
        result = crawl(site, requests, CAPTCHA_SITES={"127.0.0.9": {}})
    assert result.names == names(8)
    assert len(site.accepted) == 2
    session = {
        seen.headers["proxy-authorization"]: seen.cookies["sid"] for seen in site.submissions
    }
    assert len(session) == len(set(session.values())) == 2
    for seen in site.requests("/captcha.png"):
        assert session[seen.headers["proxy-authorization"]] == seen.cookies["sid"]
