from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from scrapy_captcha.bundle import Golden

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def run(*words: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, ROOT)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_the_packages_and_the_models_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"scrapy_captcha", "trainer"}
    assert "scrapy_captcha/models/alnum4/CURRENT" in names
    assert not [name for name in names if "__pycache__" in name or "test" in Path(name).name]
    version = zipfile.Path(wheel, "scrapy_captcha/models/alnum4/CURRENT").read_text().strip()
    for file in ("bundle.json", "model.tflite", "weights.keras"):
        assert f"scrapy_captcha/models/alnum4/{version}/{file}" in names


def test_an_installed_wheel_reads_in_a_new_project_without_tensorflow(
    wheel: Path, tmp_path: Path, golden: Golden
) -> None:
    venv = tmp_path / "venv"
    run(sys.executable, "-m", "venv", venv)
    scripts = venv / ("Scripts" if sys.platform == "win32" else "bin")
    run(scripts / "python", "-m", "pip", "install", "--quiet", wheel)
    (tmp_path / "captcha.png").write_bytes(golden.image)

    run(scripts / "scrapy", "startproject", "shop", cwd=tmp_path)
    read = run(
        scripts / "scrapy", "captcha", "read", tmp_path / "captcha.png", cwd=tmp_path / "shop"
    )

    assert read.split("\t")[1] == golden.text
    packages = run(scripts / "python", "-m", "pip", "list").lower()
    assert "scrapy-captcha" in packages
    assert "tensorflow" not in packages
    assert "keras" not in packages
