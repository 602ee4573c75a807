"""What a captcha stands before, and so how to ask for it and how to read the site's verdict."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Protocol

from scrapy.http import TextResponse

from scrapy_captcha.address import is_redirect, same_page
from scrapy_captcha.challenge import WALL_STATUSES, Challenge, find, locate
from scrapy_captcha.errors import AttemptFailed
from scrapy_captcha.patterns import PatternTimeout

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scrapy.http import Response

    from scrapy_captcha.client import Client, Visit
    from scrapy_captcha.config import Condition, SiteRule


@dataclass(frozen=True)
class Judgement:
    """What the site made of an answer.

    :param accepted: ``None`` when it cannot be told
    :param page: what was asked for, if it has come
    :param challenge: what to answer next, if it is known
    """

    accepted: bool | None
    page: Response | None = None
    challenge: Challenge | None = None


class Task(Protocol):
    """A captcha that stands before something.

    :cvar page_is_reply: whether the page is the site's reply to the very answer that was submitted
    """

    page_is_reply: ClassVar[bool]
    visit: Visit
    challenge: Challenge | None

    async def ask(self) -> Challenge | Response:
        """Fetch the captcha afresh; a page when none is in the way any more."""

    def data(self) -> Mapping[str, str]:
        """What to fill in besides the answer."""

    async def judge(self, challenge: Challenge, response: Response, redirected: bool) -> Judgement:
        """Read the answer to a submission."""


class Wall:
    """A captcha that stands before a page: a gate, or what a redirect led to.

    :ivar challenge: the captcha at hand, or ``None`` to fetch it afresh
    """

    page_is_reply: ClassVar[bool] = False

    def __init__(self, client: Client, visit: Visit, challenge: Challenge, fresh: bool) -> None:
        self.visit = visit
        self.challenge = challenge if fresh else None
        self._client = client
        self._url = challenge.response.url

    async def ask(self) -> Challenge | Response:
        """Fetch the page again; a POST is not sent twice for it, its wall's address will do."""
        if self.visit.request.method != "GET":
            response = await self._client.get(self.visit, self._url)
            challenge = find(response, self.visit.rule)
            if challenge is not None:
                return challenge
        response = await self._client.replay(self.visit, own_slot=True)
        return find(response, self.visit.rule) or response

    def data(self) -> Mapping[str, str]:
        """What the rule says, login fields for instance."""
        return self.visit.rule.formdata

    async def judge(self, challenge: Challenge, response: Response, redirected: bool) -> Judgement:
        """Rules first; the same captcha again; the page itself; else ask for the page."""
        rule, request = self.visit.rule, self.visit.request
        again = find(response, rule)
        accepted = _by_rules(rule, response)
        if accepted is None and again is not None and again.same_as(challenge):
            accepted = False
        if accepted is False:
            return Judgement(False, challenge=again)
        # without a redirect it may be the site's word on the answer, unless a rule says better
        arrived = (
            (redirected or bool(accepted))
            and request.method == "GET"
            and same_page(response.url, request.url)
        )
        if arrived and again is None and response.status < 400 and not _is_empty(response):
            return Judgement(True, page=response)
        if accepted is None and response.status >= 400:
            raise AttemptFailed(
                "protocol", f"{response.url} answered {response.status} and no captcha"
            )
        page = await self._client.replay(self.visit, own_slot=True)
        again = find(page, rule)
        if again is not None:
            return Judgement(bool(accepted), challenge=again)
        if accepted is None and (
            page.status in WALL_STATUSES or page.status >= 500 or _is_empty(page)
        ):
            return Judgement(None, page=page)  # a ban or a server in trouble is no verdict
        return Judgement(True, page=page)


class QueryForm:
    """A form that asks for a captcha each time it is submitted.

    :param css: which form of the page, when the captcha does not tell
    :param fields: what the spider filled in
    """

    page_is_reply: ClassVar[bool] = True

    def __init__(
        self, client: Client, visit: Visit, css: str | None, fields: Mapping[str, str]
    ) -> None:
        self.visit = visit
        self.challenge: Challenge | None = None
        self._client = client
        self._css = css
        self._fields = fields
        self._gate: Wall | None = None
        self.gates_passed = 0

    async def ask(self) -> Challenge | Response:
        """Fetch the form's page, for its hidden tokens are used once; or the gate before it."""
        response = await self._client.replay(self.visit, own_slot=True)
        challenge = locate(response, self.visit.rule, self._css, self._fields)
        gate = self._gate_on(response, challenge)
        self._gate = None
        if gate is not None:
            self._gate = Wall(self._client, self.visit, gate, fresh=True)
            return gate
        if challenge is None:
            detail = f"no form with a captcha on {response.url} (status {response.status})"
            raise AttemptFailed("form_missing", detail, final=response.status < 400)
        return challenge

    def data(self) -> Mapping[str, str]:
        """The rule's fields, and the spider's over them."""
        if self._gate is not None:
            return self._gate.data()
        return {**self.visit.rule.formdata, **self._fields}

    async def judge(self, challenge: Challenge, response: Response, redirected: bool) -> Judgement:
        """Rules first; the same form again; else it is the answer."""
        if self._gate is not None:
            judgement = await self._gate.judge(challenge, response, redirected)
            self.gates_passed += judgement.page is not None
            return replace(judgement, page=None)  # it was the gate's answer, not the query's
        accepted = _by_rules(self.visit.rule, response)
        again = locate(response, self.visit.rule, self._css, self._fields)
        if accepted is None and again is not None and again.same_as(challenge):
            accepted = False
        if accepted is False:
            return Judgement(False, challenge=again)
        if accepted is None and (
            response.status >= 400 or is_redirect(response) or self._gate_on(response, again)
        ):
            raise AttemptFailed("protocol", f"{response.url} answered {response.status}")
        return Judgement(None if accepted is None and _is_empty(response) else True, page=response)

    def _gate_on(self, response: Response, form: Challenge | None) -> Challenge | None:
        """The wall that a page is, unless it asks for what the spider filled in."""
        if form is not None and form.form is not None:
            controls = form.form.iter("input", "select", "textarea", "button")
            asks = any(control.get("name") in self._fields for control in controls)
            if self._css is not None or not self._fields or asks:
                return None
        return find(response, self.visit.rule)


def _is_empty(response: Response) -> bool:
    """Whether it says nothing at all, and so nothing of the captcha."""
    return response.status < 300 and not response.body.strip()


def _by_rules(rule: SiteRule, response: Response) -> bool | None:
    if not isinstance(response, TextResponse):
        return None
    rules: list[tuple[Condition | None, bool]] = [(rule.rejected, False), (rule.accepted, True)]
    for condition, verdict in rules:
        try:
            if condition is not None and condition.holds(response):
                return verdict
        except PatternTimeout as e:
            raise AttemptFailed("pattern", f"{e} on {response.url}", final=True) from None
    return None
