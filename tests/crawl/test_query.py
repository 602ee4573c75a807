"""``captcha_form``: each query has its own captcha, and gets the answer to its own question."""

from __future__ import annotations

import html
import secrets
from typing import TYPE_CHECKING, Any

import pytest
from scrapy.http import HtmlResponse
from sites import Answer, Gate, Plain, Seen, Session, redirect

from scrapy_captcha import captcha_form

if TYPE_CHECKING:
    from collections.abc import Callable

    from crawling import Crawl


class Registry(Gate):
    """``/query`` is a form with a token for one use; a session has one code at a time.

    :param accept: every Nth submission of a session is right
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tokens: set[str] = set()
        self.stale = 0

    def is_walled(self, session: Session) -> bool:
        return False

    def route(self, session: Session, seen: Seen) -> Answer:
        if seen.path == "/query":
            return self.query(session, seen) if seen.method == "POST" else self.form()
        return super().route(session, seen)

    def form(self) -> Answer:
        token = secrets.token_hex(8)
        self.tokens.add(token)
        return Answer(
            "<title>Registry</title><form action=/search><input name=q></form>"
            f"<form id=q method=post action=/query><input type=hidden name=token value={token}>"
            "<input name=name><select name=kind><option value=a selected>A<option value=b>B"
            "</select><img src=/captcha.png><input name=code><button>Search</button></form>"
        )

    def query(self, session: Session, seen: Seen) -> Answer:
        fields = seen.form
        if fields["token"] not in self.tokens:
            self.stale += 1
            return self.form()
        self.tokens.remove(fields["token"])
        if not self.judge(session, fields["code"]):
            return self.form()
        return self.found(fields)

    def found(self, fields: dict[str, str]) -> Answer:
        name = html.escape(f"{fields['name']} {fields['kind']}")
        return Answer(f"<h1 class=name>{name}</h1>")

    @property
    def submissions(self) -> list[Seen]:
        return self.requests("/query", "POST")


def queries(site: Plain, *formdata: dict[str, str], **more: Any) -> list[dict[str, Any]]:
    listed = [{"formdata": fields, **more} for fields in formdata]
    return [{"url": f"{site.url}/query", "queries": listed}]


def people(count: int) -> list[dict[str, str]]:
    return [{"name": f"person {number}"} for number in range(count)]


@pytest.mark.parametrize("accept", [1, 2])
def test_each_query_gets_its_own_result(crawl: Callable[..., Crawl], accept: int) -> None:
    with Registry(accept=accept) as site:
        result = crawl(site, queries(site, *people(10)))
    assert result.names == [f"person {number} a" for number in range(10)]
    assert result.failures == []
    assert len(site.submissions) == 10 * accept
    assert len(site.accepted) == 10
    assert site.stale == 0
    assert result.captcha["accepted"] == 10
    assert result.captcha.get("rejected", 0) == 10 * (accept - 1)


def test_jars_have_their_queries_answered_side_by_side(crawl: Callable[..., Crawl]) -> None:
    with Registry(accept=2) as site:
        requests = []
        for jar in range(3):
            (request,) = queries(site, *people(3), priority=jar)
            requests.append({**request, "meta": {"cookiejar": jar}, "dont_filter": True})
        result = crawl(site, requests)
    assert len(result.items) == 9
    assert site.stale == 0
    assert {item["meta"]["cookiejar"] for item in result.items} == {0, 1, 2}
    assert len({seen.cookies["sid"] for seen in site.submissions}) == 3


def test_a_query_takes_what_any_request_takes(crawl: Callable[..., Crawl]) -> None:
    with Registry() as site:
        more = {"cb_kwargs": {"row": 7}, "priority": 3, "meta": {"mine": [1, 2]}}
        result = crawl(site, queries(site, {"name": "Ada & Bob", "kind": "b"}, **more))
    (item,) = result.items
    assert item["name"] == "Ada & Bob b"
    assert item["cb_kwargs"] == {"row": 7}
    assert item["priority"] == 3
    assert item["meta"]["mine"] == [1, 2]


def test_a_result_that_repeats_the_form_needs_the_accepted_rule(
    crawl: Callable[..., Crawl],
) -> None:
    class Repeating(Registry):
        def found(self, fields: dict[str, str]) -> Answer:
            body, form = super().found(fields).body, self.form().body
            assert isinstance(body, str)
            assert isinstance(form, str)
            return Answer(body + form)

    with Repeating(accept=2) as site:
        result = crawl(site, queries(site, *people(3)), {"accepted": "h1.name"})
    assert result.names == ["person 0 a", "person 1 a", "person 2 a"]
    assert len(site.submissions) == 6


def test_a_result_that_a_redirect_leads_to_is_the_answer(crawl: Callable[..., Crawl]) -> None:
    class Redirecting(Registry):
        def found(self, fields: dict[str, str]) -> Answer:
            return redirect(f"/page/{fields['name'].split()[1]}")

    with Redirecting(accept=2) as site:
        result = crawl(site, queries(site, *people(3)))
    assert result.names == ["page 0", "page 1", "page 2"]


def test_one_of_two_forms_with_a_captcha_is_named(crawl: Callable[..., Crawl]) -> None:
    class Double(Registry):
        def form(self) -> Answer:
            body = super().form().body
            assert isinstance(body, str)
            other = body.replace("id=q", "id=r").replace("action=/query", "action=/trap")
            return Answer(other + body)

    with Double(accept=2) as site:
        result = crawl(site, queries(site, *people(2), form="form#q"))
    assert result.names == ["person 0 a", "person 1 a"]
    assert site.requests("/trap") == []


def test_a_query_whose_answers_are_all_rejected_ends_at_its_errback(
    crawl: Callable[..., Crawl],
) -> None:
    with Registry(accept=0) as site:
        result = crawl(site, queries(site, *people(2)), {"max_attempts": 3})
    assert result.items == []
    assert result.reasons == ["attempts", "attempts"]
    assert len(site.submissions) == 6
    assert result.captcha["unsolved"] == 2


def test_a_query_of_a_site_that_is_not_listed_says_so(crawl: Callable[..., Crawl]) -> None:
    with Registry() as site:
        result = crawl(site, queries(site, *people(1)), CAPTCHA_SITES={"shop.example": {}})
    assert result.reasons == ["not_listed"]
    assert site.submissions == []


def test_a_form_page_without_the_form_fails_by_that_reason(crawl: Callable[..., Crawl]) -> None:
    class Bare(Registry):
        def form(self) -> Answer:
            return Answer("<p>Closed today</p>")

    with Bare() as site:
        result = crawl(site, queries(site, *people(1)))
    assert result.reasons == ["form_missing"]
    assert result.captcha["failed/form_missing"] == 1


def test_a_query_behind_a_gate_passes_the_gate_and_then_asks(crawl: Callable[..., Crawl]) -> None:
    class Gated(Registry):
        """Its gate falls again after three queries."""

        def is_walled(self, session: Session) -> bool:
            return not session.passed

        def route(self, session: Session, seen: Seen) -> Answer:
            if seen.path == "/query" and not session.passed:
                return self.wall(session, "/query")
            return super().route(session, seen)

        def found(self, fields: dict[str, str]) -> Answer:
            if fields["name"] == "person 2":
                for session in self.sessions.values():
                    session.passed = False
            return super().found(fields)

    with Gated(accept=2) as site:
        result = crawl(site, queries(site, *people(6)))
    assert result.names == [f"person {number} a" for number in range(6)]
    assert result.failures == []


def test_pages_of_the_site_are_crawled_beside_the_queries(crawl: Callable[..., Crawl]) -> None:
    with Registry(accept=2) as site:
        result = crawl(site, [*queries(site, *people(4)), *site.pages(10)])
    assert len(result.items) == 14
    assert len(site.accepted) == 4


@pytest.mark.parametrize("form", ["form[", "form:has(p img)", ""])
def test_a_form_is_named_by_a_selector_that_rules_may_have(form: str) -> None:
    response = HtmlResponse("http://shop.example/", body=b"<form>")
    with pytest.raises(ValueError, match="expected a CSS selector as form"):
        captcha_form(response, {"name": "Ada"}, form=form)
