"""Where our own requests may go, and whose session they belong to."""

from __future__ import annotations

import asyncio
import base64
import random
from typing import Any
from urllib.parse import unquote_to_bytes, urljoin

import pytest
from scrapy import Request
from scrapy.downloadermiddlewares.httpproxy import HttpProxyMiddleware
from scrapy.http import Response
from scrapy.utils.test import get_crawler
from twisted.web.client import URI

from scrapy_captcha.address import (
    check_allowed,
    check_form,
    leads_to_wall,
    redirect_target,
    referer,
    same_page,
)
from scrapy_captcha.client import Client, Visit, proxy_of
from scrapy_captcha.config import SiteRule
from scrapy_captcha.data_url import unescaped
from scrapy_captcha.errors import AttemptFailed
from scrapy_captcha.patterns import Pattern

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
        ("http://bücher.example/c", "http://xn--bcher-kva.example/"),
        (" http://shop.example/c\n", PAGE),
        ("http://shop.example\\@evil.example/c", PAGE),  # to Scrapy as to browsers, a slash
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
        ("https://evil.example/c", PAGE, "image_host"),
        ("http://shop.example:8000/c", PAGE, "image_host"),
        ("http://shop.example./c", PAGE, "image_host"),
        ("http://shop%2eexample/c", PAGE, "image_host"),
        ("http://xn--shop-x.example/c", PAGE, "image_host"),
        ("http://shop\u3002example.evil.example/c", PAGE, "image_host"),
        ("http://evil.example\\.shop.example/c", PAGE, "image_host"),
        ("http://evil.example#@shop.example/c", PAGE, "image_host"),
        ("http://evil.example?@shop.example/c", PAGE, "image_host"),
        ("http:///shop.example/c", PAGE, "image_host"),
        ("http://127.0.0.1/c", PAGE, "image_host"),
        ("http://169.254.169.254/latest/meta-data", PAGE, "image_host"),
        ("http://[fe80::1]/c", PAGE, "image_host"),
        ("http://localhost/c", "http://127.0.0.1/", "image_host"),
        ("http://2130706433/c", "http://127.0.0.1/", "image_host"),
        ("http://0x7f000001/c", "http://127.0.0.1/", "image_host"),
        ("http://0177.0.0.1/c", "http://127.0.0.1/", "image_host"),
        ("http://127.1/c", "http://127.0.0.1/", "image_host"),
        ("http://[::ffff:127.0.0.1]/c", "http://127.0.0.1/", "image_host"),
        ("http://[::ffff:7f00:1]/c", "http://127.0.0.1/", "image_host"),
        pytest.param(f"http://{'é' * 300_000}.example/c", PAGE, "image_host", id="long host"),
        pytest.param(f"http://shop.example/{'é' * 300_000}", PAGE, "image_host", id="long path"),
        pytest.param(f"http://{'a' * 300_000}@shop.example/", PAGE, "image_host", id="long user"),
        ("data:text/html,x", PAGE, "image_scheme"),
        ("view-source:http://shop.example/", PAGE, "image_scheme"),
        ("blob:http://shop.example/c", PAGE, "image_scheme"),
        ("HTTP+unix://shop.example/c", PAGE, "image_scheme"),
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
    hosts = frozenset({"cdn.example", "img.example:8080"})
    check_allowed("https://cdn.example/c", PAGE, "image", hosts)
    check_allowed("http://cdn.example:8000/c", PAGE, "image", hosts)
    check_allowed("http://img.example:8080/c", PAGE, "image", hosts)
    for url in ("http://img.example/c", "http://user@cdn.example/", "ftp://cdn.example/"):
        with pytest.raises(AttemptFailed):
            check_allowed(url, PAGE, "image", hosts)


def test_a_listed_host_may_be_an_ipv6_address() -> None:
    check_allowed("http://[::1]:8080/c", PAGE, "image", frozenset({"[::1]:8080"}))
    check_allowed("http://[::1]:8080/c", PAGE, "image", frozenset({"[::1]"}))
    rule = SiteRule("shop.example", submit="http://[::1]:8080/check")
    check_form(rule, "http://[::1]:8080/check", PAGE)
    with pytest.raises(AttemptFailed):
        check_allowed("http://[::1]:8081/c", PAGE, "image", frozenset({"[::1]:8080"}))


#: Of these URLs are made, some of which the allow-list passes.
ATOMS = (
    *("http:", "https:", "http://", "https://", "ftp:", "file:", "javascript:", "data:", "//"),
    *("///", "/", "\\", "@", ":", "#", "?", "&", ";", ".", "..", "%2e", "%40", "%2f", "%00"),
    *("shop.example", "SHOP.EXAMPLE", "shop.example.", "evil.example", ":80", ":443", ":8080"),
    *("[", "]", "[::1]", "[::ffff:127.0.0.1]", "127.0.0.1", "0x7f.1", "2130706433", "user:pw"),
    *("\t", "\n", "\r", " ", "\x00", "\x0b", "\u3002", "\uff0e", "\uff20", "\uff0f", "\xad", "ß"),
)


def test_what_the_allow_list_passes_is_sent_to_the_page_s_host_alone() -> None:
    """Whatever a page writes: as the request is built, and as Twisted reads its URL."""
    rng = random.Random(11)
    passed = 0
    for _ in range(20_000):
        written = "".join(rng.choices(ATOMS, k=rng.randrange(1, 9)))
        try:
            url = urljoin(PAGE, written)
        except ValueError:
            url = written
        try:
            check_allowed(url, PAGE, "image")
        except AttemptFailed:
            continue
        passed += 1
        sent = URI.fromBytes(Request(url).url.partition("#")[0].encode())
        assert (sent.scheme, sent.host.lower(), sent.port) in {
            (b"http", b"shop.example", 80),
            (b"https", b"shop.example", 443),
        }, written
    assert passed > 1_000


@pytest.mark.parametrize(
    ("url", "target", "expected"),
    [
        (f"{PAGE}?code=1a8m#top", "http://shop.example/go", f"{PAGE}?code=1a8m"),
        (f"{PAGE}?code=1a8m", "http://cdn.example/c", "http://shop.example/"),
        (f"{PAGE}?code=1a8m", "https://shop.example/go", "http://shop.example/"),
        (f"{PAGE}?code=1a8m", "http://shop.example:8080/go", "http://shop.example/"),
        ("http://ada:pw@shop.example/", "http://shop.example/go", "http://shop.example/"),
    ],
)
def test_another_origin_learns_the_page_s_origin_alone(
    url: str, target: str, expected: str
) -> None:
    assert referer(url, target) == expected


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


# -- images within the page


def image_in(url: str) -> bytes:
    client = Client(get_crawler())
    return asyncio.run(client.image(Visit(Request(PAGE), SiteRule("shop.example")), url, PAGE))


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64,iVBORw0KGgo=",
        "DATA:image/png;BASE64,iVBORw0KGgo=",
        "data:;base64,iVBORw0KGgo",
        "data:image/png;name=a.png;base64,iVBO\n Rw0K\tGgo=",
        "data:image/png;base64 , iVBORw0KGgo%3D",
        "data:image/png,%89PNG%0D%0A%1A%0A",
        pytest.param(f"data:image/png{';a=b' * 250_000};base64,iVBORw0KGgo=", id="parameters"),
    ],
)
def test_a_data_url_is_read_whatever_it_says_of_itself(url: str) -> None:
    assert image_in(url) == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    "url",
    ["data:image/png;base64,A", pytest.param(f"data:,{'A' * (2 << 20)}", id="long")],
)
def test_a_data_url_that_is_none_is_no_image(url: str) -> None:
    with pytest.raises(AttemptFailed) as caught:
        image_in(url)
    assert caught.value.reason == "image_invalid"


def test_escapes_are_read_as_the_standard_library_reads_them() -> None:
    rng = random.Random(0)
    texts = [bytes(rng.choices(b"%%%%%09aAfFgz.+\xff", k=rng.randrange(12))) for _ in range(5000)]
    texts += [b"%" * (1 << 20), b"%4" * (1 << 18), b"%414" * (1 << 18)]
    assert [unescaped(text) for text in texts] == [unquote_to_bytes(text) for text in texts]


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
    rule = SiteRule("shop.example", redirect=Pattern(r"/captcha(\?|$)"))
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
