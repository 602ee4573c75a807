"""The flow: which request waits, which solves, which is sent again, and nothing else."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

from scrapy import signals as scrapy_signals
from scrapy.downloadermiddlewares.httpcache import HttpCacheMiddleware
from scrapy.exceptions import DontCloseSpider, NotConfigured
from scrapy.http.request import NO_CALLBACK
from scrapy.utils.asyncio import create_looping_call
from scrapy.utils.defer import deferred_from_coro
from scrapy.utils.httpobj import urlparse_cached

from scrapy_captcha import query, signals, stats
from scrapy_captcha.address import is_redirect, netloc_of
from scrapy_captcha.breaker import Breaker
from scrapy_captcha.challenge import find
from scrapy_captcha.client import MARK, Client, Visit, proxy_of
from scrapy_captcha.config import Settings
from scrapy_captcha.errors import AttemptFailed, CaptchaUnsolved
from scrapy_captcha.learning import Learning
from scrapy_captcha.parking import Parking
from scrapy_captcha.session import Session, Sessions, Turn, Want
from scrapy_captcha.solver import Solver, Stopping
from scrapy_captcha.tasks import QueryForm, Wall

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Self

    from scrapy import Request
    from scrapy.crawler import Crawler
    from scrapy.http import Response

    from scrapy_captcha.challenge import Challenge
    from scrapy_captcha.config import SiteRule
    from scrapy_captcha.tasks import Task

logger = logging.getLogger(__name__)

#: Longest wait, in seconds, for the responses that are on their way when a solve begins.
DRAIN_SECONDS = 10.0
#: How often waiting requests are looked after.
TICK_SECONDS = 0.25


@dataclass(frozen=True)
class _Ticket:
    """How a request was sent: by which session, in which of its epochs."""

    session: Session
    epoch: int


class CaptchaMiddleware:
    """Delivers the pages behind text-image captchas of the sites listed in ``CAPTCHA_SITES``.

    :ivar client: sends our own requests; stopped when the spider is closing
    """

    def __init__(self, crawler: Crawler) -> None:
        self._settings = Settings.from_settings(crawler.settings)
        if not self._settings.sites:
            raise NotConfigured("CAPTCHA_SITES lists no site")
        self._crawler = crawler
        assert crawler.stats is not None
        self._counters = stats.Counters(crawler.stats)
        self.client = Client(crawler)
        self._learning = Learning(crawler, self._settings, self._counters)
        self._solver = Solver(crawler, self._counters, self.client, self._learning, self._stopping)
        self._breakers = {key: Breaker(self._settings.breaker) for key in self._settings.sites}
        self._sessions = Sessions(self._concurrency)
        self._tickets: WeakKeyDictionary[Request, _Ticket] = WeakKeyDictionary()
        self._handed_back: WeakSet[Request] = WeakSet()
        self._waited_for: set[Session] = set()
        self._parking = Parking(crawler)
        self._tick = create_looping_call(self._look_after)

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Read the settings and load the models.

        :raises NotConfigured: when no site is listed
        :raises ConfigError: when a setting is wrong
        :raises BundleError: when a model cannot be loaded
        """
        middleware = cls(crawler)
        connect = crawler.signals.connect
        connect(middleware.spider_opened, signal=scrapy_signals.spider_opened)
        connect(middleware.spider_idle, signal=scrapy_signals.spider_idle)
        connect(middleware.spider_closed, signal=scrapy_signals.spider_closed)
        return middleware

    async def spider_opened(self) -> None:
        """Go on from what is stored, and begin to look after waiting requests."""
        try:
            await self._learning.opened()
        finally:
            self._tick.start(TICK_SECONDS, now=False)

    def spider_idle(self) -> None:
        """Keep the spider open for the requests that wait outside of the downloader's count."""
        if self._parking.parked:
            raise DontCloseSpider

    async def spider_closed(self) -> None:
        """Stop looking after waiting requests, and end what runs and is open."""
        if self._tick.running:
            self._tick.stop()
        self._parking.close()
        await self._learning.closed()

    # -- the flow

    def process_request(
        self, request: Request
    ) -> Coroutine[Any, Any, Request | Response | None] | None:
        """Let a request go, unless its session's captcha is being solved: then it waits."""
        if MARK in request.meta:
            return None
        netloc = netloc_of(request)
        self._parking.see(netloc)
        rule = self._settings.rule_for(netloc)
        is_query = query.META in request.meta
        if rule is None:
            if is_query:
                raise CaptchaUnsolved("not_listed", f"CAPTCHA_SITES does not list {request.url}")
            return None
        if request in self._handed_back:
            # somebody awaits it: it has not gone to the scheduler
            closing = CaptchaUnsolved("closing", "the spider is closing")
            raise self._unsolved(request, rule, closing)
        if request.meta.get("captcha") is False or _is_robots_txt(request):
            return None
        session = self._session(rule, request)
        self._check_breaker(request, rule, session)
        if is_query:
            return self._answer(request, rule, session)
        if session.turn_at_once(request):
            self._tickets[request] = _Ticket(session, session.epoch)
            return None
        return self._wait(request, rule, session)

    def process_response(
        self, request: Request, response: Response
    ) -> Response | Coroutine[Any, Any, Response | Request]:
        """Hand on an ordinary page; pass the wall that another one is."""
        rule = self._settings.rule_for(netloc_of(request))
        if rule is None:
            return response
        if MARK in request.meta:
            if response.status >= 400 and self._find(response, rule) is not None:
                request.meta["dont_retry"] = True  # a wall, not a server in trouble
            return response
        if request.meta.get("captcha") is False or query.META in request.meta:
            return response
        challenge = self._find(response, rule)
        ticket = self._tickets.pop(request, None) or _Ticket(self._session(rule, request), -1)
        if _is_robots_txt(request) and ticket.session.solving:
            return response  # the solve may be what waits for it
        ticket.session.land(request, challenge is not None, ticket.epoch)
        if challenge is None:
            return response
        epoch = -1 if "cached" in response.flags else ticket.epoch
        return self._pass(request, challenge, rule, ticket.session, epoch)

    def process_exception(self, request: Request, exception: Exception) -> None:  # noqa: ARG002
        """A request that came to nothing is on its way no more."""
        ticket = self._tickets.pop(request, None)
        if ticket is not None:
            ticket.session.lost(request)

    async def _wait(self, request: Request, rule: SiteRule, session: Session) -> Request | None:
        """Hold a request back until its session may send again."""
        with self._parking.park(request):
            self._waited_for.add(session)
            turn = await session.turn(request, Want.PAGE, session.epoch)
        if turn is Turn.STOP:
            return self.hand_back(request)
        try:
            self._check_breaker(request, rule, session)
        except CaptchaUnsolved:
            session.lost(request)
            raise
        self._tickets[request] = _Ticket(session, session.epoch)
        return None

    async def _pass(
        self, request: Request, challenge: Challenge, rule: SiteRule, session: Session, epoch: int
    ) -> Response | Request:
        """Get the page behind a wall: solve, or wait until somebody has and ask again."""
        self._counters.add(rule.site, stats.DETECTED)
        self._signal(
            signals.challenge_detected, request=request, response=challenge.response, site=rule.site
        )
        with self._parking.park(request):
            while True:
                landed = session.landed
                self._waited_for.add(session)
                turn = await session.turn(request, Want.PASS, epoch)
                if turn is Turn.STOP:
                    return self.hand_back(request)
                if turn is Turn.SOLVE:
                    return await self._solve_wall(request, challenge, rule, session, landed)
                epoch = session.epoch
                self._counters.add(rule.site, stats.REPLAYED)
                try:
                    page = await self.client.replay(Visit(request, rule))
                except AttemptFailed as e:
                    session.lost(request)
                    if self._stopping():
                        return self.hand_back(request)
                    raise self._unsolved(request, rule, _because(e)) from e
                again = self._find(page, rule)
                session.land(request, again is not None, epoch)
                if again is None:
                    return self._delivered(request, page)
                challenge = again

    async def _solve_wall(
        self, request: Request, challenge: Challenge, rule: SiteRule, session: Session, landed: int
    ) -> Response | Request:
        try:
            await session.drained(DRAIN_SECONDS)
            # what came later may have brought another session cookie
            fresh = session.landed == landed and "cached" not in challenge.response.flags
            wall = Wall(self.client, self._visit(request, rule), challenge, fresh)
            page = await self._solve(request, rule, wall)
            if page is None:
                return self.hand_back(request)
            session.solved()
        finally:
            session.release()
        return self._delivered(request, page)

    async def _answer(
        self, request: Request, rule: SiteRule, session: Session
    ) -> Response | Request:
        """Submit a query form; the session's captcha belongs to one query at a time."""
        given = request.meta[query.META]
        with self._parking.park(request):
            self._waited_for.add(session)
            turn = await session.turn(request, Want.FORM, session.epoch)
            if turn is Turn.STOP:
                return self.hand_back(request)
            try:
                visit = self._visit(request, rule)
                form = QueryForm(self.client, visit, given["form"], given["formdata"])
                try:
                    page = await self._solve(request, rule, form)
                finally:
                    if form.gates_passed:
                        session.solved()
            finally:
                session.release()
        if page is None:
            return self.hand_back(request)
        page.request = request
        return page

    async def _solve(self, request: Request, rule: SiteRule, task: Task) -> Response | None:
        """Solve, and keep the breaker; ``None`` when the spider is closing."""
        breaker = self._breakers[rule.site]
        if breaker.is_open:
            raise self._unsolved(request, rule, CaptchaUnsolved("breaker_open", rule.site))
        try:
            page = await self._solver.solve(self._learning.sites[rule.site], task, breaker)
        except Stopping:
            return None
        except Exception as e:
            unsolved = e if isinstance(e, CaptchaUnsolved) else CaptchaUnsolved("error", repr(e))
            if unsolved is not e:
                logger.exception("Solving the captcha of %(site)s failed", {"site": rule.site})
            if breaker.fail():
                self._open_breaker(rule)
            raise self._unsolved(request, rule, unsolved) from e
        breaker.succeed()
        self._signal(signals.challenge_solved, request=request, response=page, site=rule.site)
        return page

    # -- helpers

    def _find(self, response: Response, rule: SiteRule) -> Challenge | None:
        """The challenge that a page is; whatever is odd about a page, the spider gets it."""
        try:
            return find(response, rule)
        except Exception:
            self._counters.add(rule.site, stats.failed("detection"))
            logger.exception("Cannot tell whether %(url)s is a wall", {"url": response.url})
            return None

    def _check_breaker(self, request: Request, rule: SiteRule, session: Session) -> None:
        """Fail a request at once when the breaker is open and its session stands at the wall."""
        if self._breakers[rule.site].refuses and (session.walled or query.META in request.meta):
            raise self._unsolved(request, rule, CaptchaUnsolved("breaker_open", rule.site))

    def _unsolved(self, request: Request, rule: SiteRule, e: CaptchaUnsolved) -> CaptchaUnsolved:
        self._counters.add(rule.site, stats.UNSOLVED)
        self._signal(signals.challenge_failed, request=request, site=rule.site, reason=e.reason)
        logger.log(
            logging.DEBUG if e.reason == "breaker_open" else logging.WARNING,
            "The captcha before %(request)s was not solved: %(e)s",
            {"request": request, "e": e},
            extra={"spider": self._crawler.spider},
        )
        return e

    def _open_breaker(self, rule: SiteRule) -> None:
        self._counters.add(rule.site, stats.BREAKER_OPEN)
        logger.error(
            "The captchas of %(site)s stay unsolved %(count)d times in a row: "
            "its pages fail from now on without being asked for",
            {"site": rule.site, "count": self._settings.breaker},
            extra={"spider": self._crawler.spider},
        )
        engine = self._crawler.engine
        if self._settings.close_spider and engine is not None and not self._stopping():
            deferred_from_coro(engine.close_spider_async(reason="captcha_unsolved"))

    def _delivered(self, request: Request, page: Response) -> Response | Request:
        """The page as the answer to the request that the spider made."""
        onward = self.client.elsewhere(request, page) if is_redirect(page) else page
        page.request = request
        if onward is not page:
            return onward
        cache = self._crawler.get_downloader_middleware(HttpCacheMiddleware)
        if (
            cache is not None
            and not request.meta.get("dont_cache")
            and cache.policy.should_cache_request(request)
            and cache.policy.should_cache_response(page, request)
        ):
            cache.storage.store_response(self._crawler.spider, request, page)
        return page

    def hand_back(self, request: Request) -> Request:
        """The request for the scheduler, now that the spider is closing; it is no duplicate."""
        again = request.replace(dont_filter=True)
        self._handed_back.add(again)
        return again

    def _session(self, rule: SiteRule, request: Request) -> Session:
        return self._sessions.of((rule.site, request.meta.get("cookiejar"), proxy_of(request)))

    def _concurrency(self) -> int:
        """How many requests of one session may be on their way."""
        get = self._crawler.settings.getint
        limits = [get("CONCURRENT_REQUESTS"), get("CONCURRENT_REQUESTS_PER_DOMAIN")]
        return min((limit for limit in limits if limit > 0), default=1000)

    def _visit(self, request: Request, rule: SiteRule) -> Visit:
        return Visit(request, rule, monotonic() + self._settings.timeout)

    def _stopping(self) -> bool:
        engine = self._crawler.engine
        return (
            engine is None
            or engine.spider is None
            or not engine.running
            or engine._slot is None
            or engine._slot.closing is not None
        )

    def _look_after(self) -> None:
        self._learning.tick()
        self._solver.tick()
        self._parking.tick()
        engine = self._crawler.engine
        assert engine is not None
        for request, ticket in list(self._tickets.items()):
            # sent on by somebody before it came back here, to where it was redirected for instance
            if request not in engine.downloader.active:
                del self._tickets[request]
                ticket.session.lost(request)
        for session in list(self._waited_for):
            if not session.waiting:
                self._waited_for.discard(session)
            elif self._stopping():
                session.stop()
            else:
                session.pump()

    def _signal(self, signal: object, **kwargs: Any) -> None:
        self._crawler.signals.send_catch_log(signal, **kwargs)


def _is_robots_txt(request: Request) -> bool:
    """Whether every other request to the host waits for this one: it must not wait for them."""
    return request.callback is NO_CALLBACK and urlparse_cached(request).path == "/robots.txt"


def _because(e: AttemptFailed) -> CaptchaUnsolved:
    return CaptchaUnsolved(e.reason, e.detail)
