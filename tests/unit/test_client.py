"""Where our own requests may go, and whose session they belong to."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
from scrapy import Request
from scrapy.downloadermiddlewares.httpproxy import HttpProxyMiddleware
from scrapy.http import Response

from scrapy_captcha.address import (
    check_allowed,
    check_form,
    leads_to_wall,
    redirect_target,
    same_page,
)
from scrapy_captcha.client import proxy_of
from scrapy_captcha.config import SiteRule
from scrapy_captcha.errors import AttemptFailed

PAGE = "http://shop.example/list"


@pytest.mark.parametrize(
    ("url", "page"),
    [
        ("http://shop.example/captcha", PAGE),
        ("http://SHOP.example/captcha", PAGE),
        ("http://shop.example:80/captcha", PAGE),
        ("https://shop.example/captcha", PAGE),
        ("https://shop.example/captcha", "https://shop.example/"),
        ("http://shop.example:8080/c", "http://shop.example:8080/"),
        ("http://127.0.0.1:8000/c", "http://127.0.0.1:8000/"),
        ("http://[::1]:8000/c", "http://[::1]:8000/"),
    ],
)
def test_the_page_s_own_host_is_allowed(url: str, page: str) -> None:
    check_allowed(url, page, "image")


@pytest.mark.parametrize(
    ("url", "page", "reason"),
    [
        ("http://evil.example/c", PAGE, "image_host"),
        ("http://shop.example.evil.example/c", PAGE, "image_host"),
        ("http://img.shop.example/c", PAGE, "image_host"),
        ("http://example/c", PAGE, "image_host"),
        ("http://shop.example:8080/c", PAGE, "image_host"),
        ("https://shop.example:8443/c", PAGE, "image_host"),
        ("https://shop.example/c", "http://shop.example:8080/", "image_host"),
        ("http://user@shop.example/c", PAGE, "image_host"),
        ("http://user:pw@shop.example/c", PAGE, "image_host"),
        ("http://shop.example@evil.example/c", PAGE, "image_host"),
        ("http://shop.example:99999/c", PAGE, "image_host"),
        ("http://shop.example:port/c", PAGE, "image_host"),
        ("http://[::1/c", PAGE, "image_host"),
        ("http:///c", PAGE, "image_host"),
        ("http://shop.example", "https://shop.example/", "image_scheme"),
        ("file:///etc/passwd", PAGE, "image_scheme"),
        ("ftp://shop.example/c", PAGE, "image_scheme"),
        ("s3://shop.example/c", PAGE, "image_scheme"),
        ("javascript:alert(1)", PAGE, "image_scheme"),
        ("/relative", PAGE, "image_scheme"),
        ("", PAGE, "image_scheme"),
    ],
)
def test_anything_else_is_refused_for_good(url: str, page: str, reason: str) -> None:
    with pytest.raises(AttemptFailed) as caught:
        check_allowed(url, page, "image")
    assert caught.value.reason == reason
    assert caught.value.final


def test_listed_hosts_are_allowed_with_or_without_a_port() -> None:
    hosts = {"cdn.example", "img.example:8080"}
    check_allowed("https://cdn.example/c", PAGE, "image", hosts)
    check_allowed("http://cdn.example:8000/c", PAGE, "image", hosts)
    check_allowed("http://img.example:8080/c", PAGE, "image", hosts)
    for url in ("http://img.example/c", "http://user@cdn.example/", "ftp://cdn.example/"):
        with pytest.raises(AttemptFailed):
            check_allowed(url, PAGE, "image", hosts)


def test_the_submit_rule_allows_its_own_host_alone() -> None:
    rule = SiteRule("shop.example", submit="https://login.example/check")
    check_form(rule, "https://login.example/check", PAGE)
    check_form(rule, "http://shop.example/go", PAGE)
    for url in ("http://login.example/check", "https://evil.example/check"):
        with pytest.raises(AttemptFailed, match="form_host"):
            check_form(rule, url, PAGE)


# -- proxies

BASIC = base64.b64encode(b"ann:se:cret").decode()


@pytest.mark.parametrize(
    ("meta", "headers", "expected"),
    [
        ({}, {}, ""),
        ({"proxy": None}, {}, ""),
        ({"proxy": ""}, {}, ""),
        ({"proxy": "http://proxy.example:3128"}, {}, "@proxy.example:3128"),
        ({"proxy": "proxy.example:3128"}, {}, "@proxy.example:3128"),
        ({"proxy": "http://ann:se%3Acret@proxy.example"}, {}, f"{BASIC}@proxy.example"),
        (
            {"proxy": "http://proxy.example"},
            {"Proxy-Authorization": f"Basic {BASIC}"},
            f"{BASIC}@proxy.example",
        ),
    ],
)
def test_a_proxy_is_told_from_others_by_its_credentials_too(
    meta: dict[str, Any], headers: dict[str, str], expected: str
) -> None:
    assert proxy_of(Request(PAGE, meta=meta, headers=headers)) == expected


@pytest.mark.parametrize(
    "proxy",
    [
        "http://ann:secret@proxy.example:3128",
        "http://ann:se%3Acr%40et@proxy.example:3128",
        "http://ann:@proxy.example",
        "ann:secret@proxy.example:3128",
        "https://proxy.example:3128",
    ],
)
def test_the_key_is_the_same_after_scrapy_has_moved_the_credentials(proxy: str) -> None:
    request = Request(PAGE, meta={"proxy": proxy})
    before = proxy_of(request)
    HttpProxyMiddleware().process_request(request)
    assert "@" not in request.meta["proxy"]
    assert proxy_of(request) == before


# -- redirects


def redirected(location: str | None, status: int = 302) -> Response:
    headers = {"Location": location} if location is not None else {}
    return Response("http://shop.example/a/b", status=status, headers=headers)


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (redirected("/c"), "http://shop.example/c"),
        (redirected("c?x=1"), "http://shop.example/a/c?x=1"),
        (redirected("//evil.example/c"), "http://evil.example/c"),
        (redirected("https://x.example/ü"), "https://x.example/%C3%BC"),
        (redirected("/c", 301), "http://shop.example/c"),
        (redirected("/c", 308), "http://shop.example/c"),
        (redirected("/c", 304), None),
        (redirected("/c", 200), None),
        (redirected(None), None),
    ],
)
def test_where_a_redirect_leads(response: Response, expected: str | None) -> None:
    assert redirect_target(response) == expected


def test_a_redirect_to_a_wall_is_told_by_its_location_alone() -> None:
    rule = SiteRule("shop.example", redirect=re.compile(r"/captcha(\?|$)"))
    assert leads_to_wall(redirected("/captcha"), rule)
    assert leads_to_wall(redirected("http://shop.example/captcha?next=/x"), rule)
    assert not leads_to_wall(redirected("/captchas"), rule)
    assert not leads_to_wall(redirected("/captcha", 200), rule)
    assert not leads_to_wall(redirected("/captcha"), SiteRule("shop.example"))


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("http://shop.example/list", True),
        ("http://SHOP.example:80/list#top", True),
        ("http://shop.example/list?", True),
        ("http://shop.example/list/", False),
        ("http://shop.example/list?n=1", False),
        ("https://shop.example/list", False),
        ("http://other.example/list", False),
    ],
)
def test_the_same_page_under_another_spelling(url: str, same: bool) -> None:
    assert same_page(url, PAGE) is same


def test_the_root_has_two_spellings() -> None:
    assert same_page("http://shop.example", "http://shop.example/")
