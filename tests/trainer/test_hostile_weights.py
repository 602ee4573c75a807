"""Weights that somebody gave away to do harm are refused before they take memory or run."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("keras")

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import hostile_models
import hostile_weights

from scrapy_captcha.bundle import WEIGHTS, open_bundle
from scrapy_captcha.errors import BundleError
from trainer import networks
from trainer.student import task_of
from trainer.transfer import from_base
from trainer.weights import load_weights, weights_file


@pytest.fixture(scope="module")
def base():
    return open_bundle("alnum4")


@pytest.mark.parametrize("name", hostile_weights.WEIGHTS_FILES)
def test_weights_of_another_kind_are_refused(name, base, tmp_path):
    canary = tmp_path / "evil"
    content = hostile_weights.WEIGHTS_FILES[name](base.read(WEIGHTS), canary)
    with pytest.raises(BundleError, match=f"cannot load {WEIGHTS}"):
        load_weights(content, base.manifest)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    "name",
    [
        "an array of 4 TB",
        "200 MB in 200 kB",
        "an array of 4 GB, compressed",
        "a directory of 12 MB",
        "a description of 12 MB",
        "arrays of 60 MB",
    ],
)
def test_what_would_take_much_memory_takes_none(name, base, tmp_path):
    content = hostile_weights.WEIGHTS_FILES[name](base.read(WEIGHTS), tmp_path / "evil")
    found = hostile_models.judged(lambda: load_weights(content, base.manifest))
    assert found["outcome"] == "refused"
    assert found["mb"] < 50


def test_a_network_of_gigabytes_is_not_built_for_a_small_file(base, monkeypatch):
    charset = "".join(chr(0x4E00 + i) for i in range(4096))
    huge = replace(
        base.manifest, architecture="four_head_vgg", charset=charset, length=32, min_length=32
    )
    monkeypatch.setattr(networks, "build", lambda *_, **__: pytest.fail("built"))
    with pytest.raises(BundleError, match="four_head_vgg with 32 heads of 4096 classes has more"):
        load_weights(base.read(WEIGHTS), huge)


def test_an_architecture_that_is_not_known_is_refused(base):
    with pytest.raises(BundleError, match="expected one of four_head_compact"):
        load_weights(base.read(WEIGHTS), replace(base.manifest, architecture="Lambda"))


@pytest.mark.parametrize("name", ["alnum4", "alnum8"])
def test_the_shipped_weights_are_what_training_starts_from(name):
    bundle = open_bundle(name)
    model = from_base(bundle, task_of(bundle.manifest))
    assert model.output_shape == (None, bundle.manifest.length, bundle.manifest.classes)
    again = load_weights(weights_file(model), bundle.manifest)
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        assert (one == other).all()
