"""Settings are checked at the start, and a wrong one is named with what was expected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scrapy.settings import Settings as ScrapySettings

from scrapy_captcha.config import Condition, Settings
from scrapy_captcha.errors import ConfigError

SITE = "shop.example"


def read(**settings: Any) -> Settings:
    return Settings.from_settings(ScrapySettings({"CAPTCHA_SITES": {SITE: {}}, **settings}))


def rule(**keys: Any) -> Any:
    return read(CAPTCHA_SITES={SITE: keys}).sites[SITE]


def test_the_defaults_are_the_documented_ones() -> None:
    settings = read()
    assert settings.model == "auto"
    assert settings.dataset == Path("captchas")
    assert settings.max_attempts == settings.breaker == 8
    assert settings.min_confidence is None
    assert settings.timeout == 60
    assert settings.close_spider is False
    site = settings.sites[SITE]
    assert (site.case, site.obey_robotstxt, site.max_attempts) == ("lower", True, 8)
    assert (site.detect, site.image, site.charset, site.length) == (None,) * 4


def test_values_from_a_command_line_are_texts() -> None:
    settings = read(
        CAPTCHA_SITES='{"shop.example": {"length": "4", "min_confidence": "0.5"}}',
        CAPTCHA_MAX_ATTEMPTS="3",
        CAPTCHA_TIMEOUT="2.5",
        CAPTCHA_BREAKER="2",
        CAPTCHA_CLOSE_SPIDER="1",
        CAPTCHA_DATASET="",
    )
    assert (settings.max_attempts, settings.timeout, settings.breaker) == (3, 2.5, 2)
    assert settings.close_spider is True
    assert settings.dataset is None
    site = settings.sites[SITE]
    assert (site.length, site.min_confidence, site.max_attempts) == (4, 0.5, 3)


@pytest.mark.parametrize("nothing", [None, {}, ""])
def test_no_site_is_no_error(nothing: Any) -> None:
    assert read(CAPTCHA_SITES=nothing).sites == {}


def test_what_a_rule_says_outranks_the_setting() -> None:
    settings = read(
        CAPTCHA_SITES={"a.example": {"max_attempts": 2, "min_confidence": 0.1}, "b.example": {}},
        CAPTCHA_MAX_ATTEMPTS=5,
        CAPTCHA_MIN_CONFIDENCE=0.7,
    )
    rules = settings.sites
    assert (rules["a.example"].max_attempts, rules["a.example"].min_confidence) == (2, 0.1)
    assert (rules["b.example"].max_attempts, rules["b.example"].min_confidence) == (5, 0.7)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("CAPTCHA_MODEL", 4, "a text that is not empty"),
        ("CAPTCHA_MODEL", "  ", "a text that is not empty"),
        ("CAPTCHA_MAX_ATTEMPTS", 0, "a whole number from 1 to 1000"),
        ("CAPTCHA_MAX_ATTEMPTS", 1.5, "a whole number from 1 to 1000"),
        ("CAPTCHA_MAX_ATTEMPTS", True, "a whole number from 1 to 1000"),
        ("CAPTCHA_MAX_ATTEMPTS", "many", "a whole number from 1 to 1000"),
        ("CAPTCHA_MAX_ATTEMPTS", None, "a whole number from 1 to 1000"),
        ("CAPTCHA_MAX_ATTEMPTS", [8], "a whole number from 1 to 1000"),
        ("CAPTCHA_MIN_CONFIDENCE", 50, "a number from 0 to 1, or None"),
        ("CAPTCHA_MIN_CONFIDENCE", "nan", "a number from 0 to 1, or None"),
        ("CAPTCHA_TIMEOUT", 0, "a number of seconds from 1 to 86400"),
        ("CAPTCHA_TIMEOUT", "inf", "a number of seconds from 1 to 86400"),
        ("CAPTCHA_BREAKER", 0, "a whole number of at least 1"),
        ("CAPTCHA_BREAKER", "inf", "a whole number of at least 1"),
        ("CAPTCHA_CLOSE_SPIDER", "perhaps", "True or False"),
        ("CAPTCHA_CLOSE_SPIDER", [], "True or False"),
        ("CAPTCHA_DATASET", [], "a folder"),
        ("CAPTCHA_DATASET", {}, "a folder"),
        ("CAPTCHA_DATASET", 7, "a folder"),
        ("CAPTCHA_SITES", ["shop.example"], "a dict of site -> rule"),
        ("CAPTCHA_SITES", 5, "a dict of site -> rule"),
        ("CAPTCHA_SITES", "{shop", "a dict of site -> rule"),
        ("CAPTCHA_SITES", "[]", "a dict of site -> rule"),
        ("CAPTCHA_SITES", {"http://shop.example/": {}}, "keys that are a host"),
        ("CAPTCHA_SITES", {"shop.example/path": {}}, "keys that are a host"),
        ("CAPTCHA_SITES", {"": {}}, "keys that are a host"),
        ("CAPTCHA_SITES", {7: {}}, "keys that are a host"),
        ("CAPTCHA_SITES", {"a.example": {}, "A.example": {}}, "listed twice"),
        ("CAPTCHA_SITES", {"a.example": {}, ".a.example": {}}, "listed twice"),
        ("CAPTCHA_SITES", {SITE: None}, "a dict of rule keys"),
        ("CAPTCHA_SITES", {SITE: ["image"]}, "a dict of rule keys"),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_expected(
    name: str, value: Any, expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(**{name: value})
    message = str(caught.value)
    assert message.startswith(name)
    assert expected in message


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("detect", "", "a text that is not empty"),
        ("detect", "div[", "a CSS selector"),
        ("image", 4, "a text that is not empty"),
        ("form", "##", "a CSS selector"),
        ("redirect", "(", "a regular expression"),
        ("redirect", r"\p{L}", "a regular expression"),
        ("accepted", "re:(?<=a+)b", "a regular expression"),
        ("detect", "div:has(form img)", "a CSS selector (in :has()"),
        ("image", "svg|image", "a CSS selector (Undefined namespace prefix"),
        ("redirect", None, "a text that is not empty"),
        ("accepted", "re:[", "a regular expression"),
        ("accepted", "p..x", "a CSS selector"),
        ("accepted", "re:", "a text that is not empty"),
        ("rejected", True, "a text that is not empty"),
        ("field", "", "a text that is not empty"),
        ("formdata", {"user": 1}, "a dict of texts"),
        ("formdata", [("user", "x")], "a dict of texts"),
        ("charset", "a", "at least two different characters"),
        ("charset", "aaa", "at least two different characters"),
        ("charset", ["a", "b"], "a text that is not empty"),
        ("length", 0, "a whole number from 1 to 32"),
        ("length", 33, "a whole number from 1 to 32"),
        ("length", "four", "a whole number from 1 to 32"),
        ("case", "UPPER", "one of 'lower', 'upper', 'as-is'"),
        ("case", [], "one of 'lower', 'upper', 'as-is'"),
        ("max_attempts", -1, "a whole number from 1 to 1000"),
        ("min_confidence", "high", "a number from 0 to 1, or None"),
        ("image_hosts", "cdn.example", "a list of hosts"),
        ("image_hosts", [1], "a list of hosts"),
        ("image_hosts", 5, "a list of hosts"),
        ("image_hosts", ["http://cdn.example/"], "a list of hosts"),
        ("image_hosts", None, "a list of hosts"),
        ("obey_robotstxt", "no", "True or False"),
        ("obey_robotstxt", {}, "True or False"),
        ("dataset", "../elsewhere", "the name of a folder"),
        ("dataset", "a/b", "the name of a folder"),
        ("dataset", ".hidden", "the name of a folder"),
        ("submit", "", "a text that is not empty"),
        ("refresh", 1, "a text that is not empty"),
        ("submit", "ftp://shop.example/", "URL"),
        ("submit", "http://", "URL"),
        ("refresh", "http://shop.example:port/", "URL"),
        ("refresh", "javascript:x()", "URL"),
        ("model", "", "a text that is not empty"),
    ],
)
def test_a_wrong_rule_is_named_with_what_was_expected(key: str, value: Any, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        rule(**{key: value})
    message = str(caught.value)
    assert message.startswith(f"CAPTCHA_SITES['{SITE}']['{key}']: expected ")
    assert expected in message
    assert message.endswith(f"got {value!r}")


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("imgae", "did you mean 'image'?"),
        ("Charset", "did you mean 'charset'?"),
        ("accept", "did you mean 'accepted'?"),
        ("xyzzy", "known: accepted, canary_rate, case"),
        (5, "known: accepted"),
    ],
)
def test_an_unknown_rule_key_comes_with_a_hint(key: Any, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(CAPTCHA_SITES={SITE: {key: "x"}})
    assert f"CAPTCHA_SITES['{SITE}'][{key!r}]: unknown rule key; " in str(caught.value)
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("CAPTCHA_MAX_ATEMPTS", "CAPTCHA_MAX_ATTEMPTS"), ("CAPTCHA_DATASETS", "CAPTCHA_DATASET")],
)
def test_a_misspelt_setting_is_reported(
    caplog: pytest.LogCaptureFixture, name: str, meant: str
) -> None:
    read(**{name: 3})
    (record,) = caplog.records
    assert name in record.getMessage()
    assert record.getMessage().endswith(f"did you mean {meant}?")


SITES = {
    "shop.example": {},
    "www.shop.example": {},
    "shop.example:8080": {},
    "co.example": {},
    "127.0.0.1": {},
    "127.0.0.2:8000": {},
    "[::1]": {},
    "[::2]:8000": {},
    "localhost": {},
}


@pytest.mark.parametrize(
    ("netloc", "expected"),
    [
        ("shop.example", "shop.example"),
        ("SHOP.example", "shop.example"),
        ("shop.example:443", "shop.example"),
        ("shop.example:8080", "shop.example:8080"),
        ("api.shop.example", "shop.example"),
        ("a.b.shop.example:1", "shop.example"),
        ("www.shop.example", "www.shop.example"),
        ("img.www.shop.example", "www.shop.example"),
        ("user:pw@shop.example", "shop.example"),
        ("notshop.example", None),
        ("shop.example.org", None),
        ("example", None),
        ("other.co.example", "co.example"),
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1:9", "127.0.0.1"),
        ("127.0.0.2:8000", "127.0.0.2:8000"),
        ("127.0.0.2:8001", None),
        ("1.127.0.0.1", None),
        ("[::1]:80", "[::1]"),
        ("[::1]", "[::1]"),
        ("[::2]:8000", "[::2]:8000"),
        ("[::2]", None),
        ("localhost:6800", "localhost"),
        ("", None),
    ],
)
def test_the_most_specific_site_that_fits_is_taken(netloc: str, expected: str | None) -> None:
    found = read(CAPTCHA_SITES=SITES).rule_for(netloc)
    assert (found and found.site) == expected


def test_a_condition_is_a_selector_or_a_pattern() -> None:
    site = rule(accepted="re:well +done", rejected="p.error")
    assert site.accepted == Condition(pattern=site.accepted.pattern)
    assert site.accepted.pattern.search("well  done")
    assert site.rejected == Condition(css="p.error")
