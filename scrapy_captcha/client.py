"""The plugin's own requests: inline, in the session of the page they are for, to its host alone.

They go through the whole middleware chain, but neither through the scheduler nor the duplicate
filter, and carry a marker that makes our own middleware let them pass.
"""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from scrapy import Request
from scrapy.downloadermiddlewares.redirect import RedirectMiddleware
from scrapy.exceptions import DownloadCancelledError, IgnoreRequest
from scrapy.http.request import NO_CALLBACK
from scrapy.utils.defer import deferred_from_coro, maybe_deferred_to_future
from twisted.internet.defer import CancelledError

from scrapy_captcha import data_url
from scrapy_captcha.address import (
    check_allowed,
    check_form,
    is_redirect,
    leads_to_wall,
    named_hosts,
    redirect_target,
    referer,
    same_origin,
    same_page,
)
from scrapy_captcha.challenge import REDIRECTED_TO_WALL
from scrapy_captcha.errors import AttemptFailed
from scrapy_captcha.image import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scrapy.crawler import Crawler
    from scrapy.http import Response
    from twisted.internet.defer import Deferred

    from scrapy_captcha.config import SiteRule
    from scrapy_captcha.forms import Submission

#: Key in the meta of our own requests.
MARK = "captcha_request"
MAX_HOPS = 20
#: How long our own requests may still take when the spider is closing.
STOP_SECONDS = 3.0
_CARRIED_META = (
    "cookiejar",
    "proxy",
    "_auth_proxy",
    "bindaddress",
    "dont_merge_cookies",
    "dont_obey_robotstxt",
    "playwright",
    "playwright_context",
)
_CARRIED_HEADERS = ("User-Agent", "Accept-Language", "Proxy-Authorization")
# CookiesMiddleware puts its own cookies in place of these, unless it is not to merge them
_CARRIED_TO_ORIGIN = ("Authorization", "Cookie")
_NOT_REPLAYED = (
    "Content-Length",
    "Transfer-Encoding",
    "If-None-Match",
    "If-Modified-Since",
)
_OF_BODY = ("Content-Type", "Content-Length", "Content-Encoding", "Content-Language")
_OWN_SLOT = "captcha:"


@dataclass(frozen=True)
class Visit:
    """On whose behalf our own requests are sent, and until when (:func:`time.monotonic`)."""

    request: Request
    rule: SiteRule
    deadline: float = field(default=float("inf"))


def proxy_of(request: Request) -> str:
    """The proxy of a request with its credentials, the same before and after they are moved.

    HttpProxyMiddleware takes them out of the URL and puts them into a header.
    """
    proxy = request.meta.get("proxy")
    if not proxy:
        return ""
    parts = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    credentials, _, host = parts.netloc.rpartition("@")
    if credentials:
        user, _, password = credentials.partition(":")
        basic = base64.b64encode(
            f"{unquote(user)}:{unquote(password)}".encode("latin-1", "replace")
        )
    else:
        header = request.headers.get("Proxy-Authorization") or b""
        basic = header.removeprefix(b"Basic ")
    return f"{basic.decode()}@{host}"


class Client:
    """Sends our own requests."""

    def __init__(self, crawler: Crawler) -> None:
        self._crawler = crawler
        self._timeout: float = crawler.settings.getfloat("DOWNLOAD_TIMEOUT")
        self._follows: bool = crawler.settings.getbool("REDIRECT_ENABLED")
        self._downloads: set[Deferred[Response]] = set()
        self._stopping_since: float | None = None

    def stop(self) -> None:
        """The spider is closing; to be called again and again until nothing is on its way."""
        now = monotonic()
        self._stopping_since = self._stopping_since or now
        if now - self._stopping_since >= STOP_SECONDS:
            for download in list(self._downloads):
                download.cancel()

    def may_follow(self, request: Request, response: Response) -> bool:
        """Whether the crawl leaves a redirect to be followed, instead of to the spider."""
        return self._follows and not (
            request.meta.get("dont_redirect")
            or request.meta.get("handle_httpstatus_all")
            or response.status in request.meta.get("handle_httpstatus_list", ())
            or response.status in getattr(self._crawler.spider, "handle_httpstatus_list", ())
        )

    async def replay(
        self, visit: Visit, *, own_slot: bool = False, cached: bool = False
    ) -> Response:
        """Ask for a page again, now that the session may have passed; redirects are followed.

        A redirect to another host is handed back as it came.

        :param own_slot: do not queue behind the crawl's requests to the host
        """
        original = visit.request
        headers = {k: v for k, v in original.headers.items() if k.decode() not in _NOT_REPLAYED}
        request = self._build(
            visit, original.url, original.method, headers, original.body, own_slot=own_slot
        )
        if cached:
            del request.meta["dont_cache"]
        response = await self._send(request)
        if not (self.may_follow(original, response) or leads_to_wall(response, visit.rule)):
            return response
        return await self.follow(visit, response, cached=cached)

    async def get(self, visit: Visit, url: str) -> Response:
        """Fetch another page of the same host; redirects are followed."""
        response = await self._send(self._build(visit, url, page_url=visit.request.url))
        return await self.follow(visit, response)

    async def follow(self, visit: Visit, response: Response, *, cached: bool = False) -> Response:
        """Follow a response's redirects within its host, hop by hop, to the page at their end.

        A page reached through a redirect that the rule calls a wall is flagged so.
        """
        walled = False
        for _ in range(MAX_HOPS):
            target = redirect_target(response)
            if target is None:
                break
            walled = walled or leads_to_wall(response, visit.rule)
            try:
                check_allowed(target, response.url, "redirect")
            except AttemptFailed:
                return response
            response = await self._send(self._hop(visit, response, target, cached=cached))
        if walled and not is_redirect(response):
            response.flags.append(REDIRECTED_TO_WALL)
        return response

    def elsewhere(self, request: Request, response: Response) -> Response | Request:
        """Leave a redirect to another host to Scrapy.

        :param request: the spider's; what is sent on is what the redirects before have left of it
        """
        redirects = self._crawler.get_downloader_middleware(RedirectMiddleware)
        sent = response.request
        assert sent is not None
        if redirects is None:
            return response
        if (sent.method, sent.body) != (request.method, request.body):
            request = request.replace(method=sent.method, body=sent.body)
            for name in _OF_BODY:
                request.headers.pop(name, None)
        return redirects.process_response(request.replace(url=sent.url), response)

    async def submit(
        self, visit: Visit, page_url: str, submission: Submission
    ) -> tuple[Response, bool]:
        """Send an answer.

        :return: the page at the end of its redirects, and whether there were any; it may itself
            lead to another host if it was asked for without the answer, by GET
        :raises AttemptFailed: when the form or a redirect leads to another host
        """
        check_form(visit.rule, submission.url, page_url)
        # the rule's submit may be elsewhere, and send us back
        own = named_hosts(visit.rule.submit) | named_hosts(page_url)
        request = self._build(
            visit,
            submission.url,
            submission.method,
            dict(submission.headers),
            submission.body,
            page_url=page_url,
        )
        response = first = await self._send(request)
        at_page = False
        for _ in range(MAX_HOPS):
            target = redirect_target(response)
            if target is None:
                return response, response is not first
            assert response.request is not None
            at_page = at_page or (
                response is not first and same_page(response.url, visit.request.url)
            )
            try:
                check_allowed(target, response.url, "redirect", own)
            except AttemptFailed:
                carries_it = response.request.method != "GET"
                if carries_it or not at_page or leads_to_wall(response, visit.rule):
                    raise
                return response, True  # it is the page that leads to another host
            response = await self._send(self._hop(visit, response, target))
        raise AttemptFailed("protocol", f"more than {MAX_HOPS} redirects from {submission.url}")

    async def image(self, visit: Visit, url: str, page_url: str) -> bytes:
        """The bytes of a captcha image, at most 1 MiB.

        :param url: absolute, or a ``data:`` URL
        """
        if url[:5].lower() == "data:":
            return data_url.content(url)
        hosts = visit.rule.image_hosts | named_hosts(visit.rule.refresh)
        check_allowed(url, page_url, "image", hosts)
        request = self._image_request(visit, url, page_url)
        for _ in range(MAX_HOPS):
            response = await self._send(request, "image_download")
            target = redirect_target(response)
            if target is None:
                break
            check_allowed(target, page_url, "image", hosts)
            request = self._image_request(visit, target, page_url)
        if response.status != 200:
            raise AttemptFailed("image_status", f"{response.url} answered {response.status}")
        return response.body

    def _image_request(self, visit: Visit, url: str, page_url: str) -> Request:
        request = self._build(visit, url, page_url=page_url)
        request.meta["download_maxsize"] = MAX_BYTES
        request.meta["download_warnsize"] = 0
        return request

    def _hop(
        self, visit: Visit, response: Response, target: str, *, cached: bool = False
    ) -> Request:
        request = response.request
        assert request is not None
        # as browsers do: only 307 and 308 keep the method and the body
        keeps = response.status in {307, 308} or request.method in {"GET", "HEAD"}
        dropped = (*_NOT_REPLAYED, *_CARRIED_TO_ORIGIN, *(() if keeps else ("Content-Type",)))
        hop = self._build(
            visit,
            target,
            request.method if keeps else "GET",
            {k: v for k, v in request.headers.items() if k.decode() not in dropped},
            request.body if keeps else b"",
            page_url=request.url,
            own_slot=str(request.meta.get("download_slot")).startswith(_OWN_SLOT),
        )
        if cached:
            del hop.meta["dont_cache"]
        return hop

    def _build(
        self,
        visit: Visit,
        url: str,
        method: str = "GET",
        headers: Mapping[Any, Any] | None = None,
        body: bytes = b"",
        *,
        page_url: str | None = None,
        own_slot: bool = True,
    ) -> Request:
        original = visit.request
        meta = {key: original.meta[key] for key in _CARRIED_META if key in original.meta}
        timeout = original.meta.get("download_timeout", self._timeout)
        left = visit.deadline - monotonic()
        if left <= 0:
            raise AttemptFailed("download", f"no time is left for {url}")
        meta |= {
            MARK: True,
            "dont_cache": True,
            "dont_redirect": True,
            "download_timeout": max(1.0, min(timeout, left)),
        }
        if not visit.rule.obey_robotstxt:
            meta["dont_obey_robotstxt"] = True
        if own_slot:
            # behind the crawl's own queue the image would come when its code has expired; the
            # next attempt is the retry
            meta["dont_retry"] = True
            meta["download_slot"] = self._own_slot(url)
        elif "download_slot" in original.meta:
            meta["download_slot"] = original.meta["download_slot"]
        request = Request(
            url,
            callback=NO_CALLBACK,
            method=method,
            headers=dict(headers or {}),
            body=body,
            meta=meta,
            dont_filter=True,
            flags=["captcha"],
        )
        for name in _CARRIED_HEADERS:
            value = original.headers.get(name)
            if value is not None:
                request.headers.setdefault(name, value)
        for name in _CARRIED_TO_ORIGIN if same_origin(url, original.url) else ():
            value = original.headers.get(name)
            if value is not None:
                request.headers[name] = value
        if page_url is not None:
            request.headers["Referer"] = referer(page_url, url)
        return request

    def _own_slot(self, url: str) -> str:
        """The slot of our own requests to a host, with the settings of the host's slot."""
        host = urlsplit(url).hostname or ""
        name = f"{_OWN_SLOT}{host}"
        assert self._crawler.engine is not None
        slots = self._crawler.engine.downloader.per_slot_settings
        if host in slots:
            slots.setdefault(name, slots[host])
        return name

    async def _send(self, request: Request, reason: str = "download") -> Response:
        engine = self._crawler.engine
        assert engine is not None
        download = deferred_from_coro(engine.download_async(request))
        self._downloads.add(download)
        try:
            response = await maybe_deferred_to_future(download)
        except (asyncio.CancelledError, CancelledError):
            if self._stopping_since is None:
                raise
            raise AttemptFailed("closing", f"{request.url} did not come in time") from None
        except IgnoreRequest as e:
            if reason == "image_download" and "DOWNLOAD_MAXSIZE" in str(e):
                raise AttemptFailed("image_invalid", str(e)) from e  # once it was decompressed
            blocked = "robots" if "robots.txt" in str(e) else "ignored"
            raise AttemptFailed(blocked, f"{request.url}: {e}", final=True) from e
        except Exception as e:
            if reason == "image_download" and isinstance(e, DownloadCancelledError):
                reason = "image_invalid"  # larger than MAX_BYTES
            detail = f"{request.method} {request.url}: {type(e).__name__}: {e}"
            raise AttemptFailed(reason, detail) from e
        finally:
            self._downloads.discard(download)
        return response
