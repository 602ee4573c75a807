"""Which part of a page is judged, and in which encoding."""

from __future__ import annotations

import random

import pytest
from scrapy.http import HtmlResponse, TextResponse

from scrapy_captcha.judged import (
    JUDGED_OF_LARGER,
    MAX_WHOLE_PAGE,
    beginning,
    judged,
    select,
    tree,
)
from scrapy_captcha.markup import MAX_TAGS
from scrapy_captcha.selectors import TAGS_FOR_SLOW

URL = "http://shop.example/"
CHINESE = "<form>验证码<input name=code></form>\n"


def page(body: bytes, content_type: str = "text/html") -> HtmlResponse:
    return HtmlResponse(URL, body=body, headers={"Content-Type": content_type})


@pytest.mark.parametrize(
    "response",
    [
        page(b""),
        page(b"<p>plain</p>"),
        page("<p>é</p>".encode()),
        page(b"<p>\xe9</p>", "text/html; charset=latin1"),
        page(CHINESE.encode("gbk"), "text/html; charset=gb2312"),
        page(b"<meta charset=shift_jis>" + "認証".encode("shift_jis")),
        page(b"x" * MAX_WHOLE_PAGE),
    ],
)
def test_an_ordinary_page_is_judged_as_it_is(response: HtmlResponse) -> None:
    assert judged(response) is response
    assert tree(response) is response.selector.root


def test_of_a_larger_page_the_beginning_is() -> None:
    response = page(b"<p>" + b"x" * MAX_WHOLE_PAGE)
    assert judged(response).body == response.body[:JUDGED_OF_LARGER]
    assert len(beginning(response)) == JUDGED_OF_LARGER


def test_the_cut_does_not_break_an_encoding() -> None:
    response = page("<p>é".encode() + "é".encode() * MAX_WHOLE_PAGE)
    assert judged(response).encoding == "utf-8"
    assert "é" * 1000 in judged(response).text


def test_of_a_page_with_very_many_tags_the_first_are() -> None:
    response = page(b"<p>x" * (MAX_TAGS + 10))
    assert judged(response).body == b"<p>x" * MAX_TAGS
    assert len(select(response, "p")) == MAX_TAGS


def test_a_selector_that_may_be_slow_sees_fewer() -> None:
    response = page(b"<p>x" * 2 * TAGS_FOR_SLOW)
    assert len(select(response, "p")) == 2 * TAGS_FOR_SLOW
    assert len(select(response, "p:nth-child(n)")) == TAGS_FOR_SLOW


def test_a_page_that_is_judged_in_part_is_parsed_once() -> None:
    response = page(b"<p>x" * (MAX_TAGS + 10))
    assert judged(response) is judged(response)
    assert tree(judged(response)) is tree(judged(response))


def test_what_nests_deep_in_a_large_page_is_left_out() -> None:
    response = page(b"<p>x" * 5_000 + b"<div>" * 5_000 + b"<b>deep")
    assert tree(response) is not response.selector.root
    assert len(select(response, "p")) == 5_000
    assert select(response, "b") == []


@pytest.mark.parametrize(
    ("body", "content_type", "encoding"),
    [
        (CHINESE.encode("gbk") * 5, "text/html", "gb18030"),
        (b"<p>caf\xe9", "text/html", "cp1252"),
        (b"<p>x", "text/html; charset=raw_unicode_escape", "utf-8"),
        (b"<p>x", "text/html; charset=punycode", "utf-8"),
        (b"<p>x", "text/html; charset=hex", "utf-8"),
        (b"<meta charset=idna><p>x", "text/html", "utf-8"),
        ("<p>é".encode("utf-16"), "text/html; charset=utf-16", "utf-8"),
        ("<p>認証".encode("iso2022_jp"), "text/html; charset=iso-2022-jp", "iso2022_jp"),
        (b"\xff\xfe\xfd" * 100, "text/html; charset=utf-8", "utf-8"),
    ],
)
def test_other_encodings_are_decoded_by_what_browsers_know(
    body: bytes, content_type: str, encoding: str
) -> None:
    response = page(body, content_type)
    assert judged(response).encoding == encoding
    assert isinstance(judged(response).text, str)
    tree(judged(response))


def test_utf_16_is_read_as_such() -> None:
    response = page(CHINESE.encode("utf-16"), "text/html; charset=utf-16")
    assert "验证码" in judged(response).text
    assert "验证码" in beginning(response)
    assert len(select(response, "form input")) == 1


def test_nul_bytes_are_left_out_before_tags_are_counted() -> None:
    response = page(b"<\x00p>" * 10 + b"<\x00b a=\x001>")
    assert len(select(response, "p")) == 10
    assert select(response, "b")[0].get("a") == "1"


def test_noise_is_no_page_and_no_error() -> None:
    noise = random.Random(1).randbytes(MAX_WHOLE_PAGE)
    for content_type in ("text/html", "text/html; charset=utf-8", "text/html; charset=gb18030"):
        response = page(noise, content_type)
        assert select(response, "form.gate") == []
        assert len(beginning(response)) <= JUDGED_OF_LARGER


@pytest.mark.parametrize("body", [b"", b"<!-->", b"<!-- x -->", b" \n", b"<?xml version='1.0'?>"])
def test_a_page_without_an_element_has_a_tree(body: bytes) -> None:
    assert select(page(body), "p") == []
    assert select(page(body + b"<!---->" * 6_000), "p") == []


def test_other_texts_are_judged_as_pages() -> None:
    response = TextResponse(URL, body=b"<p class=ok>fine", encoding="utf-8")
    assert len(select(response, "p.ok")) == 1
    assert beginning(response) == "<p class=ok>fine"
