from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

import pytest

from scrapy_captcha.bundle import open_bundle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from scrapy_captcha.bundle import Golden


@pytest.fixture(scope="session", autouse=True)
def _installed() -> None:
    names = {entry_point.name for entry_point in entry_points(group="scrapy.commands")}
    assert "captcha" in names, "scrapy-captcha is not installed here: pip install -e ."


@pytest.fixture
def scrapy(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command line of Scrapy in an empty folder, or in the project that a test made there."""

    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "scrapy", *map(str, words)]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )

    return run


@pytest.fixture
def project(tmp_path: Path) -> Callable[[str], None]:
    """Make the folder a Scrapy project with these settings."""

    def make(settings: str) -> None:
        (tmp_path / "scrapy.cfg").write_text("[settings]\ndefault = shop.settings\n")
        (tmp_path / "shop").mkdir()
        (tmp_path / "shop" / "__init__.py").touch()
        (tmp_path / "shop" / "settings.py").write_text(settings)

    return make


@pytest.fixture(scope="session")
def golden() -> Golden:
    """An image, and what the shipped model reads in it."""
    return open_bundle("alnum4").manifest.golden[0]
