"""What ``scrapy captcha check`` has found, as text and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from scrapy_captcha.challenge import action_url
from scrapy_captcha.naming import shown

if TYPE_CHECKING:
    from lxml.html import FormElement

    from scrapy_captcha.challenge import Challenge
    from scrapy_captcha.commands.advice import Advice
    from scrapy_captcha.recognizer import Recognition

SHORT = 100


@dataclass(frozen=True)
class Picture:
    """A captcha's image.

    :param problem: why it was not fetched or not read
    """

    url: str | None
    bytes: int | None = None
    format: str | None = None
    size: tuple[int, int] | None = None
    recognition: Recognition | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Report:
    """A page that was checked.

    :param site: key of its rule, in CAPTCHA_SITES or to be written there
    :param given: the rule as the settings have it, ``None`` when they list no such site
    :param final_url: where redirects have led
    :param problem: why the page could not be looked at
    """

    url: str
    site: str
    given: dict[str, Any] | None = None
    final_url: str | None = None
    status: int | None = None
    advice: Advice | None = None
    picture: Picture | None = None
    problem: str | None = None

    @property
    def failed(self) -> bool:
        """Whether a part of the check failed, or the captcha lacks a part."""
        challenge = self.advice.challenge if self.advice else None
        if challenge is not None and (challenge.field is None or challenge.form is None):
            return True
        return bool(self.problem or (self.picture and self.picture.problem))

    @property
    def rule(self) -> dict[str, Any]:
        """The site's rule with what it lacks."""
        return {**(self.given or {}), **(self.advice.rule if self.advice else {})}

    @property
    def query(self) -> str | None:
        """The line by which a spider submits a query form."""
        if self.advice is None or self.advice.kind != "form":
            return None
        fields = ", ".join(f'{json.dumps(name)}: "..."' for name in self.advice.blank)
        return f"yield captcha_form(response, {{{fields}}}, callback=self.parse_result)"


def to_json(report: Report) -> dict[str, Any]:
    """Plain values, the same keys whatever was found."""
    advice = report.advice
    challenge = advice.challenge if advice else None
    form = challenge.form if challenge else None
    return {
        "url": report.url,
        "final_url": report.final_url,
        "status": report.status,
        "site": report.site,
        "listed": report.given is not None,
        "kind": advice.kind if advice else None,
        "why": advice.why if advice else None,
        "image": asdict(report.picture) if report.picture else None,
        "form": {"method": _method(form), "action": action_url(challenge.response, form)}
        if challenge is not None and form is not None
        else None,
        "field": challenge.field if challenge else None,
        "blank": list(advice.blank) if advice else [],
        "rule": report.rule,
        "if_wall": advice.if_wall if advice else {},
        "hints": {key: value for key, (value, _) in advice.hints.items()} if advice else {},
        "captcha_form": report.query,
        "problem": report.problem,
    }


def to_text(report: Report) -> str:
    """What to read in a terminal; what comes from the page cannot move its cursor."""
    status = "" if report.status is None else f" (status {report.status})"
    final = report.final_url or report.url
    led = "" if final == report.url else f"\nled to {shown(final)}"
    blocks = [f"{shown(report.url)}{led}{status}"]
    if report.advice is not None:
        blocks += [f"{_KINDS[report.advice.kind]}: {shown(report.advice.why)}."]
        if report.advice.challenge is not None:
            blocks += [_parts(report, report.advice, report.advice.challenge), *_ways(report)]
    if report.problem is not None:
        blocks.append(f"Failed: {shown(report.problem)}")
    return "\n\n".join(blocks)


_KINDS = {
    "wall": "A captcha page",
    "login": "A form with a password and a captcha, and an ordinary page until the rule fills it",
    "form": "An ordinary page, delivered as it is, which has a form with a captcha",
    "unsure": "An ordinary page by this rule, though it may be a captcha page",
    "none": "An ordinary page without a captcha",
}


def _parts(report: Report, advice: Advice, challenge: Challenge) -> str:
    """Image, reading, form and fields, one a line."""
    form = challenge.form
    parts = {
        "image": _image(report.picture) if report.picture else "",
        "reading": _reading(report.picture) if report.picture else "",
        "form": f"{_method(form)} {action_url(challenge.response, form)}"
        if form is not None
        else "not found; the rule's submit says where to send the answer",
        "field": challenge.field or "not found; the rule's field names it",
        "also blank": ", ".join(advice.blank),
    }
    return "\n".join(f"  {name:<11} {shown(value)}" for name, value in parts.items() if value)


def _image(picture: Picture) -> str:
    url = picture.url or "not found; the rule's image names it"
    facts = [picture.format, picture.size and "x".join(map(str, picture.size))]
    facts.append(None if picture.bytes is None else f"{picture.bytes} bytes")
    known = ", ".join(fact for fact in facts if fact)
    short = url if len(url) <= SHORT else f"{url[:SHORT]}..."
    return f"{short} ({known})" if known else short


def _reading(picture: Picture) -> str:
    if picture.recognition is None:
        return f"failed: {picture.problem}" if picture.problem else ""
    return f"{picture.recognition.text} (confidence {picture.recognition.confidence:.3f})"


def _ways(report: Report) -> list[str]:
    """What to write into the spider or the settings."""
    advice, given = report.advice, report.given
    assert advice is not None
    blocks = []
    if report.query is not None:
        blocks.append(f"A spider submits the form by\n\n    {report.query}")
    if advice.kind in {"login", "unsure"} and advice.rule:
        blocks.append("What makes it a captcha page, in settings.py:")
    elif given is None:
        blocks.append("To list the site, in settings.py:")
    else:
        blocks.append("As settings.py has it:")
    blocks.append(_pasted(report.site, report.rule, advice.hints))
    if advice.if_wall:
        blocks.append("If the form stands before the site's pages, the rule fills it in:")
        blocks.append(_pasted(report.site, {**(given or {}), **advice.if_wall}, {}))
    return blocks


def _pasted(site: str, rule: dict[str, Any], hints: dict[str, tuple[Any, str]]) -> str:
    """A rule as Python, its hints as comments."""
    lines = [f"        {_python(key)}: {_python(value)}," for key, value in rule.items()]
    lines += [
        f"        # {_python(key)}: {_python(value)},  perhaps: {shown(reason)}"
        for key, (value, reason) in hints.items()
    ]
    body = ["    {},"] if not lines else ["    {", *lines, "    },"]
    body[0] = f"    {_python(site)}: {body[0].strip()}"
    return "\n".join(["CAPTCHA_SITES = {", *body, "}"])


def _python(value: Any) -> str:
    """A value as Python source, with double quotes."""
    if isinstance(value, str):
        return shown(json.dumps(value, ensure_ascii=False))
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_python(k)}: {_python(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple | set | frozenset):
        return "[" + ", ".join(map(_python, value)) + "]"
    return repr(value)


def _method(form: FormElement) -> str:
    return str(form.get("method") or "GET").upper()
