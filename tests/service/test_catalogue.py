from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from scrapy_captcha.bundle import CURRENT, open_bundle, resolve
from scrapy_captcha.recognizer import Recognizer
from scrapy_captcha.service.catalogue import Catalogue

if TYPE_CHECKING:
    from pathlib import Path


def test_both_shipped_models_are_described_as_the_recognizer_that_stands_for_them() -> None:
    (described,) = Catalogue({"either": "auto"}).describe()

    recognizer = Recognizer.load("auto")
    assert described["model_hash"] == recognizer.model_hash
    assert (described["min_length"], described["length"]) == (3, 8)


def test_a_promoted_version_is_described_and_a_damaged_one_is_not(tmp_path: Path) -> None:
    bundle = tmp_path / "shop"
    for name in ("alnum4", "alnum8"):
        shutil.copytree(resolve(name), bundle / name)
    (bundle / "broken").mkdir()
    (bundle / CURRENT).write_text("alnum4")
    catalogue = Catalogue({"shop": str(bundle)})

    hashes = []
    for version in ("alnum4", "alnum8", "broken"):
        (bundle / CURRENT).write_text(version)
        hashes.append(catalogue.describe()[0]["model_hash"])

    assert hashes[0] == open_bundle("alnum4").hash
    assert hashes[1] == hashes[2] == open_bundle("alnum8").hash


def test_a_model_that_was_never_whole_is_left_out(tmp_path: Path) -> None:
    assert Catalogue({"shop": str(tmp_path)}).describe() == []
