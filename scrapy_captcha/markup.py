"""What a page's bytes tell before it is parsed: whether it need be, and how much of it is cheap to.

libxml2 parses most things in linear time, but adds an attribute to a tag in time that grows with
the attributes that the tag has: half a minute for one megabyte. So a page's tags are read as the
HTML standard reads them before it is parsed, and it ends before a tag that has too many.
"""

from __future__ import annotations

import re

MAX_TAGS = 40_000
#: So many in every tag of one megabyte cost some 20 ms.
MAX_ATTRIBUTES = 64
#: A longer value with a tag in it may be none, and the tag a real one.
MAX_MARKUP_IN_VALUE = 8192

_SPACE = rb" \t\n\r\f"
_VALUE = (
    rb"(?:\"(?:[^\"<]*+|[^\"]{0,%(max)d}+)\"|'(?:[^'<]*+|[^']{0,%(max)d}+)'|"
    rb"(?![\"'])[^%(space)s>]*+)" % {b"max": MAX_MARKUP_IN_VALUE, b"space": _SPACE}
)
_ATTRIBUTE = (
    rb"(?:[%(space)s/]*+[^%(space)s/>][^%(space)s/>=]*+"
    rb"(?:[%(space)s]*+=[%(space)s]*+%(value)s)?+)" % {b"space": _SPACE, b"value": _VALUE}
)
_ATTRIBUTES = rb"%b{0,%d}+" % (_ATTRIBUTE, MAX_ATTRIBUTES)
_TAG = rb"</?[a-z][^%(space)s/>]*+%(attributes)s[%(space)s/]*+>" % {
    b"space": _SPACE,
    b"attributes": _ATTRIBUTES,
}
# a comment in a script may hold another script, whose end does not end the first one
_SCRIPT = (
    rb"(?:[^<]++|<(?!/script[%(s)s/>]|!--)|<!--(?:-*+>|(?:[^<-]++|-(?!->)|"
    rb"<(?!/?script[%(s)s/>])|"
    rb"<script[%(s)s/>](?:[^<-]++|-(?!->)|<(?!/script[%(s)s/>]))*+(?:</script[%(s)s/>])?+"
    rb")*+(?:-->)?+))*+" % {b"s": _SPACE}
)
_RAW_TEXT = b"|".join(
    rb"<%(name)s(?=[%(s)s/>])%(attributes)s(?:[%(s)s/]*[%(s)s])?>%(content)s"  # no <title/>
    % {b"name": name, b"s": _SPACE, b"attributes": _ATTRIBUTES, b"content": content}
    for name, content in [
        (b"script", _SCRIPT),
        *(
            (name, rb"(?:[^<]++|<(?!/%b[%b/>]))*+" % (name, _SPACE))
            for name in b"style textarea title xmp iframe noembed noframes".split()
        ),
    ]
)
_COMMENT = rb"<!--(?:>|->|.*?(?:--!?>|\Z))"
_NO_TAG = rb"[^<]++|%b|<(?:[!?]|/(?![a-z]))(?!--)[^>]*+(?:>|\Z)|<(?![a-z!?/])" % _COMMENT
_MODEST = re.compile(rb"(?:%b|%b|%b)*+" % (_NO_TAG, _RAW_TEXT, _TAG), re.IGNORECASE | re.DOTALL)

_FORM = re.compile(rb"<form[\s/>]", re.IGNORECASE)
_FORM_END = re.compile(rb"</form[\s/>]", re.IGNORECASE)
_IMAGE = re.compile(rb"<img[\s/>]", re.IGNORECASE)
_INPUT = re.compile(rb"<input[\s/>]", re.IGNORECASE)
# what may hold a </form> that ends no form
_HIDING = re.compile(rb"<(?:!--|script|style|template)", re.IGNORECASE)
MAX_FORMS = 500


def has_form(body: bytes, end: int) -> bool:
    """Whether there is a form in a page's first ``end`` bytes."""
    return _FORM.search(body, 0, end) is not None


def may_ask(body: bytes, end: int) -> bool:
    """Whether a form in a page's first ``end`` bytes may hold an image and an input."""
    ends = _Next(_FORM_END, body, end)
    images = _Next(_IMAGE, body, end)
    inputs = _Next(_INPUT, body, end)
    hiding = _Next(_HIDING, body, end)
    for number, form in enumerate(_FORM.finditer(body, 0, end)):
        begin = form.end()
        if images.after(begin) == end or inputs.after(begin) == end:
            return False
        until = ends.after(begin)
        if max(images.after(begin), inputs.after(begin)) < until or hiding.after(begin) < until:
            return True
        if number == MAX_FORMS:
            return True
    return False


class _Next:
    """Where the next one is, asked for places one after the other; goes through a page once."""

    def __init__(self, pattern: re.Pattern[bytes], body: bytes, end: int) -> None:
        self._pattern = pattern
        self._body = body
        self._end = end
        self._at = -1

    def after(self, begin: int) -> int:
        """The place of the first one from ``begin`` on, or the page's end."""
        if self._at < begin:
            match = self._pattern.search(self._body, begin, self._end)
            self._at = match.start() if match else self._end
        return self._at


def cheap_part(body: bytes, most: int = MAX_TAGS) -> int:
    """How many of a page's first bytes have at most so many tags, and none with many attributes.

    :param body: in an encoding that agrees with ASCII
    """
    end = len(body)
    if body.count(b"<") > most:
        end -= len(body.split(b"<", most + 1)[-1]) + 1
    modest = _MODEST.match(body, 0, end)
    assert modest is not None  # it matches the empty page
    return modest.end()
