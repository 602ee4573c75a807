"""The benchmark of long crawls: what it makes of its samples, and that it runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import long_run


def samples(
    *, slope: float = 0.0, slower: float = 1.0, files: tuple[int, int] = (9, 9)
) -> list[list[float]]:
    """A crawl of 1,000 pages whose second half takes so many times longer."""
    made = []
    for page in range(0, 1001, 10):
        seconds = page * 0.01 + max(0, page - 500) * 0.01 * (slower - 1.0)
        memory = 5e7 if page < 100 else 1e8 + slope * page  # the models come with the first wall
        made.append([seconds, seconds / 2, page, memory, files[page > 600]])
    return made


def test_what_grows_after_the_warm_up_shows() -> None:
    found = long_run.figures(samples(), 1000)
    assert found["bytes_a_page"] == pytest.approx(0, abs=0.1)
    assert found["pace"] == found["pace_by_cpu"] == 1.0
    assert found["files"] == [9, 9]
    found = long_run.figures(samples(slope=70, slower=1.25, files=(9, 12)), 1000)
    assert found["bytes_a_page"] == pytest.approx(70, abs=0.1)
    assert found["pace"] == found["pace_by_cpu"] == 0.8
    assert found["files"] == [9, 12]


def test_a_short_long_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["long_run.py", "--pages", "200", "--every", "5", "--sample", "0.1"]
    monkeypatch.setattr(sys, "argv", [*words, "--slope", "1e9", "--pace", "0", "--files", "99"])
    assert long_run.main() == 0
    found = json.loads(capsys.readouterr().out)
    assert found["callbacks"] == found["site"]["pages"] == 200
    assert found["stats"]["captcha/accepted"] == 40
