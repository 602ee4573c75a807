"""A form and what to put into it -> what to send, for the encodings that browsers know."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from form2request import form2request
from lxml import etree

from scrapy_captcha.challenge import action_url
from scrapy_captcha.judged import known_encoding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lxml.html import FormElement
    from scrapy.http import HtmlResponse

#: Fields, buttons and options of a form, an option counted for each ``<select>`` around it, and
#: characters of what they hold: with more, a form is not submitted.
MAX_CONTROLS = 3_000
MAX_CHARACTERS = 256 << 10
#: A select that does not end nests the next one.
MAX_NESTED = 20
_CONTROLS = ("input", "select", "textarea", "button")
_URLENCODED = "application/x-www-form-urlencoded"
_MULTIPART = "multipart/form-data"


@dataclass(frozen=True)
class Submission:
    """What to send.

    :param method: ``GET`` or ``POST``
    """

    url: str
    method: str
    headers: Mapping[str, str]
    body: bytes


def fill(response: HtmlResponse, form: FormElement, data: Mapping[str, str]) -> Submission:
    """Submit a form as a browser would: its own values, ``data`` over them, its first button.

    :param form: an element of the response's tree
    :raises ValueError: when the form cannot be submitted
    """
    _check_size(form)
    _unname(form)
    button = next(iter(form.xpath(_BUTTONS)), None)
    form.set("action", action_url(response, form))
    encoding = _form_encoding(response, form)
    enctype = (button is not None and button.get("formenctype")) or form.get("enctype") or ""
    # form2request knows no multipart: let it gather the pairs as if urlencoded
    filled = form2request(form, dict(data), enctype=_URLENCODED, click=button)
    if filled.method == "GET":
        parts = urlsplit(filled.url)
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        query = _urlencode(pairs, encoding)
        return Submission(urlunsplit(parts._replace(query=query)), "GET", {}, b"")
    pairs = parse_qsl(filled.body.decode(), keep_blank_values=True)
    if enctype.strip().lower() == _MULTIPART:
        body, content_type = _multipart(pairs, encoding)
        return Submission(filled.url, "POST", {"Content-Type": content_type}, body)
    body = _urlencode(pairs, encoding).encode()
    return Submission(filled.url, "POST", {"Content-Type": _URLENCODED}, body)


def post(url: str, data: Mapping[str, str]) -> Submission:
    """Submit without a form, to the rule's ``submit``."""
    return Submission(url, "POST", {"Content-Type": _URLENCODED}, urlencode(data).encode())


def _check_size(form: FormElement) -> None:
    controls = form.iter(*_CONTROLS, "option")
    held = [
        len(control.get("name") or "") + len(control.get("value") or control.text or "")
        for control in islice(controls, MAX_CONTROLS + 1)
    ]
    if len(held) > MAX_CONTROLS or _choices(form) > MAX_CONTROLS:
        raise ValueError(f"it has more than {MAX_CONTROLS} fields and options")
    if sum(held) > MAX_CHARACTERS:
        raise ValueError(f"its fields hold {sum(held)} characters, more than {MAX_CHARACTERS}")


def _choices(form: FormElement) -> int:
    """How many options its selects have, all told: that of a select in another is one of both."""
    around = choices = 0
    for event, element in etree.iterwalk(form, ("start", "end"), ("select", "option")):
        if element.tag == "option":
            choices += around if event == "start" else 0
            continue
        around += 1 if event == "start" else -1
        if around > MAX_NESTED:
            raise ValueError(f"more than {MAX_NESTED} selects nest in it")
    return choices


def _unname(form: FormElement) -> None:
    """Take their names from the fields that form2request sends and browsers do not."""
    around = 0
    for event, element in etree.iterwalk(form, ("start", "end"), ("fieldset", *_CONTROLS)):
        disabled = element.get("disabled") is not None
        pressed = element.tag == "input" and (element.get("type") or "").lower() == "button"
        if element.tag == "fieldset":
            around += disabled if event == "start" else -disabled
        elif around or disabled or pressed:
            element.attrib.pop("name", None)


_BUTTONS = (
    "descendant::input[not(@disabled)][translate(@type, 'SUBMITAGE', 'submitage')='submit' or "
    "translate(@type, 'IMAGE', 'image')='image'] | descendant::button[not(@disabled)]"
    "[not(@type) or translate(@type, 'SUBMIT', 'submit')='submit']"
)


def _form_encoding(response: HtmlResponse, form: FormElement) -> str:
    wanted = (form.get("accept-charset") or response.encoding).split()
    known = known_encoding(wanted[0]) if wanted else None
    return "utf-8" if known is None or known.startswith("utf-16") else known


def _urlencode(pairs: Sequence[tuple[str, str]], encoding: str) -> str:
    return urlencode(pairs, encoding=encoding, errors="xmlcharrefreplace")


def _multipart(pairs: Sequence[tuple[str, str]], encoding: str) -> tuple[bytes, str]:
    boundary = f"----{uuid.uuid4().hex}"
    lines: list[bytes] = []
    for name, value in pairs:
        # the three escapes that the HTML standard has for a field's name
        quoted = name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
        lines += [
            f"--{boundary}".encode(),
            f'Content-Disposition: form-data; name="{quoted}"'.encode(
                encoding, "xmlcharrefreplace"
            ),
            b"",
            value.encode(encoding, "xmlcharrefreplace"),
        ]
    lines += [f"--{boundary}--".encode(), b""]
    return b"\r\n".join(lines), f"{_MULTIPART}; boundary={boundary}"
