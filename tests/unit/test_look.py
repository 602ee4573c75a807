"""What a crawl finds of the models that earlier ones have left."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest
from scrapy.settings import Settings as ScrapySettings

from scrapy_captcha import versions
from scrapy_captcha.attempts import CANARY_REJECTED
from scrapy_captcha.bundle import MODEL, WEIGHTS, open_bundle
from scrapy_captcha.config import Settings
from scrapy_captcha.dataset import Dataset
from scrapy_captcha.errors import DatasetError
from scrapy_captcha.lineup import Arm
from scrapy_captcha.site import Site
from scrapy_captcha.succession import look

if TYPE_CHECKING:
    from pathlib import Path

    from scrapy_captcha.recognizer import Reader

KEY = "shop.example"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    rule = Settings.from_settings(
        ScrapySettings({"CAPTCHA_SITES": {KEY: {"canary_rate": 0.1}}})
    ).sites[KEY]
    return Site(rule, Arm(cast("Reader", None), "ab"), Dataset(tmp_path).site(KEY), 6)


def test_a_version_that_was_gone_back_from_is_not_tried_again(site: Site) -> None:
    assert site.dataset is not None
    assert site.bundle is not None
    given = open_bundle("alnum4")
    files = {name: given.read(name) for name in (MODEL, WEIGHTS)}
    version = versions.write_version(site.bundle, given.manifest, files, promoted=False).name
    challenger = look(site, site.dataset).challenger
    assert challenger is not None
    assert challenger.version == version
    versions.promote(site.bundle, version)
    versions.roll_back(site.bundle, to_none=True)
    assert look(site, site.dataset).challenger is None


def test_a_model_later_than_the_last_wrong_answer_that_was_rejected_is_unproven(
    site: Site,
) -> None:
    assert site.dataset is not None
    assert site.bundle is not None
    given = open_bundle("alnum4")
    files = {name: given.read(name) for name in (MODEL, WEIGHTS)}
    version = versions.write_version(site.bundle, given.manifest, files).name
    later = "29990101T000000Z-00000000"
    (site.bundle / version).rename(site.bundle / later)
    versions.promote(site.bundle, later)
    site.lineup.champion = replace(site.lineup.champion, version=later)
    assert look(site, site.dataset).unproven == ()  # never was a canary sent
    site.dataset.testify(b"image", "wrong", 0.5, "model", CANARY_REJECTED)
    found = look(site, site.dataset)
    assert found.unproven == (later,)
    assert found.trusted is None
    site.lineup.doubt(list(found.unproven), trusted := Arm(cast("Reader", None), "ab"))
    assert site.lineup.distrust() == [later]
    assert site.lineup.champion is trusted


def test_a_disk_that_does_not_let_us_look_is_named(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(out: Path) -> list[str]:
        raise PermissionError(13, "Permission denied", str(out))

    monkeypatch.setattr(versions, "stored", refuse)
    assert site.dataset is not None
    with pytest.raises(DatasetError, match=r"Permission denied; .*CAPTCHA_DATASET"):
        look(site, site.dataset)
