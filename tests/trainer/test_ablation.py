from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("keras")

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import ablation

from trainer.loop import Labelled


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    for name, value in {"TEST": 10, "PROBE": 30, "AFTER": 5, "STEPS": (1, 2)}.items():
        monkeypatch.setattr(ablation, name, value)


def test_each_run_is_a_line_and_what_is_in_the_log_is_not_run_again(
    folder, trained, tmp_path, capsys, monkeypatch
):
    log = tmp_path / "log.jsonl"
    words = [str(folder), "--base", str(trained[0]), "--starts", "fair", "--seeds", "3"]
    words += ["--images", "40", "--log", str(log), "--arms"]
    assert ablation.main([*words, "rejections"]) == 0
    assert ablation.main([*words, "rejections,doubting"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert [first["arm"], second["arm"]] == ["rejections", "doubting"]
    assert log.read_text().splitlines() == [json.dumps(first), json.dumps(second)]
    for line in (first, second):
        assert line["confirmed"] + line["rejected"] == 40
        assert line["rounds"] >= 1
        assert line["false_labels"] == 0
    assert first["unseen"][0] == second["unseen"][0]  # both start from the same damage
    assert first["unseen"][0][1] < 0.8
    monkeypatch.setattr(ablation, "play", lambda *_: pytest.fail("played again"))
    assert ablation.main([*words, "rejections,doubting"]) == 0


def test_a_label_is_doubted_that_is_next_to_impossible_beside_what_is_read(monkeypatch):
    sure = np.array([9.0, 0.0, 0.0], np.float32)
    unsure = np.array([1.0, 0.0, 0.0], np.float32)
    logits = np.stack([np.stack([sure, sure]), np.stack([sure, sure]), np.stack([unsure, unsure])])
    monkeypatch.setattr(ablation, "keras_logits", lambda *_: logits)
    classes = np.array([[0, 0], [1, 1], [1, 1]], np.int32)
    data = Labelled(np.zeros((3, 32, 90), np.float16), classes)
    assert ablation.doubted(None, data).tolist() == [False, True, False]
