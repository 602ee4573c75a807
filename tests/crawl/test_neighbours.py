"""Beside the rest of Scrapy: sites that are not listed, the cache, robots.txt, reactors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from crawling import DEFAULTS, DRIVER, Job, Process
from sites import Answer, Gate, Plain, Seen, Session, png, redirect

from scrapy_captcha.naming import site_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from crawling import Crawl


def asked(site: Plain) -> Counter[str]:
    """Everything about the requests, but their order."""
    return Counter(
        json.dumps([seen.method, seen.path, dict(seen.query), dict(seen.headers), seen.body.hex()])
        for seen in site.seen
    )


class Mixed(Plain):
    """Ordinary pages, a captcha page, redirects, errors."""

    def answer(self, seen: Seen) -> Answer:
        if seen.path == "/page/2":
            form = '<form action=/verify><img src="/captcha.png"><input name=code></form>'
            return Answer(f"<h1 class=name>page 2</h1>{form}", 403)
        if seen.path == "/page/3":
            return Answer(status=302, headers=(("Location", "/page/33"),))
        if seen.path == "/page/4":
            return Answer("down", 503, "text/plain")
        return super().answer(seen)


def test_a_host_that_is_not_listed_gets_the_same_requests_as_ever(
    crawl: Callable[..., Crawl],
) -> None:
    with Gate() as walled:
        results = []
        for settings in ({}, {"ADDONS": {}}):
            with Mixed() as site:
                rule = {"CAPTCHA_SITES": {walled.netloc: {}}, **settings}
                requests = [{"url": url, "headers": {"X-Mine": "1"}} for url in site.pages(8)]
                result = crawl(site, requests, **rule)
                results.append((asked(site), result.names, len(result.failures)))
                assert result.captcha == {}
    (seen, names, failures), (bare_seen, bare_names, bare_failures) = results
    ports = [json.loads(next(iter(counter)))[3]["host"] for counter in (seen, bare_seen)]
    bare = Counter({k.replace(ports[1], ports[0]): v for k, v in bare_seen.items()})
    assert seen == bare
    assert (names, failures) == (bare_names, bare_failures)


def test_without_sites_nothing_is_loaded(crawl: Callable[..., Crawl]) -> None:
    with Mixed() as site:
        result = crawl(site, 3, CAPTCHA_SITES={})
    assert result.captcha == {}
    assert len(site.seen) == 4


def test_a_second_crawl_from_the_cache_submits_nothing(
    crawl: Callable[..., Crawl], tmp_path: Path
) -> None:
    cache = {"HTTPCACHE_ENABLED": True, "HTTPCACHE_DIR": str(tmp_path / "cache")}
    with Gate(accept=2) as site:
        first = crawl(site, 12, **cache)
        seen = len(site.seen)
        second = crawl(site, 12, **cache)
        assert len(site.seen) == seen
    assert first.names == second.names
    assert len(second.items) == 12
    assert len(site.submissions) == 2
    assert second.captcha == {}


@pytest.mark.parametrize(
    ("redirects", "rule"), [(False, {}), (True, {"redirect": "/captcha"}), (True, {})]
)
def test_walls_that_are_in_the_cache_are_passed_and_replaced(
    crawl: Callable[..., Crawl], tmp_path: Path, redirects: bool, rule: dict[str, str]
) -> None:
    cache = {"HTTPCACHE_ENABLED": True, "HTTPCACHE_DIR": str(tmp_path / "cache")}
    with Gate(redirects=redirects) as site:
        assert "page 1" not in crawl(site, 6, ADDONS={}, **cache).names
        first = crawl(site, 6, rule, **cache)
        assert first.names == [f"page {number}" for number in range(1, 7)]
        assert len(site.submissions) == 1
        second = crawl(site, 6, rule, **cache)
        assert second.names == first.names
    assert len(site.submissions) == 1


def test_a_download_delay_does_not_come_between_image_and_answer(
    crawl: Callable[..., Crawl],
) -> None:
    with Gate(accept=2) as site:
        result = crawl(site, 5, DOWNLOAD_DELAY=0.3, DOWNLOAD_DELAY_JITTER=0)
    assert len(result.items) == 5
    paths = [seen.path for seen in site.seen]
    for number, path in enumerate(paths):
        if path == "/verify":
            assert paths[number - 1] == "/captcha.png"


class Robots(Gate):
    def route(self, session: Session, seen: Seen) -> Answer:
        if seen.path == "/robots.txt":
            return Answer("User-agent: *\nDisallow: /captcha.png\n", content_type="text/plain")
        return super().route(session, seen)


def test_robots_txt_holds_for_the_image_too(crawl: Callable[..., Crawl]) -> None:
    with Robots() as site:
        result = crawl(site, 3, ROBOTSTXT_OBEY=True)
    assert result.reasons == ["robots"] * 3
    assert result.captcha["failed/robots"] == 3
    assert site.requests("/captcha.png") == []


def test_a_rule_may_leave_robots_txt_aside(crawl: Callable[..., Crawl]) -> None:
    with Robots() as site:
        result = crawl(site, 3, {"obey_robotstxt": False}, ROBOTSTXT_OBEY=True)
    assert result.names == ["page 1", "page 2", "page 3"]


def test_robots_txt_that_allows_is_no_hindrance(crawl: Callable[..., Crawl]) -> None:
    with Gate() as site:
        result = crawl(site, 3, ROBOTSTXT_OBEY=True)
    assert result.names == ["page 1", "page 2", "page 3"]


@pytest.mark.parametrize("status", [200, 403])
@pytest.mark.parametrize("redirects", [False, True])
def test_a_wall_before_robots_txt_itself_is_no_deadlock(
    crawl: Callable[..., Crawl], status: int, redirects: bool
) -> None:
    class Closed(Robots):
        def route(self, session: Session, seen: Seen) -> Answer:
            if seen.path == "/robots.txt" and not session.passed:
                return redirect("/captcha") if redirects else self.wall(session, "/robots.txt")
            return super().route(session, seen)

    with Closed(status=status, redirects=redirects) as site:
        result = crawl(site, 3, ROBOTSTXT_OBEY=True)
    assert result.names == ["page 1", "page 2", "page 3"]
    assert len(site.accepted) == 1


def test_robots_txt_of_an_image_s_own_host_is_no_deadlock(crawl: Callable[..., Crawl]) -> None:
    """Both hosts are of one session, so the second host's robots.txt is asked for in a solve."""

    class Images(Plain):
        def answer(self, seen: Seen) -> Answer:
            if seen.path == "/robots.txt":
                return super().answer(seen)
            return Answer(png(1), content_type="image/png")

    class Foreign(Robots):
        def wall_html(self, session: Session, back_to: str) -> str:
            session.code_is_out = True
            html = super().wall_html(session, back_to)
            return html.replace("/captcha.png", f"{other.url}/captcha.png")

    with Images() as other, Foreign() as site:
        sites = {"127.0.0.1": {"image_hosts": [other.netloc]}}
        result = crawl(site, 3, ROBOTSTXT_OBEY=True, CAPTCHA_SITES=sites)
    assert result.reasons == []
    assert len(other.requests("/robots.txt")) == 1


def test_a_page_that_fails_for_a_while_is_retried_as_ever(crawl: Callable[..., Crawl]) -> None:
    class Flaky(Gate):
        def page(self, seen: Seen) -> Answer:
            if len(self.requests(seen.path)) == 3:
                return Answer("busy", 503, "text/plain")
            return super().page(seen)

        def is_walled(self, session: Session) -> bool:
            return super().is_walled(session)

    with Flaky() as site:
        result = crawl(site, 6)
    assert result.names == [f"page {number}" for number in range(1, 7)]
    assert len(site.accepted) == 1


def test_a_redirect_among_ordinary_pages_ends_at_its_target(crawl: Callable[..., Crawl]) -> None:
    class Moved(Gate):
        def route(self, session: Session, seen: Seen) -> Answer:
            if seen.path.startswith("/old/"):
                return Answer(
                    status=301, headers=(("Location", seen.path.replace("/old/", "/page/")),)
                )
            return super().route(session, seen)

    with Moved() as site:
        urls = [f"{site.url}/old/{number}" for number in range(1, 7)]
        result = crawl(site, [{"url": url, "meta": {"mine": url}} for url in urls])
    assert result.names == [f"page {number}" for number in range(1, 7)]
    assert {item["meta"]["mine"] for item in result.items} == set(urls)


def test_a_redirect_to_another_host_is_left_to_scrapy(crawl: Callable[..., Crawl]) -> None:
    class Leaving(Gate):
        def page(self, seen: Seen) -> Answer:
            number = seen.path.rpartition("/")[2]
            return Answer(status=302, headers=(("Location", f"{other.url}/page/1{number}"),))

    with Plain() as other, Leaving() as site:
        result = crawl(site, 4)
    assert result.names == ["page 11", "page 12", "page 13", "page 14"]
    assert all("sid" not in seen.form for seen in other.seen)


# -- processes of their own


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"TWISTED_REACTOR": "twisted.internet.selectreactor.SelectReactor"},
        {"TWISTED_REACTOR_ENABLED": False},
    ],
    ids=["asyncio", "select", "no reactor"],
)
def test_every_reactor_set_up_passes(settings: dict[str, Any], tmp_path: Path) -> None:
    with Gate(accept=2, status=403) as site, Plain() as other:
        given = {
            "CAPTCHA_SITES": {site.netloc: {}},
            "CAPTCHA_DATASET": str(tmp_path / "captchas"),
            "LOG_LEVEL": "INFO",
            **settings,
        }
        crawl = Process(Job([*site.pages(10), *other.pages(3)], given))
        result = crawl.result()
    assert len(result.items) == 13
    assert result.failures == []
    assert len(site.submissions) == 2
    assert crawl.popen.returncode == 0
    confirmed = tmp_path / "captchas" / site_folder(site.netloc) / "confirmed"
    assert len(list(confirmed.iterdir())) == 1


def test_the_scrapy_command_crawls_with_settings_from_its_command_line(tmp_path: Path) -> None:
    spider = tmp_path / "spider.py"
    with Gate(accept=2) as site:
        spider.write_text(
            "import scrapy\n"
            "class Pages(scrapy.Spider):\n"
            "    name = 'pages'\n"
            f"    start_urls = {site.pages(4)}\n"
            "    custom_settings = {'ADDONS': {'scrapy_captcha.Addon': 500}}\n"
            "    def parse(self, response):\n"
            "        yield {'name': response.css('.name::text').get()}\n"
        )
        settings = {"CAPTCHA_SITES": json.dumps({site.netloc: {}}), "TELNETCONSOLE_ENABLED": "0"}
        options = [word for key, value in settings.items() for word in ("-s", f"{key}={value}")]
        done = subprocess.run(  # noqa: PLW1510 - its output says more
            [sys.executable, "-m", "scrapy", "runspider", spider, "-O", "items.json", *options],
            cwd=tmp_path,
            env={**os.environ},
            capture_output=True,
            text=True,
            timeout=90,
        )
    assert done.returncode == 0, done.stderr
    items = json.loads((tmp_path / "items.json").read_text())
    assert sorted(item["name"] for item in items) == ["page 1", "page 2", "page 3", "page 4"]
    assert (tmp_path / "captchas").is_dir()
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"CAPTCHA_SITES": {"shop.example": {"feild": "code"}}},
            "CAPTCHA_SITES['shop.example']['feild']: unknown rule key; did you mean 'field'?",
        ),
        ({"CAPTCHA_TIMEOUT": "soon"}, "CAPTCHA_TIMEOUT: expected a number of seconds"),
        ({"CAPTCHA_MODEL": "alnum44"}, "no model 'alnum44': expected one of"),
        (
            {"CAPTCHA_SITES": {"shop.example": {"charset": "äöü"}}},
            "CAPTCHA_SITES['shop.example']: expected a charset within",
        ),
        (
            {"CAPTCHA_SITES": {"shop.example": {"length": 31}}},
            "CAPTCHA_SITES['shop.example']: the model",
        ),
    ],
)
def test_wrong_settings_stop_the_crawl_at_its_start(
    crawl: Callable[..., Crawl], settings: dict[str, Any], expected: str
) -> None:
    with Gate() as site:
        result = crawl(site, 2, trouble=True, **settings)
        assert site.seen == []
    assert result.error is not None
    assert expected in result.error
    assert result.error.startswith(("ConfigError: ", "BundleError: "))


def test_the_scrapy_command_shows_what_is_wrong(tmp_path: Path) -> None:
    settings = {**DEFAULTS, "CAPTCHA_SITES": {"shop.example": {"lenght": 4}}}
    done = subprocess.run(  # noqa: PLW1510
        [sys.executable, DRIVER, "once"],
        input=json.dumps({"requests": [], "settings": settings}),
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert "CAPTCHA_SITES['shop.example']['lenght']: unknown rule key" in done.stderr
    assert "did you mean 'length'?" in done.stderr
