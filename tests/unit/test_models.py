"""Which model reads which site."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
from scrapy.settings import Settings as ScrapySettings

from scrapy_captcha.bundle import resolve
from scrapy_captcha.config import Settings
from scrapy_captcha.errors import BundleError, ConfigError
from scrapy_captcha.models import Readers
from scrapy_captcha.naming import site_folder
from scrapy_captcha.recognizer import Recognizer

if TYPE_CHECKING:
    from pathlib import Path

SITE = "shop.example:8000"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return tmp_path / "captchas"


def folder_of_reader(dataset: Path | None, rule: dict[str, Any], **settings: Any) -> Path:
    given = {
        "CAPTCHA_SITES": {SITE: rule},
        "CAPTCHA_DATASET": dataset and str(dataset),
        **settings,
    }
    read = Settings.from_settings(ScrapySettings(given))
    reader = Readers(read).for_rule(read.sites[SITE])
    assert isinstance(reader, Recognizer)
    return reader.bundle.folder


def copy_of_alnum4(to: Path) -> Path:
    return shutil.copytree(resolve("alnum4"), to)


def test_the_default_is_chosen_by_the_length(dataset: Path) -> None:
    for folder in (dataset, None):
        assert folder_of_reader(folder, {"length": 4}) == resolve("alnum4")
        assert folder_of_reader(folder, {"length": 5}) == resolve("alnum8")
        assert folder_of_reader(folder, {}) == resolve("alnum8")


def test_the_dataset_s_own_model_outranks_the_setting(dataset: Path) -> None:
    own = copy_of_alnum4(dataset / site_folder(SITE) / "model")
    assert folder_of_reader(dataset, {}, CAPTCHA_MODEL="alnum4") == own


def test_the_rule_s_model_outranks_the_dataset_s_own(dataset: Path, tmp_path: Path) -> None:
    copy_of_alnum4(dataset / site_folder(SITE) / "model")
    mine = copy_of_alnum4(tmp_path / "mine")
    assert folder_of_reader(dataset, {"model": str(mine)}) == mine
    assert folder_of_reader(dataset, {"model": "alnum4"}) == resolve("alnum4")


def test_a_rule_s_own_folder_has_its_own_model(dataset: Path) -> None:
    own = copy_of_alnum4(dataset / "theirs" / "model")
    assert folder_of_reader(dataset, {"dataset": "theirs"}) == own
    assert folder_of_reader(dataset, {"length": 4}) == resolve("alnum4")


def test_an_empty_model_folder_is_not_a_model(dataset: Path) -> None:
    (dataset / site_folder(SITE) / "model").mkdir(parents=True)
    assert folder_of_reader(dataset, {"length": 4}) == resolve("alnum4")


def test_a_damaged_own_model_is_not_passed_over_in_silence(dataset: Path) -> None:
    own = copy_of_alnum4(dataset / site_folder(SITE) / "model")
    (own / "model.tflite").write_bytes(b"torn")
    with pytest.raises(BundleError, match=r"model\.tflite"):
        folder_of_reader(dataset, {})


def test_what_the_model_cannot_read_is_a_config_error_of_the_rule(dataset: Path) -> None:
    for rule in ({"charset": "äöü"}, {"length": 5}):
        with pytest.raises(ConfigError, match=r"CAPTCHA_SITES\['shop\.example:8000'\]: "):
            folder_of_reader(dataset, {"model": "alnum4", **rule})


def test_one_model_is_loaded_once_for_all_sites() -> None:
    sites = {"a.example": {"length": 4}, "b.example": {"model": "alnum4"}, "c.example": {}}
    read = Settings.from_settings(ScrapySettings({"CAPTCHA_SITES": sites}))
    readers = Readers(read)
    first, second, both = (readers.for_rule(rule) for rule in read.sites.values())
    assert first is second
    assert readers.for_rule(read.sites["c.example"]) is not both  # it remembers lengths of its own
