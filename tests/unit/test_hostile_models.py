"""A model that somebody gave away to do harm is refused before it takes memory or time."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import hostile_graphs
import hostile_models

from scrapy_captcha.bundle import MAX_MODEL_BYTES, MODEL, open_bundle, resolve
from scrapy_captcha.errors import BundleError, ImageError
from scrapy_captcha.graph import check_graph
from scrapy_captcha.recognizer import MAX_LOGIT, Recognizer

measured = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@measured
def test_no_bundle_does_anything_but_be_refused() -> None:
    command = [sys.executable, hostile_models.__file__, "--side", "crawl", "--limit-ms", "10000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    *found, total = [json.loads(line) for line in done.stdout.splitlines()]
    assert total["models"] == len(found) == len(hostile_models.CASES) + len(hostile_graphs.GRAPHS)
    said = {each["name"]: each["said"] for each in found}
    assert "sha256" in said["wrong hash"]
    assert "expected shapes" in said["charset too short"]
    assert "file names without folders" in said["file elsewhere"]
    assert "more than 4e+09 multiplications" in said["graph: seconds of products"]
    assert "windows would take" in said["graph: windows of 15x15 over a wide image"]
    assert "would take 610352 MB" in said["graph: a declared tensor of 640 GB"]


@pytest.mark.parametrize("name", ["alnum4", "alnum8"])
def test_the_shipped_models_pass(name: str) -> None:
    bundle = open_bundle(name)
    check_graph(bundle.read(MODEL), bundle.manifest.length, bundle.manifest.classes)
    with pytest.raises(BundleError, match="expected shapes"):
        check_graph(bundle.read(MODEL), bundle.manifest.length, bundle.manifest.classes + 1)


def test_a_model_file_is_read_up_to_its_own_limit(tmp_path: Path) -> None:
    folder = shutil.copytree(resolve("alnum4"), tmp_path / "model")
    hostile_models.replaced(folder, MODEL, bytes(MAX_MODEL_BYTES))
    with pytest.raises(BundleError, match="not a LiteRT model file"):
        Recognizer.load(folder)
    hostile_models.replaced(folder, MODEL, bytes(MAX_MODEL_BYTES + 1))
    with pytest.raises(BundleError, match=f"files of at most .* {MODEL} of {MAX_MODEL_BYTES}"):
        Recognizer.load(folder)


def test_the_checks_of_a_graph_copy_none_of_its_constants() -> None:
    content = hostile_graphs.GRAPHS["800 tensors that share a megabyte"](
        open_bundle("alnum4").read(MODEL)
    )
    tracemalloc.start()
    try:
        with pytest.raises(BundleError, match="would take 801 MB"):
            check_graph(content, 4, 36)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 << 20


def test_a_damaged_model_file_is_a_bundle_error_or_a_model() -> None:
    """Whatever bytes are wrong: nothing is read outside of the file, nothing goes on for ever."""
    content = open_bundle("alnum4").read(MODEL)
    refused = 0
    for number in range(1500):
        chance = random.Random(number)
        data = bytearray(content)
        for _ in range(chance.choice((1, 2, 8))):
            # what describes the graph is at both ends, weights are in between
            at = chance.choice((chance.randrange(1500), -chance.randrange(1, 14_000)))
            data[at] = chance.choice((0, 1, 127, 128, 255, chance.randrange(256)))
        if chance.random() < 0.1:
            del data[chance.randrange(len(data)) :]
        try:
            check_graph(bytes(data), 4, 36)
        except BundleError:
            refused += 1
    assert 300 < refused < 1500


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_logits_that_say_nothing_are_no_reading(
    value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Recognizer(open_bundle("alnum4"))
    given = np.zeros((1, 4, 36), np.float32)
    given[0, 1, 2] = value

    class Broken:
        def __getattr__(self, name: str) -> object:
            return lambda *_: given

    monkeypatch.setattr(reader, "_interpreter", Broken())
    with pytest.raises(ImageError, match="gives no probabilities"):
        reader.logits(np.ones((32, 90), np.float32))
    given[0, 1, 2] = MAX_LOGIT
    assert reader.logits(np.ones((32, 90), np.float32)).max() == MAX_LOGIT
