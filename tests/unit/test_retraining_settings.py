"""CAPTCHA_RETRAIN_AFTER is checked when a crawl starts, without importing TensorFlow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scrapy.settings import Settings as ScrapySettings

from scrapy_captcha import retraining
from scrapy_captcha.config import CANARY_RATE, Settings
from scrapy_captcha.errors import ConfigError

SITE = "shop.example"


def read(rule: dict[str, Any] | None = None, **settings: Any) -> Settings:
    return Settings.from_settings(ScrapySettings({"CAPTCHA_SITES": {SITE: rule or {}}, **settings}))


@pytest.mark.parametrize("value", [0, -1, 2.5, "soon", True])
def test_it_is_a_number_of_images(value: object) -> None:
    with pytest.raises(ConfigError, match="CAPTCHA_RETRAIN_AFTER: expected a whole number"):
        read(CAPTCHA_RETRAIN_AFTER=value)


def test_without_a_dataset_there_is_nothing_to_train_on() -> None:
    with pytest.raises(ConfigError, match="CAPTCHA_DATASET = None; name a folder"):
        read(CAPTCHA_RETRAIN_AFTER=25, CAPTCHA_DATASET=None)


def test_canaries_come_with_retraining_unless_a_rule_says_otherwise() -> None:
    assert read().sites[SITE].canary_rate == 0
    assert read({"canary_rate": 0.1}).sites[SITE].canary_rate == 0.1
    assert read(CAPTCHA_RETRAIN_AFTER=25).sites[SITE].canary_rate == CANARY_RATE
    assert read({"canary_rate": 0}, CAPTCHA_RETRAIN_AFTER="25").sites[SITE].canary_rate == 0
    assert read(CAPTCHA_RETRAIN_AFTER=None).sites[SITE].canary_rate == 0


def test_a_rule_that_names_a_model_gets_canaries_only_by_its_own_word() -> None:
    assert read({"model": "alnum4"}, CAPTCHA_RETRAIN_AFTER=25).sites[SITE].canary_rate == 0
    rule = {"model": "alnum4", "canary_rate": 0.1}
    assert read(rule, CAPTCHA_RETRAIN_AFTER=25).sites[SITE].canary_rate == 0.1


@pytest.mark.parametrize("rate", [-0.1, 0.6, "often", None])
def test_a_share_of_canaries_is_a_number(rate: object) -> None:
    with pytest.raises(ConfigError, match=r"\['canary_rate'\]: expected a number from 0 to 0.5"):
        read({"canary_rate": rate})


def test_without_tensorflow_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retraining, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"tensorflow and keras .*scrapy-captcha\[train\]"):
        retraining.check()


def start(path: list[Path | str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Check in a process that was started in a folder, with a PYTHONPATH."""
    code = "import sys; from scrapy_captcha import retraining; retraining.check(); "
    code += "print('tensorflow' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    (tmp_path / "trainer").mkdir()
    (tmp_path / "trainer" / "__init__.py").write_text("raise RuntimeError('not this one')\n")
    return tmp_path


ROOT = Path(retraining.__file__).resolve().parents[1]


def test_a_package_of_that_name_in_the_folder_of_the_crawl_is_no_trouble(foreign: Path) -> None:
    ended = start([ROOT], foreign)
    assert (ended.stdout, ended.stderr) == ("False\n", "")


def test_one_that_the_trainer_would_find_first_is_named(foreign: Path, tmp_path: Path) -> None:
    ended = start([foreign, ROOT], ROOT)
    assert "ConfigError: CAPTCHA_RETRAIN_AFTER: " in ended.stderr
    assert f"{foreign}/trainer/__init__.py hides the package 'trainer'" in ended.stderr


def test_a_missing_trainer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retraining, "find_spec", lambda name: name)
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(ConfigError, match=r"the package 'trainer' .* is missing; install"):
        retraining.check()
