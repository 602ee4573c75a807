"""``scrapy captcha check URL``: look at one page as the project's crawl would; submit nothing."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from scrapy import Request, Spider
from scrapy.exceptions import UsageError
from scrapy.http import HtmlResponse

from scrapy_captcha.address import redirect_target, same_page
from scrapy_captcha.client import Client, Visit
from scrapy_captcha.commands.advice import Advice, advise
from scrapy_captcha.commands.report import Picture, Report, to_json, to_text
from scrapy_captcha.config import Settings, SiteRule
from scrapy_captcha.errors import AttemptFailed, BundleError, ConfigError, ImageError, ServiceError
from scrapy_captcha.image import unwrap
from scrapy_captcha.middleware import CaptchaMiddleware
from scrapy_captcha.models import Readers
from scrapy_captcha.redirect import CaptchaRedirectMiddleware

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Awaitable, Callable

    from scrapy.crawler import Crawler, CrawlerProcessBase
    from scrapy.http import Response
    from scrapy.settings import BaseSettings
    from scrapy.settings import Settings as ScrapySettings

CRAWLS = True


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("url", metavar="URL")
    parser.add_argument("--site", metavar="KEY", help="use the rule of this key of CAPTCHA_SITES")
    parser.add_argument(
        "--model", metavar="BUNDLE", help="a shipped model, a folder or a service's URL"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(
    opts: argparse.Namespace, settings: ScrapySettings, process: CrawlerProcessBase | None
) -> int:
    """Fetch the page and its captcha's image, and print what they are."""
    assert process is not None
    if urlsplit(opts.url).scheme not in {"http", "https"}:
        raise UsageError(f"expected an http:// or https:// URL, got {opts.url!r}", print_help=False)
    captcha = Settings.from_settings(settings)
    rule, given = _rule(captcha, settings, opts.url, opts.site)
    # the rule of another site is tried as if it were this one's
    here = rule if opts.site is None else replace(rule, site=_netloc(opts.url))
    sights: list[_Sight] = []

    async def visit(crawler: Crawler) -> None:
        sights.append(await _look(Client(crawler), opts.url, here))

    process.crawl(_Visitor, visit=visit)
    process.start()
    if not sights:  # Scrapy has logged why
        return 1
    (sight,) = sights
    if opts.model is not None:
        rule = replace(rule, model=opts.model)
    report = Report(
        url=opts.url,
        site=rule.site,
        given=given,
        final_url=None if sight.page is None else sight.page.url,
        status=None if sight.page is None else sight.page.status,
        advice=sight.advice,
        picture=_picture(sight, captcha, rule),
        problem=sight.problem,
    )
    print(json.dumps(to_json(report), ensure_ascii=False) if opts.json else to_text(report))
    return int(report.failed)


def _rule(
    captcha: Settings, settings: ScrapySettings, url: str, key: str | None
) -> tuple[SiteRule, dict[str, Any] | None]:
    """The rule to look with, and how it is written in the settings; ``None`` if it is not."""
    netloc = _netloc(url)
    if key is None:
        rule = captcha.rule_for(netloc)
    else:
        rule = captcha.sites.get(key.lower())
        if rule is None:
            known = ", ".join(map(repr, captcha.sites)) or "no site"
            raise ConfigError(f"--site {key}: CAPTCHA_SITES lists {known}")
    if rule is None:
        return SiteRule(netloc), None
    written = settings.getdict("CAPTCHA_SITES")
    keys = {str(name).lower().removeprefix("."): name for name in written}
    return rule, dict(written[keys[rule.site]])


def _netloc(url: str) -> str:
    """Host and port, as a site's key."""
    return urlsplit(url).netloc.rpartition("@")[2].lower()


@dataclass(frozen=True)
class _Sight:
    """What the crawl has brought.

    :param problem: why there is no page to look at
    :param image_problem: why there is no image
    """

    page: Response | None = None
    advice: Advice | None = None
    image: bytes | None = None
    problem: str | None = None
    image_problem: str | None = None


async def _look(client: Client, url: str, rule: SiteRule) -> _Sight:
    visit = Visit(Request(url), rule)
    try:
        page = await client.replay(visit)
    except AttemptFailed as e:
        return _Sight(problem=str(e))
    if not isinstance(page, HtmlResponse) or redirect_target(page) is not None:
        return _Sight(page, problem=_why_not(page))
    advice = advise(page, rule, redirected=not same_page(page.url, url))
    challenge = advice.challenge
    if challenge is None:
        failed = f"status {page.status} and no captcha" if page.status >= 400 else None
        return _Sight(page, advice, problem=failed)
    if challenge.image_url is None:
        return _Sight(page, advice, image_problem="no captcha image on the page")
    try:
        image = await client.image(visit, challenge.image_url, page.url)
    except AttemptFailed as e:
        return _Sight(page, advice, image_problem=str(e))
    return _Sight(page, advice, image)


def _why_not(page: Response) -> str:
    """Why a response cannot be looked at."""
    target = redirect_target(page)
    if target is not None:
        return f"redirects to {target}, which is not followed"
    kind = (page.headers.get("Content-Type") or b"no Content-Type").decode("latin-1")
    return f"expected HTML, got {kind} with status {page.status}"


class _Visitor(Spider):
    """Runs one coroutine in an open crawl, without what the project does in its crawls."""

    name = "captcha-check"
    custom_settings = {  # noqa: RUF012 - as every spider has it
        "DUPEFILTER_CLASS": "scrapy.dupefilters.BaseDupeFilter",
        "EXTENSIONS": {},
        "FEEDS": {},
        "ITEM_PIPELINES": {},
        "JOBDIR": None,
        "REMOTE_CONTROL_ENABLED": False,
        "RETRY_ENABLED": False,
        "SCHEDULER": "scrapy.core.scheduler.Scheduler",
        "SPIDER_MIDDLEWARES": {},
        "TELNETCONSOLE_ENABLED": False,
    }
    visit: Callable[[Crawler], Awaitable[None]]

    @classmethod
    def update_settings(cls, settings: BaseSettings) -> None:
        """Keep captchas from being solved."""
        super().update_settings(settings)
        for middleware in (CaptchaMiddleware, CaptchaRedirectMiddleware):
            settings.set_in_component_priority_dict("DOWNLOADER_MIDDLEWARES", middleware, None)

    async def start(self) -> AsyncIterator[Any]:
        """Send what the coroutine sends, and nothing else."""
        await self.visit(self.crawler)
        return
        yield  # what makes this an iterator


def _picture(sight: _Sight, captcha: Settings, rule: SiteRule) -> Picture | None:
    """What the image is, and what the rule's model reads in it."""
    if sight.advice is None or sight.advice.challenge is None:
        return None
    picture = Picture(sight.advice.challenge.image_url, problem=sight.image_problem)
    if sight.image is None:
        return picture
    picture = replace(picture, bytes=len(sight.image))
    try:
        with closing(Readers(captcha)) as readers:
            reader = readers.for_rule(rule)
            recognition = reader.read(sight.image, rule.charset, rule.length)
        found = unwrap(sight.image)
    except ImageError as e:
        return replace(picture, problem=f"image_invalid: {e}")
    except (BundleError, ConfigError, ServiceError) as e:
        return replace(picture, problem=str(e))
    return replace(picture, format=found.format, size=found.size, recognition=recognition)
