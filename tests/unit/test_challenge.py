"""Which pages are walls, and where image, form and field are in them."""

from __future__ import annotations

from typing import Any

import pytest
from scrapy.http import HtmlResponse, Response, TextResponse
from scrapy.settings import Settings as ScrapySettings

from scrapy_captcha.challenge import (
    REDIRECTED_TO_WALL,
    Challenge,
    action_url,
    find,
    locate,
)
from scrapy_captcha.config import Settings, SiteRule

URL = "http://shop.example/list/page?n=1"
CAPTCHA = "<form action=/go><img src=/captcha.png><input name=code></form>"


def rule(**keys: Any) -> SiteRule:
    settings = ScrapySettings({"CAPTCHA_SITES": {"shop.example": keys}})
    return Settings.from_settings(settings).sites["shop.example"]


def page(body: str | bytes, *, status: int = 200, url: str = URL, **kwargs: Any) -> HtmlResponse:
    data = body if isinstance(body, bytes) else body.encode()
    return HtmlResponse(url, body=data, status=status, **{"encoding": "utf-8", **kwargs})


def found(body: str, *, status: int = 200, **keys: Any) -> tuple[str | None, str | None]:
    """Image and field of a wall."""
    challenge = find(page(body, status=status), rule(**keys))
    assert challenge is not None
    return challenge.image_url, challenge.field


WALLS = {
    "the image's address says it": CAPTCHA,
    "the input's name says it": "<form><img src=/a.png><input name=vcode></form>",
    "the alt text says it": "<form><img src=/a.png alt='Security code'><input name=x></form>",
    "the placeholder says it": "<form><img src=a.png><input name=x placeholder='verify'></form>",
    "the title says it": (
        "<title>Are you a robot?</title><form><img src=/a.png><input name=x></form>"
    ),
    "a heading says it": "<h2>Human check</h2><form><img src=/a.png><input name=x></form>",
    "Chinese": "<form>验证码<img src=/a.png><input name=x></form>",
    "traditional Chinese": "<h1>請輸入驗證碼</h1><form><img src=/a.png><input name=x></form>",
    "pinyin": "<form><img src=/a.png><input name=yzm></form>",
    "a robot's question": (
        "<h1>Prove that you are not a robot</h1><form><img src=/a.png><input name=x></form>"
    ),
    "an instruction": "<form>Enter the letters below<img src=/a.png><input name=x></form>",
    "Russian": "<form><img src=/a.png alt='Капча'><input name=x></form>",
    "hidden fields and buttons beside it": (
        "<form><input type=hidden name=csrf value=1><img src=/captcha.png><input name=code>"
        "<input type=submit value=OK><button>Reload</button></form>"
    ),
    "a checkbox and a select beside it": (
        "<form><img src=/captcha.png><input name=code><input type=checkbox name=remember>"
        "<select name=lang><option>en</select></form>"
    ),
    "a field that is filled in already": (
        "<form><img src=/captcha.png><input name=user value=ada><input name=code></form>"
    ),
    "a honeypot that nobody sees": (
        "<form><input name=email style='display:none'><img src=/captcha.png>"
        "<input name=code><input name=url hidden></form>"
    ),
    "a table": (
        "<table><form><tr><td><img src=/captcha.png></td><td><input name=code></td></tr></form>"
        "</table>"
    ),
    "several forms": (
        "<form action=/search><input name=q></form><form action=/x><input type=email name=mail>"
        f"</form>{CAPTCHA}"
    ),
    "upper case without quotes": "<FORM METHOD=POST><IMG SRC=/CAPTCHA.PHP><INPUT NAME=CODE></FORM>",
    "an input of type tel": "<form><img src=/captcha.png><input type=tel name=code></form>",
    "without scripts": f"<noscript>{CAPTCHA}</noscript>",
    "a comment that ends no form": (
        "<form action=/go><!-- </form> --><img src=/captcha.png><input name=code></form>"
    ),
    "a script that ends no form": (
        "<form action=/go><script>x = '</form>'</script><img src=/captcha.png><input name=code>"
    ),
    "after a form in a comment": f"<!-- <form> -->{CAPTCHA}",
    "after many empty forms": f"{'<form></form>' * 15_000}{CAPTCHA}",
    "after a form without an end": f"<form action=/find><p>{CAPTCHA}</p>",
    "a huge image in the page": CAPTCHA.replace(
        "/captcha.png", f"'data:image/png;base64,{'A' * 500_000}' alt=captcha"
    ),
    "a tag over two lines": "<form\naction=/go><img src=/captcha.png><input name=code></form>",
}


@pytest.mark.parametrize("name", WALLS)
def test_a_captcha_page_is_a_wall(name: str) -> None:
    challenge = find(page(WALLS[name]), rule())
    assert challenge is not None
    assert challenge.image_url is not None
    assert challenge.field in {"code", "x", "vcode", "yzm", "CODE"}
    assert challenge.form is not None
    assert challenge.why.startswith("an image and a text input share a form; ")


@pytest.mark.parametrize("content_type", ["text/html", "text/plain"])
@pytest.mark.parametrize("charset", ["utf-16", "utf-16-le", "utf-16-be", "", "le", "be"])
def test_a_captcha_page_in_utf_16_is_a_wall(content_type: str, charset: str) -> None:
    """By its byte order mark, its header, both, or neither."""
    encoding = charset if len(charset) > 2 else f"utf-16-{charset}".rstrip("-")
    html = f"<!doctype html><p>\u9a8c\u8bc1{CAPTCHA}"
    header = f"{content_type}; charset={charset}" if charset == encoding else content_type
    kind = HtmlResponse if content_type == "text/html" else TextResponse
    for text, is_wall in ((html, True), (html.replace("<img", "<i"), False)):
        response = kind(URL, body=text.encode(encoding), headers={"Content-Type": header})
        assert (find(response, rule()) is not None) is is_wall


@pytest.mark.parametrize("status", [401, 403, 429, 503])
def test_the_status_alone_may_give_a_wall_away(status: int) -> None:
    body = "<form><img src=/a.png><input name=x></form>"
    assert find(page(body), rule()) is None
    assert found(body, status=status) == ("http://shop.example/a.png", "x")


ORDINARY = {
    "empty": "",
    "text": "<p>Price: 7</p>",
    "a search form": "<form action=/search><input name=q><button>Go</button></form>",
    "a search form with an icon": "<form><img src=/search-icon.png><input name=q></form>",
    "a search form with an image": "<form><img src=/shop.png><input name=search></form>",
    "a login": ("<form><img src=/logo.png><input name=user><input type=password name=pass></form>"),
    "a login with a captcha": (
        "<form><input name=user><input type=password name=pass><img src=/captcha.png>"
        "<input name=code></form>"
    ),
    "a comment form with a captcha": (
        "<form><textarea name=text></textarea><input name=author><img src=/captcha.png>"
        "<input name=captcha></form>"
    ),
    "a textarea and a captcha": (
        "<form><textarea name=text></textarea><img src=/captcha.png><input name=captcha></form>"
    ),
    "a query form with a captcha": (
        "<form>Name <input name=name><img src=/captcha.png><input name=code></form>"
    ),
    "an upload with a captcha": (
        "<form><input type=file name=f><img src=/captcha.png><input name=code></form>"
    ),
    "a newsletter form": "<form><img src=/banner.png><input type=email name=email></form>",
    "a voucher form": "<form><img src=/gift.png><input name=coupon></form>",
    "a basket": "<form><img src=/book.jpg><input name=quantity value=1><button>Buy</button></form>",
    "a basket for a robot": (
        "<title>Robot vacuum</title><form><img src=/img/robot.jpg>Engraving, at most 20 characters"
        "<input name=engraving><button>Buy</button></form>"
    ),
    "human resources": (
        "<h1>Human Resources</h1><form><img src=/team.jpg><input name=vacancy></form>"
    ),
    "a verified seller": (
        "<h2>Verified seller</h2><form><img src=/verified.png><input name=note></form>"
    ),
    "a gift card": "<form><img src=/gift.png><input name=gift_code></form>",
    "a voucher": "<form><img src=/bag.png><input name=voucherCode></form>",
    "a product's code": "<form><img src=/book.png><input name=product_code></form>",
    "a tracking code": "<form><img src=/van.png><input name=tracking-code></form>",
    "an invitation": "<form><img src=/party.png><input name=invite_code></form>",
    "an image and an input outside of a form": "<img src=/captcha.png><input name=code>",
    "a captcha without an input": "<form><img src=/captcha.png><button>OK</button></form>",
    "a captcha without an image": "<form>Captcha: <input name=captcha></form>",
    "an image without an address": "<form><img alt=captcha><input name=captcha></form>",
    "the word alone": "<h1>What is a captcha?</h1><p>form</p>",
    "a form in a comment": f"<!-- {CAPTCHA} --><p>Hello</p>",
    "a form in a script": f"<script>document.write('{CAPTCHA}')</script>",
    "a form in a template": f"<template>{CAPTCHA}</template><p>Hello</p>",
    "a form in a frame's document": f'<iframe srcdoc="{CAPTCHA}"></iframe><form></form>',
    "a form in a frame": f"<iframe>{CAPTCHA}</iframe>",
    "a form in a textarea": f"<form><textarea name=html>{CAPTCHA}</textarea></form>",
    "a form in a title": f"<title>{CAPTCHA}</title>",
    "a form in a style": f"<style>{CAPTCHA}</style>",
    "a form in an attribute": f"<form data-preview='{CAPTCHA}'><img src=/a.png></form>",
    "a captcha in another form": (
        f"<form action=/find><div>Find <input name=words>{CAPTCHA}</div></form>"
    ),
}


@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_page_is_no_wall(name: str) -> None:
    assert find(page(ORDINARY[name]), rule()) is None


@pytest.mark.parametrize(
    "response",
    [
        Response(URL, body=CAPTCHA.encode()),
        TextResponse(URL, body=CAPTCHA.encode(), encoding="utf-8"),
        page(b""),
        page(b"\x00\xff\xfe<form >" * 100),
        page("<form>" * 5000 + CAPTCHA),
        page("<div>" * 20000 + CAPTCHA),
        page(CAPTCHA * 15_000),
        page("<form>" + "<input name=a>" * 50_000 + CAPTCHA),
        page("<form>" + "<img src=/captcha.png><input name=code>" * 20_000),
        page(f"<form name={'x' * 500_000}><img src={'c' * 200_000}><input name={'d' * 200_000}>"),
        page("<h1>x<h2>y" * 2_000 + "<title>z</title>" * 20_000 + CAPTCHA),
        page(CAPTCHA + "<p " + " ".join(f"a{n}" for n in range(100_000)) + ">"),
        page(CAPTCHA.encode() + b"\xe9\xe8 abc" * 150_000, encoding=None),
        page(CAPTCHA.replace("/go", "http://[x/")),
        page(CAPTCHA.replace("/captcha.png", "http://a:99999999/c")),
    ],
    ids=[
        *("bytes", "text", "empty", "noise", "nested forms", "deep", "forms", "inputs", "both"),
        *("long names", "headings", "attributes", "no encoding", "broken action", "broken image"),
    ],
)
def test_odd_responses_are_judged_without_an_error(response: Response) -> None:
    find(response, rule())
    find(response, rule(detect="form.gate input"))
    find(response, rule(image="form img", form="div form"))
    locate(response, rule())


# -- what is what


@pytest.mark.parametrize(
    ("src", "expected"),
    [
        ("captcha.png", "http://shop.example/list/captcha.png"),
        ("/captcha.png", "http://shop.example/captcha.png"),
        ("?captcha", "http://shop.example/list/page?captcha"),
        ("../c/captcha", "http://shop.example/c/captcha"),
        ("//cdn.example/captcha.png", "http://cdn.example/captcha.png"),
        ("https://cdn.example/captcha.png", "https://cdn.example/captcha.png"),
        ("  /captcha.png\n", "http://shop.example/captcha.png"),
        ("data:image/png;base64,AAAA", "data:image/png;base64,AAAA"),
        ("DATA:image/png;base64,AAAA", "DATA:image/png;base64,AAAA"),
    ],
)
def test_the_image_s_address_is_made_absolute(src: str, expected: str) -> None:
    body = f'<form>captcha<img src="{src}"><input name=code></form>'
    assert found(body)[0] == expected


def test_a_base_href_counts_for_image_and_action() -> None:
    body = "<base href='/deep/'><form action=go><img src=captcha.png><input name=code></form>"
    response = page(body)
    challenge = find(response, rule())
    assert challenge is not None
    assert challenge.form is not None
    assert challenge.image_url == "http://shop.example/deep/captcha.png"
    assert action_url(response, challenge.form) == "http://shop.example/deep/go"


def test_a_form_without_an_action_is_sent_to_its_page() -> None:
    response = page("<base href=/x/><form action=''><img src=captcha.png><input name=code></form>")
    challenge = find(response, rule())
    assert challenge is not None
    assert challenge.form is not None
    assert action_url(response, challenge.form) == URL


def test_the_captcha_is_told_from_logos_and_other_inputs() -> None:
    body = (
        "<form><img src=/logo.png class=logo><img src=/flags/en.png>"
        "<input name=nick value=ada><img id=vcode src=/x><input name=other value=1>"
        "<input name=answer></form>"
    )
    assert found(body) == ("http://shop.example/x", "answer")


def test_an_input_that_says_captcha_is_preferred_to_the_first() -> None:
    body = "<form><img src=/captcha.png><input name=a><input name=captcha></form>"
    challenge = locate(page(body), rule())
    assert challenge is not None
    assert challenge.field == "captcha"


def test_inputs_that_cannot_take_an_answer_are_passed_over() -> None:
    body = (
        "<form><img src=/captcha.png><input type=hidden name=captcha_id><input name=a disabled>"
        "<input name=b readonly><input type=checkbox name=c><input><input name=code></form>"
    )
    assert found(body)[1] == "code"


# -- what a rule says


def test_formdata_fills_what_a_login_asks_for() -> None:
    body = ORDINARY["a login with a captcha"]
    assert found(body, formdata={"user": "a", "pass": "b"}) == (
        "http://shop.example/captcha.png",
        "code",
    )
    assert find(page(body), rule(formdata={"user": "a"})) is None


def test_the_rule_s_selectors_outrank_what_looks_likely() -> None:
    body = (
        "<img class=real src=/real.png><form class=a><img src=/captcha.png><input name=captcha>"
        "</form><form class=b><img src=/x.png><input name=p value=1><input name=q></form>"
    )
    assert found(body) == ("http://shop.example/captcha.png", "captcha")
    assert found(body, form="form.b", field="q") == ("http://shop.example/x.png", "q")
    assert found(body, form=".b", image="img.real", field="q")[0] == "http://shop.example/real.png"


def test_detect_decides_alone_which_page_is_a_wall() -> None:
    assert find(page(CAPTCHA), rule(detect="div.gate")) is None
    body = f"<div class=gate>{ORDINARY['a comment form with a captcha']}</div>"
    assert found(body, detect="div.gate") == ("http://shop.example/captcha.png", "captcha")


def test_a_wall_that_detect_finds_may_lack_its_parts() -> None:
    assert found("<div class=gate>Wait</div>", detect=".gate") == (None, None)
    assert found("<div class=gate><img src=/c.png></div>", detect=".gate", field="code") == (
        "http://shop.example/c.png",
        "code",
    )
    assert found("<form class=gate><input name=code></form>", detect=".gate") == (None, "code")
    image, field = found(
        "<img src=/c.png><form class=gate><input name=code></form>", detect=".gate"
    )
    assert (image, field) == ("http://shop.example/c.png", "code")


def test_a_page_that_a_wall_s_redirect_led_to_is_a_wall() -> None:
    body = ORDINARY["a search form with an image"]
    assert find(page(body, flags=[REDIRECTED_TO_WALL]), rule(redirect="/check")) is not None


def test_locate_finds_the_captcha_of_a_query_form() -> None:
    body = "<form action=/search><input name=q></form>" + ORDINARY["a query form with a captcha"]
    challenge = locate(page(body), rule(), filled={"name"})
    assert challenge is not None
    assert (challenge.image_url, challenge.field) == ("http://shop.example/captcha.png", "code")
    assert locate(page("<form action=/search><input name=q></form>"), rule()) is None


def test_locate_takes_the_form_that_is_named() -> None:
    form = "<form id={0}><input name=name><img src=/captcha/{0}.png><input name=code></form>"
    body = form.format("a") + form.format("b")
    challenge = locate(page(body), rule(), "#b", {"name"})
    assert challenge is not None
    assert challenge.image_url == "http://shop.example/captcha/b.png"
    assert locate(page(body), rule(), "#c", {"name"}) is None


def test_a_field_that_the_spider_fills_is_not_the_captcha_s() -> None:
    body = "<form><input name=code><img src=/captcha.png><input name=other></form>"
    challenge = locate(page(body), rule(), filled={"code"})
    assert challenge is not None
    assert challenge.field == "other"


@pytest.mark.parametrize(
    ("site", "url", "expected"),
    [
        ("shop.example", "http://shop.example/", True),
        ("shop.example", "https://shop.example:8443/", True),
        ("shop.example", "http://www.shop.example/", True),
        ("shop.example:8080", "http://shop.example:8080/", True),
        ("[::1]:8080", "http://[::1]:8080/", True),
        ("shop.example", "http://evil.example/shop.example", False),
        ("shop.example", "http://myshop.example/", False),
        ("shop.example", "http://shop.example@evil.example/", False),
        ("shop.example:8080", "http://shop.example/", False),
    ],
)
def test_a_page_that_a_browser_was_led_to_elsewhere_is_no_wall(
    site: str, url: str, expected: bool
) -> None:
    rule = Settings.from_settings(ScrapySettings({"CAPTCHA_SITES": {site: {}}})).sites[site]
    assert (find(page(CAPTCHA, url=url), rule) is not None) is expected
    assert (locate(page(CAPTCHA, url=url), rule) is not None) is expected


# -- the same challenge again


def challenge_on(body: str, url: str = URL) -> Challenge:
    challenge = locate(HtmlResponse(url, body=body.encode(), encoding="utf-8"), rule())
    assert challenge is not None
    return challenge


def test_the_same_form_is_recognised_under_another_address_and_token() -> None:
    form = "<form action=/go?t={0}><img src=/captcha.png?{0}><input name=code></form>"
    first = challenge_on(form.format(1))
    assert first.same_as(challenge_on(form.format(2), "http://shop.example/go?t=1"))


def test_another_form_is_another_challenge() -> None:
    first = challenge_on(CAPTCHA)
    assert not first.same_as(challenge_on(CAPTCHA.replace("/go", "/other")))
    assert not first.same_as(challenge_on(CAPTCHA.replace("code", "captcha")))


# -- cost


def test_of_a_huge_page_only_the_beginning_is_judged() -> None:
    filler = "<p>lorem ipsum</p>" * 80_000
    assert find(page(CAPTCHA + filler), rule()) is not None
    assert find(page(filler + CAPTCHA), rule()) is None


def test_an_ordinary_page_is_not_parsed() -> None:
    response = page("<p>lorem ipsum</p>" * 1000)
    assert find(response, rule()) is None
    assert response._cached_selector is None
