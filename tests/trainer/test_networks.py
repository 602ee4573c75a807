from __future__ import annotations

import string
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from scrapy_captcha.bundle import Manifest  # noqa: E402
from scrapy_captcha.errors import BundleError  # noqa: E402
from trainer import arguments, batches, drawing, networks, pretrain  # noqa: E402
from trainer.conversion import litert_logits, to_tflite  # noqa: E402
from trainer.weights import load_weights, weights_file  # noqa: E402


def pictures(count, seed=0):
    return np.random.default_rng(seed).random((count, 32, 90, 1), np.float32)


@pytest.mark.parametrize("architecture", networks.ARCHITECTURES)
@pytest.mark.parametrize(("heads", "classes"), [(4, 36), (1, 10)])
def test_a_network_gives_logits_for_each_head(architecture, heads, classes):
    model = networks.build(architecture, heads=heads, classes=classes)
    logits = np.asarray(model(pictures(3)))
    assert logits.shape == (3, heads, classes)
    assert logits.dtype == np.float32
    assert len(model.outputs) == 1
    assert logits.min() < 0 < logits.max()  # no softmax on them


def test_the_original_network_has_the_articles_layers():
    model = networks.build("four_head_vgg", heads=4, classes=36)
    kinds = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [layer.filters for layer in kinds] == [64, 64, 128, 128, 256, 256]
    assert {layer.kernel_size for layer in kinds} == {(3, 3)}
    pools = [layer for layer in model.layers if isinstance(layer, keras.layers.MaxPooling2D)]
    assert [layer.pool_size for layer in pools] == [(2, 2)] * 3
    assert [layer.units for layer in model.layers if isinstance(layer, keras.layers.Dense)] == [
        36
    ] * 4


@pytest.mark.parametrize(
    ("architecture", "heads", "classes", "message"),
    [
        ("resnet", 4, 36, "four_head_compact, four_head_wide, many_head_compact, four_head_vgg"),
        ("four_head_compact", 0, 36, "got 0 and 36"),
        ("four_head_vgg", 4, 1, "got 4 and 1"),
    ],
)
def test_a_network_that_makes_no_sense_is_refused(architecture, heads, classes, message):
    with pytest.raises(ValueError, match=message):
        networks.build(architecture, heads=heads, classes=classes)


def test_where_a_head_looks_can_depend_on_all_that_is_left_of_it():
    model = networks.build("many_head_compact", heads=8, classes=37)
    attention = keras.Model(model.input, model.get_layer("attention").output)
    count = model.get_layer("count")
    blank = np.ones((1, 32, 90, 1), np.float32)
    inked = blank.copy()
    inked[:, 8:24, :4] = 0  # at the left edge
    right = [10, 21]  # the positions of the right edge, in both rows
    before = [np.asarray(attention(each))[0, right] for each in (blank, inked)]
    count.set_weights([np.random.default_rng(0).normal(size=w.shape) for w in count.get_weights()])
    after = [np.asarray(attention(each))[0, right] for each in (blank, inked)]
    assert np.abs(after[0] - after[1]).max() > 10 * np.abs(before[0] - before[1]).max()


@pytest.mark.parametrize("architecture", networks.ARCHITECTURES)
def test_quantised_it_fits_into_three_megabytes_and_says_the_same(architecture):
    model = networks.build(architecture, heads=4, classes=36)
    content = to_tflite(model)
    assert len(content) <= 3 << 20
    images = pictures(4)
    ours, theirs = litert_logits(content, images[..., 0]), np.asarray(model(images))
    assert np.abs(ours - theirs).max() < 0.1 * max(1.0, np.abs(theirs).max())


def test_weights_of_the_fast_normalization_are_those_of_the_plain_one():
    fast = networks.build("four_head_compact", heads=4, classes=36, fused=True)
    images = pictures(16)
    for _ in range(3):
        fast(images, training=True)
    plain = networks.build("four_head_compact", heads=4, classes=36)
    plain.set_weights(fast.get_weights())
    np.testing.assert_allclose(plain(images), fast(images), atol=1e-4)
    np.testing.assert_allclose(plain(images, training=True), fast(images, training=True), atol=1e-3)


def test_both_normalizations_keep_the_same_moving_statistics():
    images = pictures(16)
    fast = networks.build("four_head_compact", heads=4, classes=36, fused=True)
    plain = networks.build("four_head_compact", heads=4, classes=36)
    plain.set_weights(fast.get_weights())
    fast(images, training=True)
    plain(images, training=True)
    for one, other in zip(fast.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-2, atol=1e-4)


@pytest.mark.parametrize("architecture", networks.ARCHITECTURES)
def test_stored_weights_load_without_custom_layers(architecture):
    model = networks.build(architecture, heads=4, classes=36)
    charset = string.digits + string.ascii_lowercase
    loaded = load_weights(weights_file(model), Manifest("test", charset, 4, 4, architecture))
    images = pictures(2)
    np.testing.assert_allclose(loaded(images), model(images), atol=1e-5)
    assert all(type(layer).__module__.startswith("keras.") for layer in loaded.layers)


PLAN = pretrain.Plan("four_head_compact", "0123", (2, 2), minutes=1, seed=3, workers=0)


def batch(seed):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (8, 32, 90), np.uint8)
    return pixels, rng.integers(0, 4, (8, 2), np.int32)


def test_training_goes_on_from_a_checkpoint_as_if_never_stopped(tmp_path):
    training = pretrain.Training(PLAN)
    training.update(*batch(1))
    training.seconds, training.chunk = 12.5, 7
    training.save(tmp_path / "kept.npz")
    again = pretrain.Training(PLAN)
    again.restore(tmp_path / "kept.npz")
    assert (again.step, again.seconds, again.chunk) == (1, 12.5, 7)
    for one, other in zip(training.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(training.optimizer.variables, again.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    assert list(tmp_path.iterdir()) == [tmp_path / "kept.npz"]


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    pretrain.Training(PLAN).save(tmp_path / "kept.npz")
    other = pretrain.Plan("four_head_compact", "01234", (2, 2), minutes=1, seed=3, workers=0)
    with pytest.raises(BundleError, match="with charset '0123' and not '01234': delete it"):
        pretrain.Training(other).restore(tmp_path / "kept.npz")
    older = replace(PLAN, seed=4, length=(1, 2))
    with pytest.raises(BundleError, match=r"with length \[2, 2\] and not \[1, 2\], seed 3"):
        pretrain.Training(older).restore(tmp_path / "kept.npz")
    pretrain.Training(replace(PLAN, minutes=2, workers=3)).restore(tmp_path / "kept.npz")


@pytest.mark.parametrize("damage", ["torn", "foreign", "older", "a shape", "empty"])
def test_a_checkpoint_that_is_damaged_is_refused_and_changes_nothing(tmp_path, damage):
    path = tmp_path / "kept.npz"
    training = pretrain.Training(PLAN)
    training.update(*batch(1))
    training.save(path)
    content = path.read_bytes()
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    if damage == "older":
        arrays["state"] = np.array('{"step": 1, "seconds": 1, "chunk": 1}')
    else:
        arrays[max(arrays)] = np.zeros(99)
    cut = {"torn": content[: len(content) // 2], "foreign": b"mine", "empty": b""}
    if damage in cut:
        path.write_bytes(cut[damage])
    else:
        np.savez(path, **arrays)
    fresh = pretrain.Training(PLAN)
    before = fresh.model.get_weights()
    with pytest.raises(BundleError, match=r"kept\.npz is .*delete it to start anew"):
        fresh.restore(path)
    for one, other in zip(fresh.model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)
    assert fresh.step == 0


def test_training_lowers_the_loss_on_what_it_is_shown():
    training = pretrain.Training(PLAN)
    training.seconds = 3.0
    losses = [training.update(*batch(1)) for _ in range(12)]
    assert losses[-1] < losses[0]


def test_the_learning_rate_warms_up_and_falls_to_its_end():
    rates = [pretrain.learning_rate(p / 100) for p in range(101)]
    assert rates[0] < rates[1] < rates[2] == max(rates)
    assert all(a > b for a, b in pairwise(rates[2:]))
    assert rates[-1] == pytest.approx(pretrain.LAST_RATE)


def test_replayed_batches_follow_each_new_one_once_there_are_enough():
    def chunks():
        for number in range(10):
            yield np.full((256, 32, 90), number, np.uint8), np.full((256, 4), number, np.int32)

    kinds = []
    for pixels, labels, begun in batches.batches(chunks(), 1):
        assert (pixels[:, 0, 0] == labels[:, 0]).all()
        kinds.append((begun, len(set(labels[:, 0])) > 1))
    assert sum(begun for begun, _ in kinds) == 10
    assert kinds[0] == (True, False)
    replayed = sum(mixed for _, mixed in kinds)
    assert replayed == batches.REPLAYS * 2 * (10 - 5)


def test_a_short_pretraining_writes_a_bundle_and_reports_progress(tmp_path, monkeypatch):
    from scrapy_captcha.bundle import open_bundle  # noqa: PLC0415
    from trainer import fonts  # noqa: PLC0415

    found = [path for path in fonts.font_files() if fonts.PLAIN.search(str(path.parent))]
    if not found:
        pytest.skip("no text font is installed")
    faces = tuple(fonts.Typeface(str(p), 1.0, True) for p in fonts.legible(found[:6]))
    monkeypatch.setattr(drawing, "typefaces", lambda folders: faces)
    monkeypatch.setattr(pretrain, "HOLDOUT", 32)
    monkeypatch.setattr(pretrain, "EASY", 10)
    lines: list[str] = []
    pretrain.pretrain(
        out=tmp_path / "tiny",
        charset="0123456789",
        length=(3, 4),
        minutes=0.02,
        workers=0,
        report=lines.append,
    )
    manifest = open_bundle(str(tmp_path / "tiny")).manifest
    assert (manifest.name, manifest.length, manifest.min_length) == ("tiny", 4, 3)
    assert manifest.classes == 11
    assert manifest.architecture == "many_head_compact"  # by default, as lengths vary
    assert manifest.accuracy["n"] == 32
    assert manifest.accuracy["on"] == "holdout of drawn images"
    assert manifest.calibration["method"] == "temperature, on the holdout of drawn images"
    assert manifest.calibration["ece"] == manifest.accuracy["calibration_error"]
    assert manifest.calibration["n"] == 32
    assert len(manifest.golden) == 4
    made = manifest.provenance
    assert (made["recipe"], made["base"], made["held_out"]) == ("pretrain", None, 32)
    assert made["export"]["exact_match"]["n"] == 32
    assert made["export"]["exact_match"]["litert"] == manifest.accuracy["exact_match"]
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]  # and no checkpoint
    assert "holdout" in lines[0]
    assert "calibration error" in lines[-1]
    assert "images/s" in lines[0]


def test_the_command_line_knows_the_architectures_without_importing_keras():
    assert set(arguments.ARCHITECTURES) == set(networks.ARCHITECTURES)
