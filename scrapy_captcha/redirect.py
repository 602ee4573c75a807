"""Redirects of listed sites, followed before RedirectMiddleware (600) reschedules them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from scrapy.exceptions import IgnoreRequest, NotConfigured

from scrapy_captcha import query, stats
from scrapy_captcha.address import (
    check_allowed,
    is_redirect,
    leads_to_wall,
    netloc_of,
    redirect_target,
)
from scrapy_captcha.client import MARK, Visit
from scrapy_captcha.config import Settings
from scrapy_captcha.errors import AttemptFailed
from scrapy_captcha.middleware import CaptchaMiddleware

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Self

    from scrapy import Request
    from scrapy.crawler import Crawler
    from scrapy.http import Response

    from scrapy_captcha.config import SiteRule

logger = logging.getLogger(__name__)


class CaptchaRedirectMiddleware:
    """Follows redirects of listed sites before RedirectMiddleware reschedules them.

    All pages of a site may redirect to one captcha page, and the duplicate filter would drop all
    but one without a word.
    """

    def __init__(self, crawler: Crawler) -> None:
        self._settings = Settings.from_settings(crawler.settings)
        if not self._settings.sites:
            raise NotConfigured("CAPTCHA_SITES lists no site")
        self._crawler = crawler

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Read the settings.

        :raises NotConfigured: when no site is listed
        """
        return cls(crawler)

    def process_response(
        self, request: Request, response: Response
    ) -> Response | Coroutine[Any, Any, Response | Request]:
        """Follow a redirect inline if it may lead to a wall."""
        if not is_redirect(response) or MARK in request.meta or query.META in request.meta:
            return response
        rule = self._settings.rule_for(netloc_of(request))
        captcha = self._crawler.get_downloader_middleware(CaptchaMiddleware)
        if rule is None or captcha is None or request.meta.get("captcha") is False:
            return response
        if rule.redirect is None:
            follow = captcha.client.may_follow(request, response)
        else:
            try:
                follow = leads_to_wall(response, rule)
            except AttemptFailed as e:
                return self._undecided(response, rule, e)
        return self._follow(request, response, rule, captcha) if follow else response

    def _undecided(self, response: Response, rule: SiteRule, e: AttemptFailed) -> Response:
        """Leave a redirect to Scrapy, for it cannot be told whether it leads to a wall."""
        assert self._crawler.stats is not None
        stats.Counters(self._crawler.stats).add(rule.site, stats.failed(e.reason))
        logger.warning("%s", e, extra={"spider": self._crawler.spider})
        return response

    async def _follow(
        self, request: Request, response: Response, rule: SiteRule, captcha: CaptchaMiddleware
    ) -> Response | Request:
        response.request = request
        try:
            end = await captcha.client.follow(Visit(request, rule), response, cached=True)
        except AttemptFailed as e:
            if e.reason == "closing":
                return captcha.hand_back(request)
            if e.reason == "pattern":
                return self._undecided(response, rule, e)
            raise (e.__cause__ or e) from None
        if end is response:
            return response
        if is_redirect(end):
            try:
                check_allowed(redirect_target(end) or "", end.url, "redirect")
            except AttemptFailed:
                onward = captcha.client.elsewhere(request, end)
                end.request = request
                return onward
            raise IgnoreRequest("max redirections reached")
        hop = end.request
        assert hop is not None
        meta = {
            **request.meta,
            "redirect_times": request.meta.get("redirect_times", 0) + 1,
            "redirect_urls": [*request.meta.get("redirect_urls", []), request.url],
            "redirect_reasons": [*request.meta.get("redirect_reasons", []), response.status],
        }
        end.request = request.replace(url=end.url, method=hop.method, body=hop.body, meta=meta)
        return end
