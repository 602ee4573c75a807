from __future__ import annotations

from pathlib import Path

import pytest
from drawn_captchas import texts, write_folder

from trainer import progress
from trainer.__main__ import main

#: Keras 3.15 reads TensorFlow's variables in a way that NumPy 2 warns of.
KNOWN = "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings(KNOWN))


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """80 labelled images of two digits out of four."""
    return write_folder(tmp_path_factory.mktemp("images") / "site", texts(80))


@pytest.fixture(scope="session")
def trained(folder, tmp_path_factory):
    """A bundle trained on them from scratch, and what was said meanwhile."""
    out = tmp_path_factory.mktemp("models") / "site"
    said = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(out.parent / "cache"))
        patched.setattr(progress.Lines, "say", lambda _, text: said.append(text))
        command = ["fit", "--dataset", str(folder), "--out", str(out), "--minutes", "5"]
        assert main([*command, "--epochs", "30", "--seed", "3"]) == 0
    return out, said
