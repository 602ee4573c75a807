from __future__ import annotations

from dataclasses import replace

import pytest
from scrapy.http import HtmlResponse

from scrapy_captcha.challenge import find
from scrapy_captcha.commands.advice import advise
from scrapy_captcha.config import SiteRule

RULE = SiteRule("shop.example")
WALL = '<form action="/verify"><img src="/captcha.png"><input name="code"></form>'
QUERY = (
    '<form action="/query"><input name="name"><textarea name="note"></textarea>'
    '<img src="/captcha.png"><input name="code"></form>'
)
LOGIN = (
    '<form action="/login"><input name="account"><input name="secret" type="password">'
    '<img src="/captcha.png"><input name="code"></form>'
)
# an image and an input, and not a word of a captcha
PLAIN = '<form action="/go"><img src="/rnd?7"><input name="t1"></form>'


def page(body: str, url: str = "http://shop.example/list") -> HtmlResponse:
    return HtmlResponse(url, body=f"<title>Shop</title>{body}", encoding="utf-8")


def test_a_wall_needs_no_rule() -> None:
    advice = advise(page(WALL), RULE)

    assert (advice.kind, advice.rule, advice.hints, advice.blank) == ("wall", {}, {}, ())
    assert "attributes say captcha" in advice.why


def test_a_query_form_names_its_other_fields_and_what_would_make_it_a_wall() -> None:
    advice = advise(page(QUERY), RULE)

    assert (advice.kind, advice.blank, advice.rule) == ("form", ("name", "note"), {})
    assert find(page(QUERY), replace(RULE, **advice.if_wall)) is not None


def test_a_login_form_becomes_a_wall_by_the_rule_that_is_proposed() -> None:
    advice = advise(page(LOGIN), RULE)

    assert advice.kind == "login"
    assert advice.rule == {"formdata": {"account": "...", "secret": "..."}}
    assert find(page(LOGIN), replace(RULE, **advice.rule)) is not None


def test_fields_that_the_rule_fills_already_stay_as_they_are() -> None:
    rule = replace(RULE, formdata={"account": "ada"})

    advice = advise(page(LOGIN), rule)

    assert advice.blank == ("secret",)
    assert advice.rule == {"formdata": {"account": "ada", "secret": "..."}}


@pytest.mark.parametrize(
    ("attributes", "selector"),
    [
        ('id="pic" src="/rnd?7"', "img#pic"),
        ('class="wide pic" src="/rnd?7"', "img.pic"),
        ('name="pic" src="/rnd?7"', 'img[name="pic"]'),
        ('src="/rnd?7"', 'img[src^="/rnd"]'),
        ('src="data:image/gif;base64,AAAA"', 'form[action="/go"] img'),
    ],
)
def test_a_captcha_that_nothing_gives_away_is_told_apart_by_its_image(
    attributes: str, selector: str
) -> None:
    other = '<img class="wide" src="/photo.jpg">'
    form = f'<form action="/go"><img {attributes}><input name="t1"></form>'

    advice = advise(page(other + form), RULE)

    assert (advice.kind, advice.rule) == ("unsure", {"detect": selector})
    found = find(page(other + form), replace(RULE, **advice.rule))
    assert found is not None
    assert found.field == "t1"
    assert find(page(other), replace(RULE, **advice.rule)) is None


def test_the_input_is_named_where_nothing_tells_the_image_apart() -> None:
    form = '<form><img src="data:image/gif;base64,AAAA"><input name="t1"></form>'

    advice = advise(page(form), RULE)

    assert advice.rule == {"field": "t1"}
    assert find(page(form), replace(RULE, **advice.rule)) is not None


def test_a_captcha_among_other_blank_fields_that_nothing_gives_away() -> None:
    body = PLAIN.replace("</form>", '<input name="t2"><input name="t3"></form>')

    advice = advise(page(body), RULE)

    assert advice.rule == {"detect": 'img[src^="/rnd"]', "formdata": {"t2": "...", "t3": "..."}}


def test_where_a_redirect_led_here_its_address_tells_the_wall_apart() -> None:
    sure = advise(page(WALL, "http://shop.example/check.php?next=1"), RULE, redirected=True)
    unsure = advise(page(PLAIN, "http://shop.example/check.php?next=1"), RULE, redirected=True)

    assert sure.rule == {}
    assert sure.hints["redirect"][0] == r"/check\.php"
    assert (unsure.kind, unsure.rule) == ("unsure", {"redirect": r"/check\.php"})


def test_a_detect_that_is_not_on_the_page_is_said_to_be_missing() -> None:
    advice = advise(page(WALL), replace(RULE, detect="#gate"))

    assert advice.kind == "unsure"
    assert "'#gate'" in advice.why
    assert find(page(WALL), replace(RULE, **advice.rule)) is not None


@pytest.mark.parametrize(
    ("attributes", "hints"),
    [
        ('maxlength="5"', {"length": 5}),
        ('minlength="8" maxlength="8"', {"length": 8}),
        ('maxlength="10"', {}),
        ('inputmode="numeric"', {"charset": "0123456789"}),
        (r'pattern="\d{6}"', {"length": 6, "charset": "0123456789"}),
        ('pattern="[a-z]+"', {}),
    ],
)
def test_what_the_input_takes_is_a_hint(attributes: str, hints: dict[str, object]) -> None:
    advice = advise(page(WALL.replace("<input", f"<input {attributes}")), RULE)

    assert {key: value for key, (value, _) in advice.hints.items()} == hints


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("<p>Nothing to see</p>", "the page has no form"),
        ('<form><input name="q"></form>', "of 1 on the page, 0 with an image"),
        ('<form><img src="/logo.png"><input name="q"></form>', "of 1 on the page, 1 with an image"),
    ],
)
def test_a_page_without_a_captcha_says_what_was_looked_for(body: str, why: str) -> None:
    advice = advise(page(body), RULE)

    assert (advice.kind, advice.challenge) == ("none", None)
    assert why in advice.why
