from __future__ import annotations

import re

import pytest

from scrapy_captcha.patterns import Pattern, PatternTimeout

LONG = 256 << 10


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("wrong.*code", "wrong" * (LONG // 5)),
        ("(a+)+$", "a" * LONG + "b"),
        ("(a|aa)+$", "a" * LONG + "b"),
        ("(x+x+)+y", "x" * LONG),
        (r"^(([a-z])+.)+[A-Z]([a-z])+$", "a" * LONG),
        ("(?s)(?:.*?,){11}P", "1," * (LONG // 2)),
        (r"(?:a{1,50}){1,50}b", "a" * LONG),
        (r"\s+$", " " * LONG + "x"),
        ("<p>.*?</p>.*?<b>", "<p>a</p>" * (LONG // 8)),
    ],
)
def test_a_search_that_would_take_minutes_is_given_up(pattern: str, text: str) -> None:
    with pytest.raises(PatternTimeout, match=re.escape(repr(pattern))):
        Pattern(pattern).search(text)


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("wrong code", "the wrong code", True),
        ("(?i)WRONG", "the wrong code", True),
        (r"falsch(?!e)\b", "falsche", False),
        ("验证码(错误|不正确)", "验证码不正确", True),
        (r"\w+é", "café", True),
        ('"code":\\s*4\\d\\d', '{"code": 400}', True),
        ('{"ok"', '{"ok": 1}', True),
        (r"(?m)^no$", "yes\nno", True),
    ],
)
def test_it_finds_what_pythons_own_matcher_finds(pattern: str, text: str, found: bool) -> None:
    assert (re.search(pattern, text) is not None) is found
    assert Pattern(pattern).search(text) is found


@pytest.mark.parametrize("pattern", ["(", "a**", r"\p{L}", "(?<=a+)b", "[z-a]"])
def test_what_python_would_not_take_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Pattern(pattern)


def test_two_of_the_same_text_are_the_same() -> None:
    assert Pattern("a") == Pattern("a") != Pattern("b")
