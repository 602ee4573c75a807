"""Answers known to be wrong: what a spider and a site see of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from judges import Judge, Trainer
from sites import Answer, Session
from test_query import Registry, people, queries

from scrapy_captcha.attempts import read_attempts
from scrapy_captcha.bundle import open_bundle
from scrapy_captcha.naming import site_folder
from scrapy_captcha.recognizer import Recognizer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from crawling import Crawl
    from sites import Seen

RULE = {"min_confidence": 0, "max_attempts": 200, "canary_rate": 0.5}


@pytest.fixture(scope="module")
def readers() -> dict[str, Recognizer]:
    return {"shipped": Recognizer.load("alnum4")}


def test_a_query_gets_the_result_of_its_reading_though_the_site_accepts_a_canary(
    crawl: Callable[..., Crawl], tmp_path: Path
) -> None:
    class Echoing(Registry):
        def found(self, fields: dict[str, str]) -> Answer:
            return Answer(f"<h1 class=name>{fields['name']} {fields['code']}</h1>")

    with Echoing() as site:
        rule = {**RULE, "length": 4}
        result = crawl(site, queries(site, *people(20)), rule, CAPTCHA_MODEL="alnum4")
    lines = list(read_attempts(tmp_path / "captchas" / site_folder(site.netloc)))
    answered = {line.guess for line in lines if line.verdict in {"accepted", "quarantined"}}
    assert sorted(name.rpartition(" ")[0] for name in result.names) == sorted(
        person["name"] for person in people(20)
    )
    assert {name.rpartition(" ")[2] for name in result.names} <= answered
    assert result.captcha["canary"] >= 1
    assert len(site.submissions) == 20 + result.captcha["canary"]
    assert result.failures == []


def test_a_page_that_a_site_refuses_after_a_canary_is_asked_for_again(
    crawl: Callable[..., Crawl], readers: Any
) -> None:
    class Banning(Judge):
        """After a wrong answer the page says 403, once."""

        banned = False

        def refused(self, session: Session, seen: Seen) -> Answer:
            self.banned = True
            return Answer("<p>Thank you</p>")

        def route(self, session: Session, seen: Seen) -> Answer:
            if self.banned and seen.path.startswith("/page/"):
                self.banned = False
                return Answer("<h1>Forbidden</h1>", 403)
            return super().route(session, seen)

    with Banning(readers, {"shipped": 1.0}) as site:
        rule = {**RULE, "length": 4}
        result = crawl(site, 20, rule, CAPTCHA_MODEL="alnum4", CONCURRENT_REQUESTS=1)
    assert site.canaries >= 1
    assert len(result.items) == 20
    assert result.failures == []


def test_a_site_without_a_verdict_on_wrong_answers_is_named_once_and_sent_no_more_of_them(
    crawl: Callable[..., Crawl], tmp_path: Path, readers: Any
) -> None:
    class Mute(Judge):
        def refused(self, session: Session, seen: Seen) -> Answer:
            return Answer("wrong code", 400, "text/plain")

    trainer = Trainer(tmp_path, open_bundle("alnum4").folder)
    with Mute(readers, {"shipped": 1.0}) as site:
        rule = {**RULE, "length": 4, "canary_rate": 1e-9}
        more = {"CAPTCHA_MODEL": "alnum4", "CAPTCHA_RETRAIN_AFTER": 5, "CAPTCHA_BREAKER": 1000}
        result = crawl(site, 40, rule, trainer=trainer.command, **more)
    assert len(result.items) == 40
    assert site.canaries == 3
    assert trainer.requests == []
    (said,) = [line for line in result.log if "wrong answer" in line]
    assert "give the rule a `rejected`" in said
