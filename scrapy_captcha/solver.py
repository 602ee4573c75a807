"""Attempts at one captcha: image -> reading -> submission -> verdict, until one is right.

What differs between a wall and a query form stands in :class:`Wall` and :class:`QueryForm`; the
loop around them is :meth:`Solver.solve`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urljoin

from scrapy.http import TextResponse
from scrapy.utils.asyncio import run_in_thread

from scrapy_captcha import forms, signals, stats
from scrapy_captcha.attempts import ACCEPTED, REJECTED
from scrapy_captcha.challenge import Challenge, find, locate
from scrapy_captcha.client import AttemptFailed, Client, Visit, check_form, is_redirect, same_page
from scrapy_captcha.config import THRESHOLD_AFTER
from scrapy_captcha.errors import CaptchaUnsolved, DatasetError, ImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from scrapy.crawler import Crawler
    from scrapy.http import Response

    from scrapy_captcha.config import Condition, SiteRule
    from scrapy_captcha.dataset import SiteDataset
    from scrapy_captcha.recognizer import Reader, Recognition

logger = logging.getLogger(__name__)

IMAGES_PER_ATTEMPT = 3


class Stopping(Exception):  # noqa: N818 - not an error
    """The spider is closing; the request should go back where it came from."""


@dataclass
class Site:
    """What is known of a site in this crawl, by all of its sessions.

    :param dataset: where its attempts go; ``None`` keeps nothing
    :param attempts: judged ones, those of earlier crawls included; ``None`` before they are counted
    """

    rule: SiteRule
    reader: Reader
    dataset: SiteDataset | None
    attempts: int | None = None

    async def count_attempts(self) -> int:
        """How many answers the site has judged."""
        if self.attempts is None:
            self.attempts = 0
            if self.dataset is not None:
                self.attempts += await run_in_thread(self.dataset.count_attempts)
        return self.attempts


@dataclass(frozen=True)
class Judgement:
    """What the site made of an answer.

    :param page: what was asked for, if it has come
    :param challenge: what to answer next, if it is known
    """

    accepted: bool
    page: Response | None = None
    challenge: Challenge | None = None


class Task(Protocol):
    """A captcha that stands before something."""

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
        return find(response, self.visit.rule) or _in_order(response)

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
        if arrived and again is None and response.status < 400:
            return Judgement(True, page=response)
        if accepted is None and response.status >= 400:
            raise AttemptFailed(
                "protocol", f"{response.url} answered {response.status} and no captcha"
            )
        page = await self._client.replay(self.visit, own_slot=True)
        again = find(page, rule)
        if again is None:
            return Judgement(True, page=_in_order(page))
        return Judgement(bool(accepted), challenge=again)


class QueryForm:
    """A form that asks for a captcha each time it is submitted.

    :param css: which form of the page, when the captcha does not tell
    :param fields: what the spider filled in
    """

    def __init__(
        self, client: Client, visit: Visit, css: str | None, fields: Mapping[str, str]
    ) -> None:
        self.visit = visit
        self.challenge: Challenge | None = None
        self._client = client
        self._css = css
        self._fields = fields
        self._gate: Wall | None = None

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
        return Judgement(True, page=response)

    def _gate_on(self, response: Response, form: Challenge | None) -> Challenge | None:
        """The wall that a page is, unless it asks for what the spider filled in."""
        if form is not None and form.form is not None:
            named = set(form.form.xpath(".//@name"))
            if self._css is not None or not self._fields or named & self._fields.keys():
                return None
        return find(response, self.visit.rule)


def _in_order(page: Response) -> Response:
    """The page, unless the server is in trouble, which says nothing about an answer."""
    if page.status >= 500 or page.status == 429:
        raise AttemptFailed("protocol", f"{page.url} answered {page.status} and no captcha")
    return page


def _by_rules(rule: SiteRule, response: Response) -> bool | None:
    if not isinstance(response, TextResponse):
        return None
    rules: list[tuple[Condition | None, bool]] = [(rule.rejected, False), (rule.accepted, True)]
    for condition, verdict in rules:
        if condition is not None and condition.holds(response):
            return verdict
    return None


@dataclass
class _Budget:
    """How much one solve may still cost."""

    attempts: int
    images: int
    deadline: float
    last: AttemptFailed | None = None

    def check(self) -> None:
        if monotonic() >= self.deadline:
            last = f"; last: {self.last}" if self.last else ""
            raise CaptchaUnsolved("timeout", f"out of time{last}")
        if self.attempts <= 0:
            if self.last is not None:
                raise CaptchaUnsolved(self.last.reason, self.last.detail)
            raise CaptchaUnsolved("attempts", "every answer was rejected")


class Solver:
    """Passes captchas.

    :param stopping: whether the spider is closing
    """

    def __init__(
        self,
        crawler: Crawler,
        counters: stats.Counters,
        client: Client,
        stopping: Callable[[], bool],
    ) -> None:
        self._crawler = crawler
        self._counters = counters
        self._client = client
        self._stopping = stopping

    async def solve(self, site: Site, task: Task) -> Response:
        """Answer a captcha until the site accepts.

        :return: the page that was asked for
        :raises CaptchaUnsolved: when attempts or time have run out, or none can succeed
        :raises Stopping: when the spider is closing
        """
        rule = site.rule
        budget = _Budget(
            rule.max_attempts, IMAGES_PER_ATTEMPT * rule.max_attempts, task.visit.deadline
        )
        started = monotonic()
        challenge = task.challenge
        try:
            while True:
                if self._stopping():
                    raise Stopping
                budget.check()
                budget.attempts -= 1
                try:
                    if challenge is None:
                        asked = await task.ask()
                        if not isinstance(asked, Challenge):
                            return asked
                        challenge = asked
                    judgement = await self._attempt(site, task, challenge, budget)
                except AttemptFailed as e:
                    self._fail(site, e, budget)
                    challenge = None
                else:
                    if judgement.page is not None:
                        return judgement.page
                    challenge = judgement.challenge
        finally:
            self._counters.add(rule.site, stats.SECONDS, round(monotonic() - started, 3))

    def _fail(self, site: Site, e: AttemptFailed, budget: _Budget) -> None:
        if self._stopping():
            raise Stopping
        self._counters.add(site.rule.site, stats.failed(e.reason))
        self._signal(site, "failed", None, str(e))
        logger.debug("Attempt at %(site)s failed: %(e)s", {"site": site.rule.site, "e": e})
        budget.last = e
        if e.final:
            raise CaptchaUnsolved(e.reason, e.detail)

    async def _attempt(
        self, site: Site, task: Task, challenge: Challenge, budget: _Budget
    ) -> Judgement:
        rule, visit, page = site.rule, task.visit, challenge.response
        budget.images -= 1
        image, recognition = await self._read(site, visit, challenge)
        if await self._too_unsure(site, recognition) and budget.images > 0:
            budget.attempts += 1
            self._counters.add(rule.site, stats.SKIPPED)
            self._signal(site, "skipped", recognition, "")
            return Judgement(False, challenge=_refreshed(challenge, rule))
        answer = _in_case(recognition.text, rule.case)
        submission = _filled(rule, challenge, {**task.data(), challenge.field or "": answer})
        self._counters.add(rule.site, stats.SUBMITTED)
        response, redirected = await self._client.submit(visit, page.url, submission)
        judgement = await task.judge(challenge, response, redirected)
        budget.last = None
        verdict = ACCEPTED if judgement.accepted else REJECTED
        self._counters.add(rule.site, verdict)
        await self._keep(site, image, recognition, verdict)
        self._signal(site, verdict, recognition, "")
        logger.debug(
            "%(site)s %(verdict)s %(text)r (confidence %(confidence).2f)",
            {
                "site": rule.site,
                "verdict": verdict,
                "text": recognition.text,
                "confidence": recognition.confidence,
            },
        )
        return judgement

    async def _read(
        self, site: Site, visit: Visit, challenge: Challenge
    ) -> tuple[bytes, Recognition]:
        url = challenge.response.url
        if challenge.image_url is None:
            raise AttemptFailed("image_missing", f"no captcha image on {url}", final=True)
        if challenge.field is None:
            raise AttemptFailed("field_missing", f"no input for the answer on {url}", final=True)
        if challenge.form is None and site.rule.submit is None:
            raise AttemptFailed("form_missing", f"no form on {url}, no submit", final=True)
        image = await self._client.image(visit, challenge.image_url, url)
        try:
            recognition = await run_in_thread(
                site.reader.read, image, site.rule.charset, site.rule.length
            )
        except ImageError as e:
            raise AttemptFailed("image_invalid", str(e)) from None
        return image, recognition

    async def _too_unsure(self, site: Site, recognition: Recognition) -> bool:
        """Below ``min_confidence``, once the site has judged enough answers."""
        if recognition.confidence >= site.rule.min_confidence:
            return False
        try:
            return await site.count_attempts() >= THRESHOLD_AFTER
        except DatasetError as e:
            self._stop_storing(site, e)
            return False

    async def _keep(self, site: Site, image: bytes, recognition: Recognition, verdict: str) -> None:
        """Store a judged answer; when that fails, say so loudly, keep nothing more, crawl on."""
        if site.attempts is not None:
            site.attempts += 1
        if site.dataset is None:
            return
        try:
            await run_in_thread(
                site.dataset.store,
                image,
                recognition.text,
                recognition.confidence,
                site.reader.model_hash,
                verdict,
            )
        except DatasetError as e:
            self._stop_storing(site, e)
            return
        if verdict == ACCEPTED:
            self._counters.add(site.rule.site, stats.STORED)

    def _stop_storing(self, site: Site, e: DatasetError) -> None:
        site.dataset = None
        self._counters.add(site.rule.site, stats.failed("storage"))
        logger.error(
            "Nothing more of %(site)s will be stored in this crawl: %(e)s",
            {"site": site.rule.site, "e": e},
        )

    def _signal(
        self, site: Site, verdict: str, recognition: Recognition | None, detail: str
    ) -> None:
        self._crawler.signals.send_catch_log(
            signals.attempt_finished,
            site=site.rule.site,
            verdict=verdict,
            recognition=recognition,
            detail=detail,
        )


def _in_case(text: str, case: str) -> str:
    if case == "as-is":
        return text
    return text.upper() if case == "upper" else text.lower()


def _filled(rule: SiteRule, challenge: Challenge, data: Mapping[str, str]) -> forms.Submission:
    """What to send; the rule's ``submit`` outranks the form's action."""
    url = rule.submit and urljoin(challenge.response.url, rule.submit)
    if challenge.form is None:
        return forms.post(url or challenge.response.url, data)
    try:
        submission = forms.fill(challenge.response, challenge.form, data)
    except (ValueError, NotImplementedError, LookupError) as e:
        detail = f"the form on {challenge.response.url}: {e}"
        raise AttemptFailed("form_invalid", detail, final=True) from None
    submission = replace(submission, url=url) if url else submission
    check_form(rule, submission.url, challenge.response.url)
    return submission


def _refreshed(challenge: Challenge, rule: SiteRule) -> Challenge | None:
    """The same page with a new image, if the rule says where; else the page must come again."""
    if rule.refresh is None:
        return None
    return replace(challenge, image_url=urljoin(challenge.response.url, rule.refresh))
