"""Crawls whose images are read by a service."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from crawling import Job, Process
from reading_service import Asked, ReadingService, Said, no, recognizer
from sites import HOLD_SECONDS, Answer, Gate, Plain, Seen, Session

from scrapy_captcha.attempts import read_attempts
from scrapy_captcha.bundle import resolve
from scrapy_captcha.naming import site_folder
from scrapy_captcha.remote import THREADS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from crawling import Crawl

TOKEN = "not-for-the-log"
FOUR = {"length": 4, "min_confidence": 0}


@pytest.fixture
def service() -> Iterator[ReadingService]:
    with ReadingService(token=TOKEN) as service:
        yield service


def of(service: ReadingService, **settings: Any) -> dict[str, Any]:
    """The settings of a crawl that reads through a service."""
    return {"CAPTCHA_MODEL": service.url, "CAPTCHA_SERVICE_TOKEN": service.token, **settings}


def read_by(name: str, site: Gate) -> list[str]:
    """What a model reads in the images that were answered."""
    return [recognizer(name).read(image).text for image, _ in site.accepted + site.rejected]


def answered(site: Gate) -> list[str]:
    return [text for _, text in site.accepted + site.rejected]


def test_a_crawl_submits_what_the_service_reads(
    crawl: Callable[..., Crawl], service: ReadingService
) -> None:
    with Gate(accept=2, every=3) as site:
        result = crawl(site, 10, {**FOUR, "charset": "0123456789"}, **of(service))
    assert len(result.items) == 10
    asked = service.readings
    images = [image for image, _ in site.accepted + site.rejected]
    assert Counter(seen.body for seen in asked) == Counter(images)
    assert {tuple(seen.query.items()) for seen in asked} == {
        (("charset", "0123456789"), ("length", "4"))
    }
    read = [recognizer("alnum4").read(seen.body, "0123456789").text for seen in asked]
    assert Counter(read) == Counter(answered(site))
    assert len({seen.connection for seen in service.asked}) == 1


def test_the_dataset_says_of_each_attempt_which_model_read_it(
    crawl: Callable[..., Crawl], tmp_path: Path
) -> None:
    class Promoting(ReadingService):
        """A new model after the third image."""

        def read(self, asked: Asked) -> Said:
            self.hash_suffix = "-new" if len(self.readings) > 3 else ""
            return super().read(asked)

    with Promoting() as service, Gate(every=1) as site:
        crawl(site, 8, FOUR, CAPTCHA_MODEL=service.url)
    lines = list(read_attempts(tmp_path / "captchas" / site_folder(site.netloc)))
    old = recognizer("alnum4").model_hash
    assert [line.model for line in sorted(lines, key=lambda line: line.time)] == [
        *[old] * 3,
        *[f"{old}-new"] * 5,
    ]


def test_a_site_s_own_model_reads_it_still(
    crawl: Callable[..., Crawl], service: ReadingService, tmp_path: Path
) -> None:
    with Gate(every=1) as site, Gate(every=1) as other:
        other.cookie = "other"
        own = tmp_path / "captchas" / site_folder(other.netloc) / "model"
        shutil.copytree(resolve("alnum4"), own)
        sites = {site.netloc: FOUR, other.netloc: FOUR}
        crawl(site, [*site.pages(3), *other.pages(3)], **of(service, CAPTCHA_SITES=sites))
    images = {image for image, _ in site.accepted}
    assert {asked.body for asked in service.readings} == images
    assert answered(other) == read_by("alnum4", other)


def test_many_sites_are_read_at_once(crawl: Callable[..., Crawl], service: ReadingService) -> None:
    with Gate(every=1) as a, Gate(every=1) as b, Gate(every=1) as c, Gate(every=2) as d:
        sites = (a, b, c, d)
        for number, site in enumerate(sites):
            site.cookie = f"sid{number}"
        pages = [
            {"url": url, "meta": {"cookiejar": i % 4}}
            for site in sites
            for i, url in enumerate(site.pages(20))
        ]
        rules = {site.netloc: FOUR for site in sites}
        settings = of(service, CAPTCHA_SITES=rules, CONCURRENT_REQUESTS=16)
        result = crawl(a, pages, **settings)
    assert len(result.items) == 80
    assert result.captcha["accepted"] == len(service.readings)
    for site in sites:
        assert answered(site) == read_by("alnum4", site)
    assert len({asked.connection for asked in service.asked}) <= THREADS


def test_a_service_that_is_slow_keeps_no_other_site_waiting(crawl: Callable[..., Crawl]) -> None:
    done = threading.Event()

    class Local(Gate):
        given = 0

        def page(self, seen: Seen) -> Answer:
            self.given += 1
            if self.given == 3:
                done.set()
            return super().page(seen)

    class Slow(ReadingService):
        """Answers when the other site has given its pages."""

        def read(self, asked: Asked) -> Said:
            done.wait(HOLD_SECONDS)
            return super().read(asked)

    # more than there are threads for Scrapy's own blocking calls
    sessions = min(32, (os.cpu_count() or 1) + 4)
    with Slow() as service, Gate() as remote, Local(every=1) as local:
        local.cookie = "local"
        pages = [
            {"url": url, "meta": {"cookiejar": i}} for i, url in enumerate(remote.pages(sessions))
        ]
        result = crawl(
            local,
            [*pages, *local.pages(3)],
            CAPTCHA_SITES={remote.netloc: FOUR, local.netloc: {**FOUR, "model": "alnum4"}},
            CAPTCHA_MODEL=service.url,
            CONCURRENT_REQUESTS=64,
            CONCURRENT_REQUESTS_PER_DOMAIN=64,
        )
    assert result.failures == []
    assert len(result.items) == sessions + 3


@pytest.mark.parametrize(
    "settings",
    [
        {"TWISTED_REACTOR": "twisted.internet.selectreactor.SelectReactor"},
        {"TWISTED_REACTOR_ENABLED": False},
    ],
    ids=["select", "no reactor"],
)
def test_every_reactor_reads_through_a_service(
    service: ReadingService, settings: dict[str, Any], tmp_path: Path
) -> None:
    with Gate(accept=2, every=1) as site:
        given = {
            "CAPTCHA_SITES": {site.netloc: FOUR},
            "CAPTCHA_DATASET": str(tmp_path / "captchas"),
            **of(service),
            **settings,
        }
        result = Process(Job(site.pages(5), given)).result()
    assert len(result.items) == 5
    assert len(service.readings) == result.captcha["submitted"] == 10


def test_canaries_are_made_of_the_characters_that_the_service_names(
    crawl: Callable[..., Crawl], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Judge(Gate):
        """Accepts what the model reads."""

        def judge(self, session: Session, answer: str) -> bool:
            right = recognizer("alnum4").read(session.images[-1]).text == answer
            (self.accepted if right else self.rejected).append((session.images[-1], answer))
            return right

    with ReadingService() as service, Judge(every=1) as site:
        said = json.loads(service.described().body)
        said["models"][0]["charset"] = "!?"
        monkeypatch.setattr(service, "described", lambda: Said(said))
        rule = {**FOUR, "canary_rate": 0.5}
        result = crawl(site, 30, rule, CAPTCHA_MODEL=service.url)
    assert result.captcha["canary"] == len(site.rejected) >= 1
    assert {character for _, text in site.rejected for character in text} <= {"!", "?"}
    assert len(result.items) == 30


# -- services that do not read


@pytest.mark.parametrize("trouble", ["away", "token", "length"])
def test_a_service_that_cannot_read_ends_the_crawl_at_its_start(
    crawl: Callable[..., Crawl], trouble: str
) -> None:
    with ReadingService(token=TOKEN) as service:
        if trouble == "away":
            service.shutdown()
            service.server_close()
        with Gate() as site:
            token = "wrong" if trouble == "token" else TOKEN
            rule = {"length": 7 if trouble == "length" else 4}
            settings = {"CAPTCHA_MODEL": service.url, "CAPTCHA_SERVICE_TOKEN": token}
            result = crawl(site, 3, rule, trouble=True, **settings)
    words = {
        "away": f"CAPTCHA_MODEL: {service.url} is not reached: Connection refused",
        "token": f"CAPTCHA_MODEL: {service.url} wants a token: CAPTCHA_SERVICE_TOKEN is wrong",
        "length": f"CAPTCHA_SITES['{site.netloc}']: the model 'alnum4' reads 4 characters, not 7",
    }
    assert result.error is not None
    assert result.error.startswith(f"ConfigError: {words[trouble]}")
    assert site.seen == []


def test_pages_reach_their_errback_when_the_service_reads_no_more(
    crawl: Callable[..., Crawl], service: ReadingService
) -> None:
    with Gate(every=1) as site, Plain() as other:
        service.script += [service.read] * 2 + [no(500, "out of order")] * 100
        settings = of(service, CONCURRENT_REQUESTS=1, CAPTCHA_BREAKER=3)
        result = crawl(site, [*site.pages(10), *other.pages(2)], FOUR, **settings)
    assert result.reasons == ["breaker_open"] * 5 + ["reader"] * 3
    assert result.names[:2] == ["page 1", "page 1"]
    assert len(result.items) == 4
    assert result.captcha["failed/reader"] == 3
    assert len(site.requests("/captcha.png")) == len(service.readings) == 2 + 3
    assert any(
        f"was not solved: reader: {service.url} answers 500 ('out of order')" in line
        for line in result.log
    )
    assert result.finish_reason == "finished"


def test_a_silent_service_does_not_hold_up_the_end_of_a_crawl(tmp_path: Path) -> None:
    came, done = threading.Semaphore(0), threading.Event()

    class Silent(ReadingService):
        def read(self, asked: Asked) -> Said:
            came.release()
            done.wait(HOLD_SECONDS)
            return super().read(asked)

    class Late(Plain):
        """Gives its page, by which the crawl ends, when all threads wait for the service."""

        def page(self, seen: Seen) -> Answer:
            for _ in range(THREADS):
                came.acquire(timeout=HOLD_SECONDS)
            return super().page(seen)

    with Silent() as service, Gate() as site, Late() as other:
        pages = [
            {"url": url, "meta": {"cookiejar": i}} for i, url in enumerate(site.pages(THREADS + 4))
        ]
        given = {
            "CAPTCHA_SITES": {site.netloc: FOUR},
            "CAPTCHA_DATASET": str(tmp_path / "captchas"),
            "CLOSESPIDER_ITEMCOUNT": 1,
            "CONCURRENT_REQUESTS": 64,
            "CONCURRENT_REQUESTS_PER_DOMAIN": 64,
            "TWISTED_REACTOR": "twisted.internet.selectreactor.SelectReactor",
            **of(service),
        }
        result = Process(Job([*other.pages(1), *pages], given)).result()
        assert not done.is_set()
        done.set()
    assert result.finish_reason == "closespider_itemcount"
    assert result.trouble == []
    assert len(result.items) == 1
    assert len(service.readings) == THREADS


def test_an_image_that_neither_side_can_read_is_the_site_s_fault(
    crawl: Callable[..., Crawl], service: ReadingService
) -> None:
    class Broken(Gate):
        def image(self, session: Session, seen: Seen) -> Answer:
            answer = super().image(session, seen)
            return Answer(b"GIF89a", content_type="image/gif") if self._images == 1 else answer

    with Broken() as site:
        result = crawl(site, 1, FOUR, **of(service))
    assert result.names == ["page 1"]
    assert result.captcha["failed/image_invalid"] == 1


def test_the_token_is_nowhere_but_with_the_service(service: ReadingService, tmp_path: Path) -> None:
    """Neither when all is well nor when the service refuses it and repeats it."""
    with Gate(every=1) as site:
        service.script += [service.read, no(429, TOKEN, Retry_After="1"), service.read]
        service.script += [no(status, f"{TOKEN}?") for status in (401, 422, 500, 302, 200)]
        given = {
            "CAPTCHA_SITES": {site.netloc: FOUR},
            "CAPTCHA_DATASET": str(tmp_path / "captchas"),
            "LOG_LEVEL": "DEBUG",
            **of(service, CONCURRENT_REQUESTS=1),
        }
        crawl = Process(Job(site.pages(8), given))
        result = crawl.result()
    assert result.reasons == ["reader"] * 5
    assert len(service.script) == 0
    assert all(asked.headers["authorization"] == f"Bearer {TOKEN}" for asked in service.asked)
    for seen in site.seen:
        assert TOKEN not in f"{seen}"
    assert TOKEN not in "".join(crawl.log)
    assert TOKEN not in str(result)
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or TOKEN.encode() not in file.read_bytes()
