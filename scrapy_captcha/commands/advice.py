"""A page and the rule of its site -> what the page is, and what to write about it; no network."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from scrapy_captcha.challenge import blank_fields, find, locate
from scrapy_captcha.judged import judged, tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lxml.html import HtmlElement
    from scrapy.http import HtmlResponse

    from scrapy_captcha.challenge import Challenge
    from scrapy_captcha.config import SiteRule

#: What stands in for what only the user knows.
PLACEHOLDER = "..."
DIGITS = "0123456789"

_IDENTIFIER = re.compile(r"[A-Za-z_][\w-]*")
_QUOTABLE = re.compile(r"[^\"'\\\n\r]{1,200}")
_NUMERIC = re.compile(r"\^?(?:\[0-9\]|\\d)[*+]?(?:\{\d+(?:,\d*)?\})?\$?")


@dataclass(frozen=True)
class Advice:
    """What a page is, and what to write about it.

    :param kind: ``wall``; ``login``: a wall as soon as the rule fills in the form's other fields;
        ``form``: a form that a spider may submit by ``captcha_form``; ``unsure``: a form that may
        hold a captcha; ``none``
    :param why: the reason, a sentence without its full stop
    :param blank: the form's other fields that a visitor would see empty
    :param rule: keys that the site's rule lacks
    :param if_wall: keys that make a ``form`` a wall
    :param hints: keys that may help, each with the reason
    """

    kind: str
    why: str
    challenge: Challenge | None = None
    blank: tuple[str, ...] = ()
    rule: dict[str, Any] = field(default_factory=dict)
    if_wall: dict[str, Any] = field(default_factory=dict)
    hints: dict[str, tuple[Any, str]] = field(default_factory=dict)


def advise(page: HtmlResponse, rule: SiteRule, *, redirected: bool = False) -> Advice:
    """Say what a page is under a rule.

    :param redirected: whether another address led to it
    """
    challenge = find(page, rule)
    if challenge is not None:
        return _with_hints(Advice("wall", challenge.why, challenge), rule, redirected)
    challenge = locate(page, rule)
    if challenge is not None:
        return _with_hints(_located(challenge, rule), rule, redirected)
    challenge = locate(page, rule, "form")
    if challenge is not None:
        return _with_hints(_unlikely(page, challenge, rule, redirected), rule, redirected)
    return Advice("none", _nothing(page))


def _located(challenge: Challenge, rule: SiteRule) -> Advice:
    """A form that holds a captcha, on a page that is not a wall by this rule."""
    blank = _blank(challenge, rule)
    if rule.detect is not None:
        why = f"{challenge.why}; but the rule's detect, {rule.detect!r}, is not on the page"
        image = None if blank else _css_of_image(challenge)
        keys = {} if image is None else {"detect": image}
        return Advice("form" if blank else "unsure", why, challenge, blank, keys)
    formdata = {**rule.formdata, **dict.fromkeys(blank, PLACEHOLDER)}
    if _asks_password(challenge):
        return Advice("login", challenge.why, challenge, blank, {"formdata": formdata})
    return Advice("form", challenge.why, challenge, blank, if_wall={"formdata": formdata})


def _unlikely(page: HtmlResponse, challenge: Challenge, rule: SiteRule, redirected: bool) -> Advice:
    """A form with an image and an input, neither of which speaks of a captcha."""
    blank = _blank(challenge, rule)
    image = _css_of_image(challenge)
    keys: dict[str, Any] = {}
    if redirected:
        keys["redirect"] = _path_pattern(page)
    elif image is not None:
        keys["detect"] = image
    else:
        keys["field"] = challenge.field
    if blank:
        keys["formdata"] = {**rule.formdata, **dict.fromkeys(blank, PLACEHOLDER)}
    why = "a form holds an image and an input, but nothing on the page says that it is a captcha"
    return Advice("unsure", why, challenge, blank, keys)


def _with_hints(advice: Advice, rule: SiteRule, redirected: bool) -> Advice:
    """Add what the input's attributes and the address say."""
    challenge = advice.challenge
    assert challenge is not None
    hints: dict[str, tuple[Any, str]] = {}
    element = _input(challenge)
    if element is not None:
        length = _length(element)
        if rule.length is None and length is not None:
            hints["length"] = length, "so long is what the input takes"
        if rule.charset is None and _is_numeric(element):
            hints["charset"] = DIGITS, "the input takes digits"
    if redirected and rule.redirect is None and advice.kind == "wall":
        hints["redirect"] = _path_pattern(challenge.response), "the page redirects there"
    return replace(advice, hints=hints)


def _blank(challenge: Challenge, rule: SiteRule) -> tuple[str, ...]:
    if challenge.form is None:
        return ()
    return tuple(blank_fields(challenge.form, {challenge.field or "", *rule.formdata}))


def _asks_password(challenge: Challenge) -> bool:
    assert challenge.form is not None
    kinds = (e.get("type") or "" for e in challenge.form.iter("input"))
    return any(kind.lower() == "password" for kind in kinds)


def _nothing(page: HtmlResponse) -> str:
    """Why no form will do, in the words of what was looked for."""
    looked = "looked for a form that holds an image and a text input"
    forms = list(tree(judged(page)).iter("form"))
    if not forms:
        return f"{looked}; the page has no form"
    with_image = sum(next(form.iter("img"), None) is not None for form in forms)
    return f"{looked}; of {len(forms)} on the page, {with_image} with an image, none will do"


def _input(challenge: Challenge) -> HtmlElement | None:
    if challenge.form is None or challenge.field is None:
        return None
    inputs = challenge.form.iter("input")
    return next((e for e in inputs if e.get("name") == challenge.field), None)


def _length(element: HtmlElement) -> int | None:
    """How many characters an input takes, if it does not leave that open."""
    exact = re.search(r"\{(\d)\}\$?$", element.get("pattern") or "")
    if exact:
        return int(exact[1])
    longest = element.get("maxlength") or ""
    # 8 or 10 are as good as no limit
    if longest in {"4", "5", "6"} or (longest.isdecimal() and longest == element.get("minlength")):
        return int(longest)
    return None


def _is_numeric(element: HtmlElement) -> bool:
    kinds = (element.get("type") or "").lower(), (element.get("inputmode") or "").lower()
    return bool(
        kinds[0] in {"number", "tel"}
        or kinds[1] == "numeric"
        or _NUMERIC.fullmatch(element.get("pattern") or "")
    )


def _path_pattern(page: HtmlResponse) -> str:
    return re.escape(urlsplit(page.url).path)


def _css_of_image(challenge: Challenge) -> str | None:
    """A selector that nothing on the page but the captcha's image matches."""
    page = challenge.response
    for image in challenge.form.iter("img") if challenge.form is not None else ():
        src = (image.get("src") or "").strip()
        if not src or challenge.image_url not in {src, page.urljoin(src)}:
            continue
        for css in _selectors(challenge, image):
            if [selector.root for selector in page.css(css)] == [image]:
                return css
    return None


def _selectors(challenge: Challenge, image: HtmlElement) -> Iterator[str]:
    identifier = image.get("id") or ""
    if _IDENTIFIER.fullmatch(identifier):
        yield f"img#{identifier}"
    for name in (image.get("class") or "").split():
        if _IDENTIFIER.fullmatch(name):
            yield f"img.{name}"
    for attribute in ("name", "alt", "title"):
        if _QUOTABLE.fullmatch(image.get(attribute) or ""):
            yield f'img[{attribute}="{image.get(attribute)}"]'
    src = re.split(r"[?#]", (image.get("src") or "").strip())[0]
    if _QUOTABLE.fullmatch(src) and not src.lower().startswith("data:"):
        yield f'img[src^="{src}"]'
    action = (challenge.form.get("action") or "") if challenge.form is not None else ""
    if _QUOTABLE.fullmatch(action):
        yield f'form[action="{action}"] img'
