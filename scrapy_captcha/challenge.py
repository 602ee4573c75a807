"""Response -> :class:`Challenge` or ``None``: is this page a wall, and where is what in it?

:func:`find` runs on every page of a listed site, so an ordinary page costs one search of its bytes
for a form; only a page that has one is parsed, with the selector that the spider uses anyway.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from scrapy.http import HtmlResponse
from scrapy.utils.response import get_base_url

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from lxml.html import FormElement, HtmlElement
    from scrapy.http import Response

    from scrapy_captcha.config import SiteRule

#: Flag of a response that was reached by a redirect which the rule calls a wall.
REDIRECTED_TO_WALL = "captcha-wall"
WALL_STATUSES = frozenset({401, 403, 429, 503})
MAX_WHOLE_PAGE = 1 << 20
JUDGED_OF_LARGER = 256 << 10
MAX_FORMS = 50
MAX_FIELDS = 200

_FORM = re.compile(rb"<form[\s>]", re.IGNORECASE)
_STRONG = re.compile(
    r"captcha|verif(?!ied)|v(?:eri)?_?-?code|yzm|yanzheng|check_?-?code|auth_?-?code|rand_?-?code|"
    r"sec(?:urity)?_?-?code|img_?-?code|code_?-?img|kaptcha|valid_?-?code|"
    r"human_?-?(?:check|test|proof)|(?:not_?-?a?|anti)_?-?(?:ro)?bot|"
    r"验证|校验|驗證|認証|認證|код с картинки|капч",
    re.IGNORECASE,
)
_WEAK = re.compile(
    r"code|answer|letters|characters|symbols|security|image text|字符", re.IGNORECASE
)
_PAGE = re.compile(
    r"captcha|verif(?!ied)|security (?:check|code)|验证|校验|驗證|認証|認證|капч|"
    r"are you (?:an? )?(?:human|(?:ro)?bot)|you are (?:human|a human|not a (?:ro)?bot)|"
    r"(?:human|robot) (?:check|test|visitor|verification)|not a (?:ro)?bot|"
    r"(?:type|enter|copy|write) (?:in )?the (?:\w+ ){0,2}(?:characters|letters|digits|symbols)",
    re.IGNORECASE,
)
_OTHER_FIELD = re.compile(
    r"^(?:q|query|search|keywords?|kw|wd|s|term)$|user|login|e?mail|pass|phone|name|zip|post_?code|"
    r"coupon|promo|discount|voucher|gift|invit|referral|product|article|item|order|track|serial|"
    r"country|city|address|qty|quantity",
    re.IGNORECASE,
)
_OTHER_IMAGE = re.compile(
    r"logo|icon|avatar|banner|spinner|loading|flag|sprite|badge", re.IGNORECASE
)
_HIDDEN_STYLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_IMAGE_ATTRIBUTES = ("id", "name", "class", "alt", "title", "src")
_FIELD_ATTRIBUTES = ("id", "name", "class", "placeholder", "title", "aria-label")
_TEXT_TYPES = frozenset({"", "text", "tel", "number", "search"})
_FILLABLE_TYPES = _TEXT_TYPES | {"password", "email", "url", "date", "file"}


@dataclass(frozen=True)
class Challenge:
    """A captcha on a page.

    :param response: the page
    :param why: what gave it away, for people
    :param image_url: absolute, or a ``data:`` URL; ``None`` when the page has no such image
    :param form: the form to submit; ``None`` when only the rule's ``submit`` says where
    :param field: name of the input that takes the answer; ``None`` when there is none
    """

    response: HtmlResponse
    why: str
    image_url: str | None
    form: FormElement | None
    field: str | None

    def same_as(self, other: Challenge) -> bool:
        """Whether another page asks the same: its form goes to the same place by the same field."""
        return self.field == other.field and self._action == other._action

    @property
    def _action(self) -> str:
        """Path that the form is submitted to."""
        if self.form is None:
            return ""
        url = action_url(self.response, self.form)
        try:
            return urlsplit(url).path
        except ValueError:
            return url


def action_url(response: HtmlResponse, form: FormElement) -> str:
    """Absolute URL that a form is submitted to; ``<base href>`` counts."""
    action = (form.get("action") or "").strip()
    return absolute(response, action) if action else response.url


def absolute(response: HtmlResponse, url: str) -> str:
    """A URL in a page made absolute; as it stands there if it is broken, for others to refuse."""
    try:
        return urljoin(get_base_url(response), url)
    except ValueError:
        return url


def find(response: Response, rule: SiteRule) -> Challenge | None:
    """The challenge that a page is, or ``None`` for an ordinary page.

    With a ``detect`` or ``redirect`` in the rule that settles it. Otherwise a page is a wall when a
    form of it holds a captcha and nothing else that a visitor would have to fill in: a query or
    comment form with a captcha in it is an ordinary page.
    """
    if not isinstance(response, HtmlResponse) or not response.body:
        return None
    if REDIRECTED_TO_WALL in response.flags:
        return _expected(response, rule, "its address matches the rule's redirect")
    if rule.detect is not None:
        page = judged(response)
        if not page.css(rule.detect):
            return None
        return _expected(page, rule, f"the rule's detect, {rule.detect!r}, is on the page")
    if not _FORM.search(response.body, 0, MAX_WHOLE_PAGE):
        return None
    page = judged(response)
    candidates = [
        candidate
        for candidate in _candidates(page, rule, frozenset(rule.formdata))
        if candidate.blank_fields == 0 and candidate.likely
    ]
    return _best(candidates)


def locate(
    response: Response,
    rule: SiteRule,
    form_css: str | None = None,
    filled: Collection[str] = (),
) -> Challenge | None:
    """The captcha in a page that may ask for other things too: a query form, say.

    :param form_css: which form; the rule's ``form``, or the likeliest one, when ``None``
    :param filled: names of fields that are none of the captcha's
    """
    if not isinstance(response, HtmlResponse) or not response.body:
        return None
    page = judged(response)
    names = frozenset(filled) | frozenset(rule.formdata)
    candidates = [c for c in _candidates(page, rule, names, form_css) if c.likely or form_css]
    return _best(candidates)


def blank_fields(form: FormElement, filled: Collection[str]) -> list[str]:
    """Names of the fields that a visitor would see empty, without those that are ``filled``."""
    return [e.get("name") for e in _fields(form) if _asks_for_input(e, filled)]


def judged(response: HtmlResponse) -> HtmlResponse:
    """The page, or the first 256 KiB of one of more than 1 MiB."""
    if len(response.body) <= MAX_WHOLE_PAGE:
        return response
    return response.replace(body=response.body[:JUDGED_OF_LARGER])


def _expected(response: HtmlResponse, rule: SiteRule, why: str) -> Challenge:
    """A page that is known to be a wall: take the best of it, even if parts are missing."""
    best = _best(_candidates(response, rule, frozenset(rule.formdata)))
    if best is not None:
        return Challenge(response, why, best.image_url, best.form, best.field)
    scope = response.css(rule.image or "img")
    image = _pick_image((selector.root for selector in scope), response, rule)
    for selector in response.css(rule.form or "form")[:MAX_FORMS]:
        fields = selector.root.iter("input", "textarea")
        field = _pick_field(fields, rule, frozenset(rule.formdata))
        if field is not None:
            return Challenge(response, why, image and image[1], selector.root, field[1])
    return Challenge(response, why, image and image[1], None, rule.field)


@dataclass(frozen=True)
class _Candidate:
    challenge: Challenge
    score: int
    blank_fields: int
    likely: bool


def _best(candidates: Iterable[_Candidate]) -> Challenge | None:
    best = max(candidates, key=lambda c: (c.likely, -c.blank_fields, c.score), default=None)
    return best.challenge if best else None


def _candidates(
    response: HtmlResponse,
    rule: SiteRule,
    filled: frozenset[str],
    form_css: str | None = None,
) -> list[_Candidate]:
    css = form_css or rule.form
    forms = (
        (selector.root for selector in response.css(css))
        if css
        else response.selector.root.iter("form")  # a quarter of what //form costs
    )
    found = []
    for form in islice(forms, MAX_FORMS):
        candidate = _candidate(response, form, rule, filled)
        if candidate is not None:
            found.append(candidate)
    return found


def _candidate(
    response: HtmlResponse, form: FormElement, rule: SiteRule, filled: frozenset[str]
) -> _Candidate | None:
    field = _pick_field(_fields(form), rule, filled)
    if field is None:  # a search form, most often
        return None
    scope = response.css(rule.image) if rule.image else None
    images = [s.root for s in scope] if scope is not None else form.iter("img")
    image = _pick_image(images, response, rule)
    if image is None:
        return None
    image_hints, image_url = image
    field_hints, name = field
    blank = len(blank_fields(form, {name, *filled}))
    reasons = [
        "an image and a text input share a form",
        *(["the image's attributes say captcha"] if image_hints > 0 else []),
        *([f"the input {name!r} says so"] if field_hints > 0 else []),
        *(["the page's words say so"] if _PAGE.search(_words(response, form)) else []),
        *([f"its status is {response.status}"] if response.status in WALL_STATUSES else []),
        *(["the rule names it"] if rule.image or rule.field or rule.form else []),
    ]
    challenge = Challenge(response, "; ".join(reasons), image_url, form, name)
    return _Candidate(challenge, image_hints + field_hints, blank, len(reasons) > 1)


def _fields(form: HtmlElement) -> Iterable[HtmlElement]:
    return islice(form.iter("input", "textarea"), MAX_FIELDS)


def _words(response: HtmlResponse, form: HtmlElement) -> str:
    """The page's title and headings and the form's own words, bounded."""
    text = response.xpath("//title/text() | //h1//text() | //h2//text()")[:20].getall()
    own = [form.get("id") or "", form.get("class") or "", form.get("action") or ""]
    return " ".join([*text, *own, form.text_content()[:2000]])


def _hints(element: HtmlElement, attributes: tuple[str, ...]) -> int:
    text = " ".join(element.get(name) or "" for name in attributes)
    # a data: URL is no hint, and may be long
    text = re.sub(r"data:\S*", "", text[:2000])
    return 3 * bool(_STRONG.search(text)) + bool(_WEAK.search(text))


def _pick_image(
    images: Iterable[HtmlElement], response: HtmlResponse, rule: SiteRule
) -> tuple[int, str] | None:
    best: tuple[int, str] | None = None
    for element in islice(images, MAX_FIELDS):
        src = (element.get("src") or "").strip()
        if not src or _invisible(element):
            continue
        score = _hints(element, _IMAGE_ATTRIBUTES)
        if not rule.image and not score and _OTHER_IMAGE.search(_identity(element)):
            continue
        if best is None or score > best[0]:
            url = src if src[:5].lower() == "data:" else absolute(response, src)
            best = score, url
    return best


def _pick_field(
    fields: Iterable[HtmlElement], rule: SiteRule, filled: frozenset[str]
) -> tuple[int, str] | None:
    best: tuple[int, str] | None = None
    for element in fields:
        name = element.get("name") or ""
        if rule.field is not None:
            if name == rule.field:
                return 1, name
            continue
        kind = (element.get("type") or "").lower()
        if element.tag != "input" or kind not in _TEXT_TYPES or not name or name in filled:
            continue
        if _invisible(element) or (element.get("value") or "").strip():
            continue
        score = _hints(element, _FIELD_ATTRIBUTES)
        if score < 3 and _OTHER_FIELD.search(name):
            continue
        if best is None or score > best[0]:
            best = score, name
    return best


def _asks_for_input(element: HtmlElement, filled: Collection[str]) -> bool:
    """Whether a visitor would see it empty and fill it in."""
    name = element.get("name")
    if not name or name in filled or _invisible(element):
        return False
    if element.tag == "textarea":
        return not (element.text or "").strip()
    kind = (element.get("type") or "").lower()
    return kind in _FILLABLE_TYPES and not (element.get("value") or "").strip()


def _invisible(element: HtmlElement) -> bool:
    return (
        (element.get("type") or "").lower() == "hidden"
        or element.get("disabled") is not None
        or element.get("readonly") is not None
        or element.get("hidden") is not None
        or bool(_HIDDEN_STYLE.search(element.get("style") or ""))
    )


def _identity(element: HtmlElement) -> str:
    return " ".join(element.get(name) or "" for name in ("id", "class", "src", "alt"))[:500]
