"""What of a page is looked at: so much that no page takes long, whoever has written it.

A page is judged whole up to 1 MiB, and on its first 256 KiB beyond that. It ends earlier where it
would be slow to parse (:mod:`scrapy_captcha.markup`), and what nests too deep in it is left out.
"""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from lxml import etree
from lxml.html import HTMLParser
from scrapy.http import HtmlResponse
from scrapy.utils.response import get_base_url

from scrapy_captcha.markup import MAX_TAGS, cheap_part
from scrapy_captcha.selectors import TAGS_FOR_SLOW, selector

if TYPE_CHECKING:
    from lxml.html import HtmlElement
    from scrapy.http import TextResponse

MAX_WHOLE_PAGE = 1 << 20
JUDGED_OF_LARGER = 256 << 10
#: With so few tags no order of them is slow to parse. In pages with more, libxml2 may nest 256
#: elements, not 2,048: it goes through all that are open for an end tag that matches none.
FEW_TAGS = 5_000
#: How much of a page is looked at for its encoding, if it names none and is not UTF-8.
SAMPLE = 64 << 10

# those that agree with ASCII, by Python's names
_PLAIN = re.compile(
    r"ascii|utf-8|iso8859-\d+|cp(?:125\d|874|866|932|949|950)|koi8-[rut]|mac-.*|tis-620|"
    r"gbk|gb2312|gb18030|big5(?:hkscs)?|euc_(?:jp|kr|jis_2004|jisx0213)|shift_jis(?:_2004|x0213)?"
)
# to the last byte that is none of a character of several bytes in any of them
_CHARACTER_END = re.compile(rb".*[\x00-\x2f:-?]", re.DOTALL)
# browsers know these too, and send forms in the latter: of pages in UTF-16 they do so in UTF-8
_OTHER = {
    "utf-16": "utf-8",
    "utf-16-le": "utf-8",
    "utf-16-be": "utf-8",
    "iso2022_jp": "iso2022_jp",
}
#: Copies of pages that are not judged as they are, by how many tags of them are; ``None`` for one
#: that is.
_copies: WeakKeyDictionary[TextResponse, dict[int, HtmlResponse | None]] = WeakKeyDictionary()
_trees: WeakKeyDictionary[HtmlResponse, HtmlElement] = WeakKeyDictionary()


def judged(response: TextResponse, tags: int = MAX_TAGS) -> HtmlResponse:
    """The part of a page that is judged: most often the page itself, the same object.

    :param tags: end before there are more of them
    """
    copies = _copies.setdefault(response, {})
    if tags not in copies:
        copies[tags] = _copy(response, tags)
    page = copies[tags] or response
    assert isinstance(page, HtmlResponse)
    return page


def _copy(response: TextResponse, tags: int) -> HtmlResponse | None:
    body = response.body[: judged_size(response)]
    encoding, simple = _encoding(response, body)
    form_encoding = encoding
    if encoding in _OTHER:
        body, simple = body.decode(encoding, "replace").encode(), False
        encoding, form_encoding = "utf-8", _OTHER[encoding]
    body = body.replace(b"\x00", b"")  # as Scrapy's selectors do
    body = body[: cheap_part(body, tags)]
    if simple and len(body) == len(response.body) and isinstance(response, HtmlResponse):
        return None
    return HtmlResponse(
        response.url,
        response.status,
        response.headers,
        body.decode(encoding, "replace").encode(form_encoding, "replace"),
        response.flags,
        response.request,
        encoding=form_encoding,
    )


def judged_size(response: TextResponse) -> int:
    """How many of a page's first bytes are judged, at most."""
    size = len(response.body)
    return size if size <= MAX_WHOLE_PAGE else JUDGED_OF_LARGER


def beginning(response: TextResponse) -> str:
    """The first 256 KiB of a page as text; bytes that its encoding does not have are replaced."""
    body = response.body[:JUDGED_OF_LARGER]
    return body.decode(_encoding(response, body)[0], "replace")


def tree(page: HtmlResponse) -> HtmlElement:
    """The root of a page's tree, for a small page that of the spider's own selectors.

    :param page: as :func:`judged` gave it
    """
    if page.body.count(b"<") <= FEW_TAGS:
        return page.selector.root
    if page not in _trees:
        parser = HTMLParser(recover=True, encoding="utf-8", huge_tree=False)
        body = page.text.replace("\x00", "").encode()
        root = etree.fromstring(body, parser, base_url=get_base_url(page))
        _trees[page] = root if root is not None else etree.fromstring(b"<html/>", parser)
    return _trees[page]


def select(response: TextResponse, css: str) -> list[HtmlElement]:
    """What a selector matches in the part of a page that is judged."""
    return selector(css).select(tree(judged(response, tags_for(css))))


def tags_for(*css: str | None) -> int:
    """How many tags of a page are judged when it is asked for these selectors."""
    slow = any(selector(each).slow for each in css if each is not None)
    return TAGS_FOR_SLOW if slow else MAX_TAGS


def _encoding(response: TextResponse, body: bytes) -> tuple[str, bool]:
    """The encoding of a page, and whether Scrapy takes the same and does not guess for seconds.

    :param body: the part of the page that counts
    """
    declared = response._declared_encoding()
    if declared is not None:
        known = known_encoding(declared)
        return known or "utf-8", known is not None
    try:
        whole = len(body) == len(response.body)
        codecs.getincrementaldecoder("utf-8")().decode(body, final=whole)
    except UnicodeDecodeError:
        return _guessed(body[:SAMPLE]), False
    return "utf-8", True


def _guessed(sample: bytes) -> str:
    """The encoding that Scrapy takes a page for that begins so and is not UTF-8."""
    whole = _CHARACTER_END.match(sample)  # half a character would speak against its encoding
    page = HtmlResponse("http://sample.invalid/", body=whole[0] if whole else sample)
    known = known_encoding(page.encoding)
    return "cp1252" if known in {None, "ascii", "utf-8"} else str(known)


def known_encoding(encoding: str) -> str | None:
    """Python's name of an encoding that browsers know, and that costs no more than any other."""
    try:
        name = codecs.lookup(encoding).name
    except LookupError:
        return None
    return name if _PLAIN.fullmatch(name) or name in _OTHER else None
