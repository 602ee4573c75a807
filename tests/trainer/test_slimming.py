from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from scrapy_captcha.bundle import Manifest, open_bundle  # noqa: E402
from scrapy_captcha.errors import BundleError  # noqa: E402
from trainer import networks, pretrain  # noqa: E402
from trainer.corpus import Task  # noqa: E402
from trainer.export import pack  # noqa: E402
from trainer.transfer import from_base  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

CHARSET = "0123456789"
TASK = Task(CHARSET, 4, 4, "lower")


def bundle(out: Path, model: keras.Model, architecture: str, heads: int = 4) -> Path:
    pack(model, Manifest(out.name, CHARSET, heads, heads, architecture)).write(out)
    return out


def with_dead_channels(wide: keras.Model, narrow: keras.Model) -> None:
    """Leave a wide network with as many channels that do something as a narrow one has."""
    rng = np.random.default_rng(0)
    convolutions = [each for each in wide.layers if isinstance(each, keras.layers.Conv2D)]
    norms = [each for each in wide.layers if hasattr(each, "moving_mean")]
    kept = [each.filters for each in narrow.layers if isinstance(each, keras.layers.Conv2D)]
    for convolution, norm, width in zip(convolutions, norms, kept, strict=True):
        gamma, beta, mean, variance = norm.get_weights()
        dead = rng.permutation(convolution.filters)[width:]
        gamma[dead] = beta[dead] = 0
        norm.set_weights([gamma, beta, mean, variance])


def test_a_narrow_network_starts_from_the_channels_that_matter_in_a_wide_one(tmp_path):
    keras.utils.set_random_seed(3)
    wide = networks.build("four_head_wide", heads=4, classes=10)
    with_dead_channels(wide, networks.build("four_head_compact", heads=4, classes=10))
    base = open_bundle(bundle(tmp_path / "wide", wide, "four_head_wide"))
    narrow = from_base(base, TASK, "four_head_compact")
    assert narrow.count_params() < 0.6 * wide.count_params()
    images = np.random.default_rng(1).random((3, 32, 90, 1), np.float32)
    np.testing.assert_allclose(narrow(images), wide(images), atol=1e-4)


def test_a_narrow_network_for_longer_texts_keeps_features_and_classes(tmp_path):
    wide = networks.build("four_head_wide", heads=4, classes=10)
    base = open_bundle(bundle(tmp_path / "wide", wide, "four_head_wide"))
    longer = from_base(base, Task("5a4", 6, 3, "lower"), "four_head_wide")
    assert longer.output_shape == (None, 6, 4)
    ours, theirs = longer.get_layer("shape").get_weights(), wide.get_layer("shape").get_weights()
    for kept, (new, old) in {0: (0, 5), 1: (2, 4)}.items():
        np.testing.assert_array_equal(ours[kept][..., new], theirs[kept][..., old])
    first = next(each for each in longer.layers if isinstance(each, keras.layers.Conv2D))
    same = next(each for each in wide.layers if isinstance(each, keras.layers.Conv2D))
    np.testing.assert_array_equal(first.get_weights()[0], same.get_weights()[0])


@pytest.mark.parametrize(("before", "after"), [(8, 5), (4, 8), (4, 4)])
@pytest.mark.parametrize(
    ("origin", "architecture"),
    [
        ("four_head_wide", "four_head_wide"),
        ("four_head_wide", "four_head_compact"),
        ("four_head_wide", "many_head_compact"),
        ("many_head_compact", "many_head_compact"),
    ],
)
def test_positions_that_both_lengths_have_are_looked_at_in_the_same_places(
    tmp_path, before, after, origin, architecture
):
    keras.utils.set_random_seed(4)
    wide = networks.build(origin, heads=before, classes=10)
    rng = np.random.default_rng(0)
    looking = [each for each in wide.layers if each.name in {"maps", "count"}]
    for each in looking:
        each.set_weights([rng.normal(size=w.shape) for w in each.get_weights()])
    with_dead_channels(wide, networks.build("four_head_compact", heads=before, classes=10))
    base = open_bundle(bundle(tmp_path / "wide", wide, origin, before))
    other = from_base(base, Task(CHARSET, after, after, "lower"), architecture)
    images = rng.random((3, 32, 90, 1), np.float32)
    looks = [keras.Model(m.input, m.get_layer("attention").output) for m in (wide, other)]
    old, new = (np.asarray(look(images)) for look in looks)
    same = min(before, after)
    np.testing.assert_allclose(new[..., :same], old[..., :same], atol=1e-4)


@pytest.mark.parametrize("architecture", ["four_head_wide", "four_head_vgg"])
def test_a_network_does_not_start_from_a_smaller_or_another_one(tmp_path, architecture):
    narrow = networks.build("four_head_compact", heads=4, classes=10)
    base = open_bundle(bundle(tmp_path / "narrow", narrow, "four_head_compact"))
    with pytest.raises(BundleError, match="cannot start from 'narrow', which has"):
        from_base(base, TASK, architecture)


def test_base_training_starts_from_a_base(tmp_path):
    wide = networks.build("four_head_wide", heads=4, classes=10)
    base = bundle(tmp_path / "wide", wide, "four_head_wide")
    plan = pretrain.Plan(
        "four_head_compact", CHARSET, (4, 4), minutes=1, seed=1, workers=0, base=str(base)
    )
    training = pretrain.Training(plan)
    expected = from_base(open_bundle(base), TASK, "four_head_compact").get_weights()
    for average, weight in zip(training.average, expected, strict=True):
        np.testing.assert_array_equal(average.numpy(), weight)
