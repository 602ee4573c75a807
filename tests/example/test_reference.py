from __future__ import annotations

import re
import runpy
from ast import literal_eval
from dataclasses import fields
from pathlib import Path

import pytest

from scrapy_captcha import signals, stats
from scrapy_captcha.config import Settings, SiteRule

ROOT = Path(__file__).parents[2]
SETTINGS = {f"CAPTCHA_{field.name.upper()}" for field in fields(Settings)}


def reference(page: str) -> str:
    return (ROOT / "docs" / "reference" / page).read_text(encoding="utf-8")


def test_reference_has_a_section_for_every_setting_and_no_other() -> None:
    assert set(re.findall(r"^## (\w+)$", reference("settings.md"), re.MULTILINE)) == SETTINGS


def test_reference_states_the_default_of_every_setting() -> None:
    row = re.compile(r"^\| \[`(\w+)`\]\(\S+\) \| `(.+?)` ", re.MULTILINE)
    stated = dict(row.findall(reference("settings.md")))
    defaults = {name: getattr(Settings(sites={}), name[8:].lower()) for name in SETTINGS}
    defaults["CAPTCHA_DATASET"] = str(defaults["CAPTCHA_DATASET"])

    assert {name: literal_eval(value) for name, value in stated.items()} == defaults


def test_reference_has_a_row_for_every_rule_key_and_no_other() -> None:
    keys = {field.name for field in fields(SiteRule)} - {"site"}

    assert set(re.findall(r"^\| `(\w+)` \|", reference("rules.md"), re.MULTILINE)) == keys


def test_reference_has_a_row_for_every_stat_and_no_other() -> None:
    names = {v for k, v in vars(stats).items() if k.isupper() and isinstance(v, str)}
    listed = re.findall(r"^\| `captcha/(\S+)` \|", reference("stats.md"), re.MULTILINE)

    assert set(listed) == names | {"failed/<reason>"}


def test_reference_has_a_row_for_every_signal() -> None:
    names = {name for name, value in vars(signals).items() if type(value) is object}

    assert names
    for name in names:
        assert f"| `{name}` |" in reference("stats.md")


def test_example_settings_hold_every_setting_with_a_comment() -> None:
    path = ROOT / "example_project" / "bookshop" / "settings.py"
    text = path.read_text(encoding="utf-8")

    assert {name for name in runpy.run_path(str(path)) if name.startswith("CAPTCHA_")} == SETTINGS
    for name in SETTINGS:
        assert re.search(rf"^# .+\n{name} = ", text, re.MULTILINE), f"{name} has no comment"


@pytest.mark.parametrize(
    "page", [*sorted(ROOT.glob("docs/**/*.md")), ROOT / "README.md"], ids=lambda page: page.name
)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)?(?:#\S+)?\)", page.read_text(encoding="utf-8")):
        if target and not target.startswith("http"):
            assert (page.parent / target).exists(), target
