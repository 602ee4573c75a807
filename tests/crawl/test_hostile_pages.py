"""Pages that were made to take long: alone, and before, behind and in place of captchas."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sites import Answer, Gate, Seen, Session, redirect

if TYPE_CHECKING:
    from collections.abc import Callable

    from crawling import Crawl

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import hostile_pages  # noqa: E402

#: What took more than a second each before pages were looked at before they are parsed: two minutes
#: in all, and without an end for some with a selector.
WORST = (
    "one tag with many attributes",
    "hidden in values",
    "tags with many attributes",
    "deep, then ends of nothing",
    "deep, then inputs",
    "forms with two fields",
    "titles",
    "nested headings",
    "no encoding, accents",
    "noise",
)
SIZE = 1 << 20


def test_pages_that_took_minutes_are_judged_under_every_rule() -> None:
    options = [word for name in WORST for word in ("--page", name)]
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "hostile_pages.py", "--repeat", "1", *options],
        stdout=subprocess.PIPE,
        check=True,
        timeout=100,
        text=True,
    )
    *pages, slowest = map(json.loads, done.stdout.splitlines())
    assert [page["page"] for page in pages] == list(WORST)
    assert all(len(page["milliseconds"]) == len(hostile_pages.RULES) for page in pages)
    assert slowest["milliseconds"] > 0


def test_every_hostile_page_is_judged_without_an_error() -> None:
    rules = {name: hostile_pages.rule_of(keys) for name, keys in hostile_pages.RULES.items()}
    for name in hostile_pages.PAGES:
        found = hostile_pages.measure(hostile_pages.made(name, 16 << 10), rules, 1)
        begins = hostile_pages.made(name, 16 << 10).startswith(hostile_pages.CAPTCHA)
        assert not begins or "no rule" in found["wall"], name
        assert not {"detect", "counting", "selectors"} & set(found["wall"]), name


class Hostile(Gate):
    """Its pages, and what it answers to a submission, are as bad as can be."""

    def __init__(self) -> None:
        super().__init__()
        self.bodies = [
            hostile_pages.made(name, SIZE).replace(hostile_pages.CAPTCHA, b"") for name in WORST
        ]

    def route(self, session: Session, seen: Seen) -> Answer:
        kind, _, number = seen.path.removeprefix("/").partition("/")
        if kind == "plain":
            return Answer(self.bodies[int(number)], content_type="text/html")
        return super().route(session, seen)

    def wall_html(self, session: Session, back_to: str) -> str:
        return super().wall_html(session, back_to) + "<!--" + "<p>" * 300_000

    def page(self, seen: Seen) -> Answer:
        body = self.bodies[int(seen.path.rpartition("/")[2]) % len(self.bodies)]
        return Answer(body, content_type="text/html")


def crawl_blindly(settings: dict[str, Any], urls: list[str]) -> dict[str, Any]:
    given = {
        "ADDONS": {"scrapy_captcha.Addon": 500},
        "CAPTCHA_DATASET": None,
        "METAREFRESH_ENABLED": False,  # it guesses encodings, which takes seconds
        "TELNETCONSOLE_ENABLED": False,
        "CONCURRENT_REQUESTS_PER_DOMAIN": 4,
        "LOG_LEVEL": "ERROR",
        **settings,
    }
    done = subprocess.run(
        [
            *(sys.executable, Path(__file__).with_name("hostile_pages_crawl.py")),
            *(json.dumps(given), json.dumps(urls)),
        ],
        capture_output=True,
        check=True,
        timeout=100,
        text=True,
    )
    assert "ERROR" not in done.stderr
    assert "Traceback" not in done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_a_crawl_delivers_hostile_pages_as_they_are_with_and_without_a_captcha() -> None:
    with Hostile() as site:
        plain = [f"{site.url}/plain/{number}" for number in range(len(WORST))]
        walled = [f"{site.url}/page/{number}" for number in range(len(WORST))]
        rule = {"accepted": "div.gate div.gate p.thanks", "rejected": "re:wrong.*code"}
        result = crawl_blindly({"CAPTCHA_SITES": {site.netloc: rule}}, plain + walled)
        digests = [hashlib.sha256(body).hexdigest() for body in site.bodies]
        assert [result["ended"][url] for url in plain + walled] == digests * 2
        assert len(site.accepted) == 1
    assert not [name for name in result["stats"] if name.startswith("captcha/failed")]
    assert result["busy"] < 20


class Wrong(Gate):
    """Says that an answer is wrong, at length."""

    def refused(self, session: Session, seen: Seen) -> Answer:
        return Answer(f"<p>{'wrong' * 100_000}</p>{self.wall_html(session, '/page/1')}")


@pytest.mark.parametrize("key", ["accepted", "rejected"])
def test_a_pattern_that_takes_too_long_fails_the_solve_and_says_so(
    crawl: Callable[..., Crawl], key: str
) -> None:
    with Wrong(accept=2) as site:
        result = crawl(site, 2, {key: "re:wrong.*code"}, CONCURRENT_REQUESTS=1)
    assert result.reasons == ["pattern"]
    assert result.names == ["page 2"]
    assert result.captcha["failed/pattern"] == 1
    assert "'wrong.*code' took more than 0.1 s on http://127.0.0.1" in result.failures[0]["text"]
    assert len(site.submissions) == 2


class Moves(Gate):
    """Its pages are elsewhere, at an address that is long."""

    def route(self, session: Session, seen: Seen) -> Answer:
        if seen.path.startswith("/go/"):
            return redirect(f"/page/{seen.path.removeprefix('/go/')}?{'a' * 5_000}-")
        return super().route(session, seen)

    def is_walled(self, session: Session) -> bool:
        return False


def test_a_redirect_that_takes_a_pattern_too_long_is_left_to_scrapy(
    crawl: Callable[..., Crawl],
) -> None:
    with Moves() as site:
        urls = [f"{site.url}/go/{number}" for number in range(1, 3)]
        result = crawl(site, urls, {"redirect": "(a|aa)+$"})
    assert result.names == ["page 1", "page 2"]
    assert result.captcha == {"failed/pattern": 2}
    assert sum("took more than 0.1 s" in line for line in result.log) == 2
