"""The selectors of rules: what they find is what Scrapy's find, and their cost is bounded."""

from __future__ import annotations

import random

import pytest
from cssselect import SelectorError
from lxml.html import HTMLParser, fromstring
from parsel import Selector as ParselSelector

from scrapy_captcha.selectors import Selector, selector

TAGS = ("div", "form", "span", "b")
CLASSES = ("a", "b", "c")
COMBINATORS = (" ", " > ", " + ", " ~ ")


def some_page(rng: random.Random) -> str:
    words = [
        rng.choice(
            [
                f"<{rng.choice(TAGS)} class='{rng.choice(CLASSES)} {rng.choice(CLASSES)}'>",
                f"<{rng.choice(TAGS)} id=i{rng.randrange(4)}>",
                f"</{rng.choice(TAGS)}>",
                rng.choice(["<input name=x>", "<!-- c -->", "text"]),
            ]
        )
        for _ in range(rng.randrange(5, 100))
    ]
    return "".join(words)


def some_part(rng: random.Random) -> str:
    extras = ("", "", "", ".a", ".b.c", "#i1", "[name]", ":not(.a)", ":first-child", ":has(input)")
    return rng.choice(["*", "input", "p", *TAGS]) + rng.choice(extras)


def some_selector(rng: random.Random) -> str:
    chain = some_part(rng)
    for _ in range(rng.randrange(4)):
        chain += rng.choice(COMBINATORS) + some_part(rng)
    return chain


def test_they_find_what_scrapys_selectors_find_in_the_same_order() -> None:
    rng = random.Random(5)
    matches = 0
    for _ in range(150):
        page = ParselSelector(text=some_page(rng))
        for _ in range(8):
            css = ", ".join(some_selector(rng) for _ in range(rng.choice([1, 1, 2])))
            expected = [found.root for found in page.css(css)]
            assert Selector(css).select(page.root) == expected, css
            matches += bool(expected)
    assert matches > 200


@pytest.mark.parametrize(
    ("css", "expected"),
    [
        ("p.err::text", True),
        ("p.none::text", False),
        ("input::attr(name)", True),
        ("input::attr(value)", False),
        ("form input::attr(name)", True),
    ],
)
def test_pseudo_elements_ask_for_texts_and_attributes(css: str, expected: bool) -> None:
    page = ParselSelector(
        text="<form><p class=err>wrong</p><p class=none></p><input name=x></form>"
    )
    assert bool(page.css(css)) is expected
    assert bool(Selector(css).select(page.root)) is expected


@pytest.mark.parametrize(
    ("css", "slow"),
    [
        ("div.gate > form input[name='x'], #captcha ~ p", False),
        ("form:not(.search):is(.a, .b) input:checked", False),
        ("div:has(img)", True),
        ("li:first-child", True),
        ("td:nth-child(2) b", True),
        ("p:contains('wrong')", True),
        (":not(:last-child)", True),
    ],
)
def test_those_whose_cost_may_grow_faster_than_the_page_are_known(css: str, slow: bool) -> None:
    assert Selector(css).slow is slow


@pytest.mark.parametrize(
    "css",
    [
        "div:has(form img)",
        ":not(div p)",
        ":is(div > p)",
        "div:has(p:has(b))",
        "div:has(:nth-child(2))",
        "div..",
        "p:unknown-class",
        "p::before",
        "svg|a",
    ],
)
def test_what_would_take_long_on_the_smallest_pages_or_is_no_selector_is_refused(css: str) -> None:
    with pytest.raises(SelectorError):
        selector(css)


@pytest.mark.parametrize(
    "page",
    [
        "<div class=gate>" * 240 + "<input name=x>" * 20_000,
        "<div class=gate>" * 1_900,
        "<div class=gate></div>" * 25_000,
    ],
    ids=["deep and wide", "deep", "wide"],
)
def test_pages_that_are_made_for_it_do_not_take_minutes(page: str) -> None:
    """``.gate .gate input`` takes libxml2 alone twenty seconds and more on the first."""
    root = fromstring(page, parser=HTMLParser(huge_tree=False))
    for css in (".gate input", ".gate .gate .gate .x", "div ~ div ~ div.x", "div + div > p"):
        selector(css).select(root)
