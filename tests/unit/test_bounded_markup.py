"""What of a page is cheap to parse: libxml2 itself is asked whether it is."""

from __future__ import annotations

import random

import pytest
from lxml import etree
from lxml.html import HTMLParser

from scrapy_captcha.markup import MAX_ATTRIBUTES, MAX_TAGS, cheap_part, has_form, may_ask

MANY = " ".join(f"a{number}" for number in range(MAX_ATTRIBUTES + 20))
FORM = b"<form><img src=/captcha.png><input name=code></form>"
#: What tokenizers may disagree about, and tags with too many attributes between it.
ATOMS = (
    *("<", "</", ">", "/>", "=", "'", '"', " ", "\n", "\f", "\v", "a", "b=1", "<a", "<div", "é"),
    *("</a", "</div>", "<!--", "-->", "--!>", "-", "!", "<!-->", "<!--->", "<!", "<?", "]]>"),
    *("<![CDATA[", "<script>", "</script>", "<script", "</script", "<style>", "</style>", "&lt;"),
    *("<!--<script>", "</script>--></script>", "<script x", "--"),
    *("<title>", "</title>", "<textarea>", "</textarea>", "<xmp>", "</xmp>", "<iframe>", "&"),
    *("</iframe>", "<noembed>", "</noembed>", "<noscript>", "</noscript>", "<svg>", "</svg>"),
    *("<template>", "<select>", "<option>", "<!doctype html>", "x='", 'y="', "=''", '=""', "= '"),
    *("='>'", '=">"', "<SCRIPT>", "</SCRIPT >", "<script/>", "<title/>", "<br/>", "<plaintext>"),
    *(f"<div {MANY}>", f"<p {MANY.replace(' ', '=x/')}>", MANY, f" {MANY} ", f"='{MANY}'"),
)


def most_attributes(page: bytes) -> int:
    parser = HTMLParser(recover=True, encoding="utf-8", huge_tree=True)
    root = etree.fromstring(page or b"<html/>", parser)
    return 0 if root is None else max(len(element.attrib) for element in root.iter("*"))


def test_no_tag_of_the_cheap_part_has_many_attributes_whatever_stands_around() -> None:
    rng = random.Random(7)
    cut = 0
    for _ in range(10_000):
        page = "".join(rng.choices(ATOMS, k=rng.randrange(2, 25))).encode()
        end = cheap_part(page)
        assert most_attributes(page[:end]) <= MAX_ATTRIBUTES, page
        cut += end < len(page)
    assert 1_000 < cut < 9_000


@pytest.mark.parametrize(
    "page",
    [
        "",
        "text < text > text",
        "<!doctype html><html><body class=x>é</body></html>",
        f"<img src='data:image/png;base64,{'A=/+' * 10_000}'>",
        f"<!-- <div {MANY}> --><p>",
        f"<script>'<div {MANY}>'</script><p>",
        f"<textarea><div {MANY}></textarea><p>",
        f"<iframe srcdoc='<div {MANY}>'></iframe><p>",
        f"<p {' '.join(f'a{number}=1' for number in range(MAX_ATTRIBUTES))}>",
        "<a title='a > b' onclick=\"if (a < b) x = '>'\">",
        "<input value=unquoted/><br/><br />",
    ],
)
def test_ordinary_markup_is_cheap_to_its_end(page: str) -> None:
    assert cheap_part(page.encode()) == len(page.encode())


def test_a_page_ends_before_a_tag_with_many_attributes() -> None:
    assert cheap_part(FORM + f"<p {MANY}>".encode() + FORM) == len(FORM)


def test_a_script_within_a_comment_of_a_script_does_not_hide_a_tag() -> None:
    page = f"<script><!--<script></script><xmp></script><p {MANY}>".encode()
    assert most_attributes(page) > MAX_ATTRIBUTES
    assert most_attributes(page[: cheap_part(page)]) == 0


def test_a_page_ends_after_so_many_tags() -> None:
    assert cheap_part(b"<p>" * (MAX_TAGS + 1)) == 3 * MAX_TAGS
    assert cheap_part(b"<p>x" * 10, 5) == 20
    assert cheap_part(b"<" * (MAX_TAGS + 1)) == MAX_TAGS


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (FORM, True),
        (FORM.upper(), True),
        (b"<form\n><input><img ></form>", True),
        (b"<form><input><img src=x>", True),
        (b"<form></form>" * 1000 + FORM, True),
        (b"<form><!-- </form> --><input><img src=x></form>", True),
        (b"<form><script>'</form>'</script><input><img src=x></form>", True),
        (b"<form><input name=q></form><img src=x>", False),
        (b"<img src=x><form><input name=q></form>", False),
        (b"<form><img src=x></form><input name=q>", False),
        (b"<img src=x><input name=q>", False),
        (b"<p>form", False),
        (b"", False),
    ],
)
def test_whether_a_form_may_hold_a_captcha_is_told_by_bytes(page: bytes, expected: bool) -> None:
    assert may_ask(page, len(page)) is expected
    assert has_form(page, len(page)) is (b"<form" in page.lower())


def test_what_lies_beyond_the_part_that_is_judged_does_not_count() -> None:
    page = b"<p>" * 10 + FORM
    assert not may_ask(page, 30)
    assert not may_ask(page, len(page) - 30)
    assert not has_form(page, 30)
