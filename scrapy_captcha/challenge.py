"""Response -> :class:`Challenge` or ``None``: is this page a wall, and where is what in it?

:func:`find` runs on every page of a listed site, so an ordinary page costs one search of its bytes
for a form with an image; only a page that has one is parsed, with the selector that the spider uses
anyway. Strangers write these pages: everything here is bounded (:mod:`scrapy_captcha.judged`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from scrapy.http import HtmlResponse, XmlResponse
from scrapy.utils.response import get_base_url

from scrapy_captcha.address import is_of_site
from scrapy_captcha.judged import judged, judged_size, select, tags_for, tree
from scrapy_captcha.markup import has_form, may_ask
from scrapy_captcha.selectors import selector

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from lxml.html import FormElement, HtmlElement
    from scrapy.http import Response

    from scrapy_captcha.config import SiteRule

#: Flag of a response that was reached by a redirect which the rule calls a wall.
REDIRECTED_TO_WALL = "captcha-wall"
WALL_STATUSES = frozenset({401, 403, 429, 503})
#: Forms of a page, fields of a form, and fields or images of a page that are looked at.
MAX_FORMS = 50
MAX_FIELDS = 200
MAX_ELEMENTS = 500
MAX_HEADINGS = 20
#: Characters of an attribute or a heading, and of a form's text, in which hints are looked for.
MAX_HINT = 300
MAX_WORDS = 2000

# how a page begins
_HTML = re.compile(
    rb"(?:\xef\xbb\xbf|\xff\xfe|\xfe\xff)?\s*(?:<!--.*?-->\s*)?"
    rb"<(?:!doctype\s+html|html|head|title|meta|body|form)\b",
    re.IGNORECASE | re.DOTALL,
)
# all on lower case: to ignore it costs five times as much
_STRONG = re.compile(
    r"captcha|verif(?!ied)|v(?:eri)?_?-?code|yzm|yanzheng|check_?-?code|auth_?-?code|rand_?-?code|"
    r"sec(?:urity)?_?-?code|img_?-?code|code_?-?img|kaptcha|valid_?-?code|"
    r"human_?-?(?:check|test|proof)|(?:not_?-?a?|anti)_?-?(?:ro)?bot|"
    r"验证|校验|驗證|認証|認證|код с картинки|капч",
)
_WEAK = re.compile(r"code|answer|letters|characters|symbols|security|image text|字符")
_PAGE = re.compile(
    r"captcha|verif(?!ied)|security (?:check|code)|验证|校验|驗證|認証|認證|капч|"
    r"are you (?:an? )?(?:human|(?:ro)?bot)|you are (?:human|a human|not a (?:ro)?bot)|"
    r"(?:human|robot) (?:check|test|visitor|verification)|not a (?:ro)?bot|"
    r"(?:type|enter|copy|write) (?:in )?the (?:\w+ ){0,2}(?:characters|letters|digits|symbols)",
)
_OTHER_FIELD = re.compile(
    r"^(?:q|query|search|keywords?|kw|wd|s|term)$|user|login|e?mail|pass|phone|name|zip|post_?code|"
    r"coupon|promo|discount|voucher|gift|invit|referral|product|article|item|order|track|serial|"
    r"country|city|address|qty|quantity",
)
_OTHER_IMAGE = re.compile(r"logo|icon|avatar|banner|spinner|loading|flag|sprite|badge")
_HIDDEN_STYLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden")
_IMAGE_ATTRIBUTES = ("id", "name", "class", "alt", "title", "src")
_IDENTITY = ("id", "class", "src", "alt")
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
    page = _as_page(response, rule)
    if page is None:
        return None
    if REDIRECTED_TO_WALL in page.flags:
        return _expected(page, rule, "its address matches the rule's redirect")
    if rule.detect is not None:
        if not select(page, rule.detect):
            return None
        return _expected(page, rule, f"the rule's detect, {rule.detect!r}, is on the page")
    if not _worth_parsing(page, rule):
        return None
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
    page = _as_page(response, rule)
    if page is None:
        return None
    names = frozenset(filled) | frozenset(rule.formdata)
    candidates = [c for c in _candidates(page, rule, names, form_css) if c.likely or form_css]
    return _best(candidates)


def blank_fields(form: FormElement, filled: Collection[str]) -> list[str]:
    """Names of the fields that a visitor would see empty, without those that are ``filled``."""
    return [e.get("name") for e in _fields(form) if _asks_for_input(e, filled)]


def _as_page(response: Response, rule: SiteRule) -> HtmlResponse | None:
    """It as a page, if it is one of the site's, under whatever content type it came.

    A browser may have been led elsewhere on its own.
    """
    if not response.body or not is_of_site(response.url, rule.site):
        return None
    if isinstance(response, HtmlResponse):
        return response
    beginning = response.body[:1024].replace(b"\x00", b"")
    if isinstance(response, XmlResponse) or not _HTML.match(beginning):
        return None
    # replace() would ask for its encoding, which may be guessed for seconds
    headers, flags = response.headers, response.flags
    return HtmlResponse(
        response.url, response.status, headers, response.body, flags, response.request
    )


def _worth_parsing(response: HtmlResponse, rule: SiteRule) -> bool:
    """Whether the bytes of a page say that a form of it may hold a captcha."""
    look = may_ask if rule.image is None and rule.form is None else has_form
    if b"\x00" not in response.body:
        return look(response.body, judged_size(response))
    page = _page(response, rule)  # in UTF-16 a tag's letters are two bytes each
    return look(page.body, len(page.body))


def _expected(response: HtmlResponse, rule: SiteRule, why: str) -> Challenge:
    """A page that is known to be a wall: take the best of it, even if parts are missing."""
    best = _best(_candidates(response, rule, frozenset(rule.formdata)))
    if best is not None:
        return Challenge(best.response, why, best.image_url, best.form, best.field)
    page = _page(response, rule)
    images = _chosen(page, rule.image) or tree(page).iter("img")
    image = _pick_image(images, page, rule)
    for form in _forms(page, rule.form):
        field = _pick_field(_fields(form), rule, frozenset(rule.formdata))
        if field is not None:
            return Challenge(page, why, image and image[1], form, field[1])
    return Challenge(page, why, image and image[1], None, rule.field)


def _page(response: HtmlResponse, rule: SiteRule, form_css: str | None = None) -> HtmlResponse:
    """What of a page is judged under a rule."""
    return judged(response, tags_for(rule.detect, rule.image, rule.form, form_css))


def _chosen(page: HtmlResponse, css: str | None) -> list[HtmlElement]:
    return [] if css is None else selector(css).select(tree(page))


def _forms(page: HtmlResponse, css: str | None) -> Iterator[FormElement]:
    """The forms that are looked at: browsers take no form in a form or a template for one."""
    forms = tree(page).iter("form") if css is None else _chosen(page, css)
    outer, held = None, 0
    for form in islice((form for form in forms if len(form)), MAX_ELEMENTS):
        above = form.iterancestors("form", "template")
        if any(element is outer or element.tag == "template" for element in above):
            continue
        outer = form
        held += 1
        if held > MAX_FORMS:
            return
        yield form


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
    page = _page(response, rule, form_css)
    named = _pick_image(_chosen(page, rule.image), page, rule)
    fields, images = iter(range(MAX_ELEMENTS)), iter(range(MAX_ELEMENTS))
    headings: str | None = None
    found = []
    for form in _forms(page, form_css or rule.form):
        field = _pick_field(_some(_fields(form), fields), rule, filled)
        if field is None:  # a search form, most often
            continue
        within = _some(form.iter("img"), images)
        image = named if rule.image else _pick_image(within, page, rule)
        if image is not None:
            headings = _headings(page) if headings is None else headings
            blank = len(blank_fields(form, {field[1], *filled}))
            why = _reasons(page, rule, image[0], field, headings + _words(form))
            challenge = Challenge(page, "; ".join(why), image[1], form, field[1])
            found.append(_Candidate(challenge, image[0] + field[0], blank, len(why) > 1))
    return found


def _reasons(
    page: HtmlResponse, rule: SiteRule, image_hints: int, field: tuple[int, str], words: str
) -> list[str]:
    field_hints, name = field
    return [
        "an image and a text input share a form",
        *(["the image's attributes say captcha"] if image_hints > 0 else []),
        *([f"the input {name[:MAX_HINT]!r} says so"] if field_hints > 0 else []),
        *(["the page's words say so"] if _PAGE.search(words) else []),
        *([f"its status is {page.status}"] if page.status in WALL_STATUSES else []),
        *(["the rule names it"] if rule.image or rule.field or rule.form else []),
    ]


def _some(elements: Iterable[HtmlElement], left: Iterator[int]) -> Iterable[HtmlElement]:
    """So many of them as are left to be looked at."""
    return (element for element, _ in zip(elements, left, strict=False))


def _fields(form: HtmlElement) -> Iterable[HtmlElement]:
    return islice(form.iter("input", "textarea"), MAX_FIELDS)


def _headings(page: HtmlResponse) -> str:
    headings = islice(tree(page).iter("title", "h1", "h2"), MAX_HEADINGS)
    return "".join(f"{e.text_content()[:MAX_HINT]} " for e in headings).lower()


def _words(form: HtmlElement) -> str:
    said = _said(form, ("id", "class", "action"))
    return f"{said} {form.text_content()[:MAX_WORDS].lower()}"


def _said(element: HtmlElement, attributes: tuple[str, ...]) -> str:
    return " ".join((element.get(name) or "")[:MAX_HINT] for name in attributes).lower()


def _hints(element: HtmlElement, attributes: tuple[str, ...]) -> int:
    # a data: URL is no hint
    text = re.sub(r"data:\S*", "", _said(element, attributes))
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
        if not rule.image and not score and _OTHER_IMAGE.search(_said(element, _IDENTITY)):
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
        if score < 3 and _OTHER_FIELD.search(name[:MAX_HINT].lower()):
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
        or bool(_HIDDEN_STYLE.search((element.get("style") or "")[:MAX_WORDS].lower()))
    )
