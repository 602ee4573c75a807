"""What a site answers to a submission, and how it is told by a rule."""

from __future__ import annotations

import email
import email.policy
import io
import random
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image
from sites import Answer, Gate, Seen, Session, as_json, redirect

from scrapy_captcha.attempts import REJECTED
from scrapy_captcha.bundle import open_bundle
from scrapy_captcha.dataset import Dataset

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from crawling import Crawl


def verdicts(result: Crawl) -> list[str]:
    return [signal[1] for signal in result.signals if signal[0] == "attempt_finished"]


class ByJson(Gate):
    """Answers every submission with status 200 and the verdict in JSON."""

    def passed(self, session: Session, seen: Seen) -> Answer:
        return as_json({"code": 200})

    def refused(self, session: Session, seen: Seen) -> Answer:
        return as_json({"code": 400})


class ByText(Gate):
    """Rejects on a page without a form."""

    def refused(self, session: Session, seen: Seen) -> Answer:
        return Answer("<p>Wrong. <a href=/>Back</a></p>")


class ByRedirect(Gate):
    """Sends a rejected visitor back to a captcha page of its own."""

    def refused(self, session: Session, seen: Seen) -> Answer:
        return redirect("/captcha?error=1")


class Elsewhere(Gate):
    """Sends an accepted visitor to a page that nobody asked for."""

    def passed(self, session: Session, seen: Seen) -> Answer:
        return redirect("/welcome")

    def route(self, session: Session, seen: Seen) -> Answer:
        if seen.path == "/welcome":
            return Answer("<h1>Welcome</h1>")
        return super().route(session, seen)


class InPlace(Gate):
    """Answers an accepted submission with the page itself, under the address of the form."""

    def passed(self, session: Session, seen: Seen) -> Answer:
        return self.page(seen)


@pytest.mark.parametrize("kind", [Gate, ByJson, ByText, ByRedirect, Elsewhere, InPlace])
def test_a_verdict_is_understood_without_a_rule(
    crawl: Callable[..., Crawl], kind: type[Gate]
) -> None:
    with kind(accept=3) as site:
        result = crawl(site, 4)
    assert result.names == ["page 1", "page 2", "page 3", "page 4"]
    assert len(site.submissions) == 3
    assert verdicts(result) == ["rejected", "rejected", "accepted"]


class Deceptive(Gate):
    """Shows a captcha to whom it accepts, and lets nobody see that it has rejected."""

    def passed(self, session: Session, seen: Seen) -> Answer:
        return Answer('<p class="ok">Thank you</p>' + self.wall_html(session, "/"))

    def refused(self, session: Session, seen: Seen) -> Answer:
        return redirect(self.field(seen, "next"))

    def wall_html(self, session: Session, back_to: str) -> str:
        return super().wall_html(session, back_to) + '<p class="no">Try again</p>'


@pytest.mark.parametrize(
    "rule",
    [
        {"accepted": ".ok"},
        {"accepted": "re:Thank (you|them)"},
        {"accepted": ".ok", "rejected": "h1.error"},
    ],
)
def test_the_accepted_rule_outranks_the_captcha_that_comes_back(
    crawl: Callable[..., Crawl], rule: dict[str, str]
) -> None:
    with Deceptive(accept=2) as site:
        result = crawl(site, 3, rule)
    assert result.names == ["page 1", "page 2", "page 3"]
    assert len(site.submissions) == 2
    assert verdicts(result) == ["rejected", "accepted"]


class Polite(Gate):
    """Rejects with a page that could be the one that was asked for, at its address."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sorry: set[str] = set()

    def refused(self, session: Session, seen: Seen) -> Answer:
        self.sorry.add(session.sid)
        return redirect(self.field(seen, "next"))

    def route(self, session: Session, seen: Seen) -> Answer:
        if seen.path.startswith("/page/") and session.sid in self.sorry:
            self.sorry.remove(session.sid)
            return Answer('<h1 class="name sorry">Sorry, that was wrong</h1>')
        return super().route(session, seen)


@pytest.mark.parametrize("rule", [{"rejected": "h1.sorry"}, {"rejected": "re:(?i)SORRY, that"}])
def test_the_rejected_rule_tells_a_rejection_at_once(
    crawl: Callable[..., Crawl], rule: dict[str, str]
) -> None:
    with Polite(accept=3) as site:
        result = crawl(site, 3, rule)
    assert result.names == ["page 1", "page 2", "page 3"]
    assert verdicts(result) == ["rejected", "rejected", "accepted"]


def test_a_pattern_reads_json_and_a_selector_does_not_stumble_over_it(
    crawl: Callable[..., Crawl],
) -> None:
    with ByJson(accept=2) as site:
        rule = {"rejected": 're:"code": 400', "accepted": "p.accepted"}
        result = crawl(site, 2, rule)
    assert result.names == ["page 1", "page 2"]
    assert verdicts(result) == ["rejected", "accepted"]


class Stale(Gate):
    """Has lost its first forms by the time they come back."""

    expired = 2

    def verify(self, session: Session, seen: Seen) -> Answer:
        if len(self.submissions) <= self.expired:
            return Answer("<p>The form has expired</p>", 419)
        return super().verify(session, seen)


def test_an_error_without_a_verdict_is_a_failed_attempt_and_tried_again(
    crawl: Callable[..., Crawl],
) -> None:
    with Stale() as site:
        result = crawl(site, 3)
    assert result.names == ["page 1", "page 2", "page 3"]
    assert result.captcha["failed/protocol"] == 2
    assert "rejected" not in result.captcha
    assert verdicts(result) == ["failed", "failed", "accepted"]


def test_a_site_that_never_gives_a_verdict_costs_the_allowed_attempts(
    crawl: Callable[..., Crawl],
) -> None:
    with Stale() as site:
        site.expired = 1000
        result = crawl(site, 1, {"max_attempts": 5})
    assert result.reasons == ["protocol"]
    assert len(site.submissions) == 5
    assert result.captcha["failed/protocol"] == 5
    assert result.captcha["submitted"] == 5


# -- how it is read and sent


@pytest.mark.parametrize(
    ("case", "allowed"), [("upper", "ABCDEF"), ("lower", "abcdef"), ("as-is", "abcdef")]
)
def test_the_charset_bounds_the_answer_and_the_case_is_as_the_rule_says(
    crawl: Callable[..., Crawl], case: str, allowed: str
) -> None:
    with Gate(accept=3) as site:
        result = crawl(site, 1, {"case": case, "charset": "ABCDEF", "length": 4})
    assert result.names == ["page 1"]
    answers = [answer for _, answer in site.rejected + site.accepted]
    assert len(answers) == 3
    for answer in answers:
        assert len(answer) == 4
        assert set(answer) <= set(allowed)


def test_the_submit_rule_says_where_when_no_form_does(crawl: Callable[..., Crawl]) -> None:
    class Scripted(Gate):
        def wall_html(self, session: Session, back_to: str) -> str:
            return (
                "<div id=captcha><img src=/captcha.png><input name=code>"
                "<button onclick=send()>OK</button></div>"
            )

    with Scripted(accept=2) as site:
        rule = {
            "detect": "#captcha",
            "submit": "/verify",
            "field": "code",
            "formdata": {"next": "/page/1"},
        }
        result = crawl(site, 2, rule)
    assert result.names == ["page 1", "page 2"]
    assert [set(seen.form) for seen in site.submissions] == [{"code", "next"}] * 2


def test_the_submit_rule_outranks_the_form_s_action(crawl: Callable[..., Crawl]) -> None:
    class Misleading(Gate):
        def wall_html(self, session: Session, back_to: str) -> str:
            return super().wall_html(session, back_to).replace('action="/verify"', 'action="/x"')

    with Misleading() as site:
        result = crawl(site, 1, {"submit": "/verify"})
    assert result.names == ["page 1"]
    assert site.submissions[0].form.keys() == {"next", "csrf", "code"}


def test_a_multipart_form_is_sent_as_multipart(crawl: Callable[..., Crawl]) -> None:
    class Multipart(Gate):
        def wall_html(self, session: Session, back_to: str) -> str:
            return (
                super()
                .wall_html(session, back_to)
                .replace("<form", '<form enctype="multipart/form-data"')
            )

        def field(self, seen: Seen, name: str) -> str:
            head = f"Content-Type: {seen.headers['content-type']}\r\n\r\n".encode()
            message = email.message_from_bytes(head + seen.body, policy=email.policy.HTTP)
            for part in message.iter_parts():
                if part.get_param("name", header="Content-Disposition") == name:
                    content = part.get_content()
                    return str(content).rstrip("\n")
            return ""

    with Multipart(accept=2) as site:
        result = crawl(site, 3, {"length": 4})
    assert result.names == ["page 1", "page 2", "page 3"]
    assert len(site.accepted) == len(site.rejected) == 1
    assert len(site.accepted[0][1]) == 4


# -- the threshold


def judged_before(dataset: Path, netloc: str, count: int) -> None:
    """A dataset that says how many answers an earlier crawl has had judged."""
    site = Dataset(dataset).site(netloc)
    for number in range(count):
        site.store(b"GIF89a%d" % number, "abcd", 0.5, "0" * 16, REJECTED)
    site.close()


def test_readings_below_the_threshold_are_submitted_until_a_site_is_known(
    crawl: Callable[..., Crawl],
) -> None:
    with Gate(accept=3) as site:
        result = crawl(site, 1, {"min_confidence": 1.0})
    assert result.names == ["page 1"]
    assert verdicts(result) == ["rejected", "rejected", "accepted"]


@pytest.mark.parametrize("rule", [{}, {"refresh": "/fresh/captcha.png"}])
def test_below_the_threshold_a_new_image_is_fetched_but_not_for_ever(
    crawl: Callable[..., Crawl], tmp_path: Path, rule: dict[str, object]
) -> None:
    with Gate() as site:
        judged_before(tmp_path / "captchas", site.netloc, 100)
        result = crawl(site, 1, {"min_confidence": 1.0, "max_attempts": 2, **rule})
    assert result.names == ["page 1"]
    assert result.captcha["skipped"] == 5
    assert verdicts(result) == ["skipped"] * 5 + ["accepted"]
    if rule:
        assert len(site.requests("/captcha.png")) == 1
        assert len(site.requests("/fresh/captcha.png")) == 5
        assert site.walls == 1
    else:
        assert len(site.requests("/captcha.png")) == 6
        assert site.walls == 6


class Easy(Gate):
    """Every page behind a captcha of its own, and every answer is right.

    :ivar plain: so many of them can be read; nobody can read the others
    """

    plain = 0

    def new_image(self, session: Session) -> bytes:
        super().new_image(session)
        if self._images <= self.plain:
            golden = open_bundle("alnum4").manifest.golden
            session.images[-1] = golden[self._images % len(golden)].image
            return session.images[-1]
        pixels = random.Random(self._images).randbytes(90 * 32)
        file = io.BytesIO()
        Image.frombytes("L", (90, 32), pixels).save(file, "PNG")
        session.images[-1] = file.getvalue()
        return session.images[-1]

    def judge(self, session: Session, answer: str) -> bool:
        session.submissions, session.code_is_out = self.accept - 1, True
        return super().judge(session, answer)


def test_unlikely_readings_are_passed_over_where_the_site_accepts_most_answers(
    crawl: Callable[..., Crawl],
) -> None:
    with Easy(every=1) as site:
        site.plain = 20
        result = crawl(site, 24, {"length": 4}, CONCURRENT_REQUESTS=1)
    assert len(result.items) == 24
    assert "skipped" not in verdicts(result)[:20]
    assert set(verdicts(result)[20:]) == {"skipped", "accepted"}
    assert result.captcha["accepted"] == 24
    runs = "".join("s" if each == "skipped" else " " for each in verdicts(result)).split()
    assert max(map(len, runs)) == 2  # then the third is submitted whatever it is


def test_none_is_passed_over_where_the_site_accepts_what_the_reader_is_unsure_of(
    crawl: Callable[..., Crawl],
) -> None:
    """Its confidence is too low, then."""
    with Easy(every=1) as site:
        result = crawl(site, 30, CONCURRENT_REQUESTS=1)
    assert verdicts(result) == ["accepted"] * 30


def test_with_a_threshold_of_zero_none_is_passed_over(crawl: Callable[..., Crawl]) -> None:
    with Easy(every=1) as site:
        result = crawl(site, 24, {"min_confidence": 0.0}, CONCURRENT_REQUESTS=1)
    assert verdicts(result) == ["accepted"] * 24
