"""Attempts at one captcha: image -> reading -> submission -> verdict, until one is right.

What differs between a wall and a query form stands in :mod:`scrapy_captcha.tasks`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from scrapy.utils.asyncio import run_in_thread

from scrapy_captcha import forms, signals, stats
from scrapy_captcha.address import check_form
from scrapy_captcha.attempts import ACCEPTED, REJECTED
from scrapy_captcha.challenge import Challenge
from scrapy_captcha.client import STOP_SECONDS
from scrapy_captcha.config import THRESHOLD_AFTER
from scrapy_captcha.errors import (
    AttemptFailed,
    CaptchaUnsolved,
    DatasetError,
    ImageError,
    ServiceError,
)
from scrapy_captcha.learning import Reading
from scrapy_captcha.tasks import Judgement
from scrapy_captcha.threads import GivenUp, Job
from scrapy_captcha.worth import PASSED_OVER

if TYPE_CHECKING:
    from collections.abc import Callable

    from scrapy.crawler import Crawler
    from scrapy.http import Response

    from scrapy_captcha.breaker import Breaker
    from scrapy_captcha.client import Client
    from scrapy_captcha.config import SiteRule
    from scrapy_captcha.learning import Learning
    from scrapy_captcha.recognizer import Reader, Recognition
    from scrapy_captcha.site import Site
    from scrapy_captcha.tasks import Task

logger = logging.getLogger(__name__)

IMAGES_PER_ATTEMPT = 3


class Stopping(Exception):  # noqa: N818 - not an error
    """The spider is closing; the request should go back where it came from."""


@dataclass
class _Budget:
    """How much one solve may still cost.

    :param openings: of the breaker, when the solve began
    """

    attempts: int
    images: int
    deadline: float
    breaker: Breaker
    openings: int
    passed_over: int = 0
    last: AttemptFailed | None = None

    @property
    def over(self) -> bool:
        """Whether it ends in the middle of an attempt."""
        return self.breaker.openings > self.openings or monotonic() >= self.deadline

    def check(self, site: str) -> None:
        if self.breaker.openings > self.openings:
            raise CaptchaUnsolved("breaker_open", site)
        if monotonic() >= self.deadline:
            last = f"; last: {self.last}" if self.last else ""
            raise CaptchaUnsolved("timeout", f"out of time{last}")
        if self.attempts <= 0 or self.images <= 0:
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
        learning: Learning,
        stopping: Callable[[], bool],
    ) -> None:
        self._crawler = crawler
        self._counters = counters
        self._client = client
        self._learning = learning
        self._stopping = stopping
        self._stop_by: float | None = None
        self._jobs: dict[Job[Recognition], _Budget] = {}

    def tick(self) -> None:
        """End what takes too long; called again and again while anything is on its way.

        When the spider is closing, a reading that has begun has a while, as our requests have.
        """
        stopping, now = self._stopping(), monotonic()
        if stopping:
            self._client.stop()
            self._stop_by = self._stop_by or now + STOP_SECONDS
        late = self._stop_by is not None and now >= self._stop_by
        for job, budget in list(self._jobs.items()):
            if budget.over or late or (stopping and job.waits):
                job.give_up()

    async def solve(self, site: Site, task: Task, breaker: Breaker) -> Response:
        """Answer a captcha until the site accepts.

        :param breaker: when it opens meanwhile, for other solves that failed, this one ends, too
        :return: the page that was asked for
        :raises CaptchaUnsolved: when attempts or time have run out, or none can succeed
        :raises Stopping: when the spider is closing
        """
        rule = site.rule
        budget = _Budget(
            rule.max_attempts,
            IMAGES_PER_ATTEMPT * rule.max_attempts,
            task.visit.deadline,
            breaker,
            breaker.openings,
        )
        started = monotonic()
        challenge = task.challenge
        try:
            while True:
                if self._stopping():
                    raise Stopping
                budget.check(rule.site)
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
                except GivenUp:
                    continue  # why, is found above
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
        rule = site.rule
        budget.images -= 1
        reading = await self._read(site, task, challenge, budget)
        canary = site.canary(reading.recognition)
        if canary is not None:
            budget.attempts += 1
            budget.images += 1
            return await self._send_canary(site, task, challenge, reading, canary)
        recognition = reading.recognition
        if budget.images > 0 and await self._too_unsure(site, recognition, budget.passed_over):
            budget.attempts += 1
            budget.passed_over += 1
            self._counters.add(rule.site, stats.SKIPPED)
            self._signal(site, "skipped", recognition, "")
            return Judgement(False, challenge=_refreshed(challenge, rule))
        budget.passed_over = 0
        submission = _filled(rule, task, challenge, recognition.text)
        self._counters.add(rule.site, stats.SUBMITTED)
        judgement = await self._submit(task, challenge, submission)
        budget.last = None
        if judgement.accepted is None:
            return judgement
        await self._learning.judged(site, reading, judgement.accepted)
        self._warn(site)
        verdict = ACCEPTED if judgement.accepted else REJECTED
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

    async def _send_canary(
        self,
        site: Site,
        task: Task,
        challenge: Challenge,
        reading: Reading,
        wrong: str,
    ) -> Judgement:
        """Submit what is known to be wrong; it is no attempt at the captcha and counts as none.

        What it brought is the page asked for only if the site let us in and what lies behind does
        not depend on the answer.
        """
        accepted = None
        try:
            submission = _filled(site.rule, task, challenge, wrong)
            judgement = await self._submit(task, challenge, submission)
            accepted = judgement.accepted
        finally:
            await self._learning.canary_judged(site, reading, wrong, accepted)
            self._warn(site)
        if judgement.page is None or (accepted and not task.page_is_reply):
            return judgement
        return replace(judgement, page=None, challenge=None)

    async def _submit(
        self, task: Task, challenge: Challenge, submission: forms.Submission
    ) -> Judgement:
        response, redirected = await self._client.submit(
            task.visit, challenge.response.url, submission
        )
        return await task.judge(challenge, response, redirected)

    async def _read(self, site: Site, task: Task, challenge: Challenge, budget: _Budget) -> Reading:
        url = challenge.response.url
        if challenge.image_url is None:
            raise AttemptFailed("image_missing", f"no captcha image on {url}", final=True)
        if challenge.field is None:
            raise AttemptFailed("field_missing", f"no input for the answer on {url}", final=True)
        if challenge.form is None and site.rule.submit is None:
            raise AttemptFailed("form_missing", f"no form on {url}, no submit", final=True)
        image = await self._client.image(task.visit, challenge.image_url, url)
        arm = site.lineup.next_arm()
        try:
            recognition = await self._recognize(arm.reader, image, site.rule, budget)
        except ImageError as e:
            raise AttemptFailed("image_invalid", str(e)) from None
        except ServiceError as e:  # it has been asked again where that makes sense
            raise AttemptFailed("reader", str(e), final=True) from None
        return Reading(image, recognition, arm, 1 + budget.passed_over)

    async def _recognize(
        self, reader: Reader, image: bytes, rule: SiteRule, budget: _Budget
    ) -> Recognition:
        if reader.threads is None:
            return await run_in_thread(reader.read, image, rule.charset, rule.length)
        read = partial(reader.read, image, rule.charset, rule.length, budget.deadline)
        job = Job(reader.threads, read)
        self._jobs[job] = budget
        try:
            return await job.result()
        finally:
            del self._jobs[job]

    async def _too_unsure(self, site: Site, recognition: Recognition, passed_over: int) -> bool:
        """Below ``min_confidence``, once the site has judged enough answers."""
        least = site.rule.min_confidence
        if least is None:
            return passed_over < PASSED_OVER and recognition.confidence < site.worth_submitting
        if recognition.confidence >= least:
            return False
        try:
            return await site.count_attempts() >= THRESHOLD_AFTER
        except DatasetError as e:
            self._learning.stop_storing(site, e)
            return False

    def _warn(self, site: Site) -> None:
        warning = site.warning()
        if warning is not None:
            extra = {"spider": self._crawler.spider}
            logger.warning("%s: %s", site.key, warning, extra=extra)

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


def _filled(rule: SiteRule, task: Task, challenge: Challenge, text: str) -> forms.Submission:
    """What to send; the rule's ``submit`` outranks the form's action."""
    data = {**task.data(), challenge.field or "": _in_case(text, rule.case)}
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
