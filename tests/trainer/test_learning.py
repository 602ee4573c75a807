from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

import keras  # noqa: E402

from scrapy_captcha.bundle import Bundle, FileEntry, Manifest  # noqa: E402
from trainer.augment import augment  # noqa: E402
from trainer.checkpoint import Checkpoint  # noqa: E402
from trainer.corpus import Corpus, Sample, Task  # noqa: E402
from trainer.finish import provenance  # noqa: E402
from trainer.loop import Labelled, Learner, Training  # noqa: E402
from trainer.losses import per_head_cross_entropy  # noqa: E402
from trainer.plan import (  # noqa: E402
    Emphasis,
    Options,
    choose_architecture,
    choose_emphasis,
    choose_schedule,
    describe,
    origin,
    split,
)


def loss(labels, logits, weights, smoothing=0.0, classes=None):
    found = per_head_cross_entropy(
        tf.constant(labels), tf.constant(logits), weights, smoothing, classes
    )
    return float(found)


def test_the_loss_is_the_mean_cross_entropy_of_the_heads():
    logits = np.random.default_rng(0).normal(size=(8, 4, 5)).astype(np.float32)
    labels = np.random.default_rng(1).integers(0, 5, (8, 4)).astype(np.int32)
    each = -np.log(np.exp(logits) / np.exp(logits).sum(-1, keepdims=True))
    picked = np.take_along_axis(each, labels[..., None], -1)[..., 0]
    assert loss(labels, logits, (1, 1, 1, 1)) == pytest.approx(picked.mean(), rel=1e-5)
    weighted = (picked * [1, 2, 2, 1]).sum(axis=1).mean() / 6
    assert loss(labels, logits, (1, 2, 2, 1)) == pytest.approx(weighted, rel=1e-5)
    smooth = 0.9 * picked.mean() + 0.1 * each.mean()
    assert loss(labels, logits, (1, 1, 1, 1), 0.1) == pytest.approx(smooth, rel=1e-5)
    of_classes = np.array([1, 2, 0.5, 1, 3])
    scaled = (picked * of_classes[labels]).mean()
    assert loss(labels, logits, (1, 1, 1, 1), 0.0, of_classes) == pytest.approx(scaled, rel=1e-5)


def test_augmentation_changes_images_a_little_and_the_same_seed_in_the_same_way():
    images = np.ones((16, 32, 90, 1), np.float32)
    images[:, 10:22, 30:60] = 0.1
    seeds = [tf.constant(seed) for seed in ([1, 2], [1, 2], [1, 4])]
    once, again, other = (np.asarray(augment(tf.constant(images), seed)) for seed in seeds)
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)
    assert once.shape == images.shape
    assert once.min() >= 0
    assert once.max() <= 1
    changes = np.abs(once - images).mean(axis=(1, 2, 3))
    assert changes.min() > 0
    assert changes.max() < 0.25
    assert len({round(float(change), 6) for change in changes}) == 16  # each image by itself


def emphasis(labels, task, **asked):
    samples = tuple(Sample(f"{label}.png", label, b"") for label in labels)
    loaded = Corpus(samples, np.zeros((len(samples), 32, 90), np.float16), ())
    return choose_emphasis(Options(("site",), Path("out"), **asked), task, loaded)


def test_rare_characters_weigh_more_within_bounds_and_the_mean_label_weighs_one():
    labels = ["aa"] * 90 + ["ab"] * 9 + ["ac"]
    weights = emphasis(labels, Task("abcd", 2, 2, "lower"), class_weights="balanced").classes
    assert weights[0] < weights[1] == weights[2]
    assert weights[2] / weights[0] <= 9 + 1e-3
    counts = np.array([190, 9, 1, 0])
    assert (np.array(weights) * counts).sum() / 200 == pytest.approx(1, abs=1e-3)


def test_weights_from_a_file_keep_their_relations_in_the_case_of_the_bundle():
    task = Task("ab", 2, 1, "lower")  # and the blank
    found = emphasis(["ab", "b"], task, class_weights={"B": 3.0}, label_smoothing=0.2)
    a, b, blank = found.classes
    assert b / a == pytest.approx(3, rel=1e-3)
    assert a == blank
    assert found.label_smoothing == 0.2
    assert emphasis(["ab"], task) == Emphasis((1.0, 1.0), None, 0.05)


@pytest.mark.parametrize(
    ("shortest", "longest", "architecture"),
    [
        (1, 1, "four_head_compact"),
        (4, 4, "four_head_compact"),
        (5, 5, "many_head_compact"),
        (3, 4, "many_head_compact"),
    ],
)
def test_from_scratch_long_texts_and_several_lengths_get_the_network_that_counts(
    shortest, longest, architecture
):
    task = Task("ab", longest, shortest, "lower")
    asked = Options(("site",), Path("out"))
    assert choose_architecture(asked, None, task) == architecture
    told = replace(asked, architecture="four_head_vgg")
    assert choose_architecture(told, None, task) == "four_head_vgg"
    base = Manifest("old", "ab", 4, 4, "four_head_wide")
    assert choose_architecture(asked, base, task) == "four_head_wide"


def test_a_longer_task_than_the_bases_is_told_of_a_base_that_counts():
    short = Manifest("alnum4", "ab", 4, 4, "four_head_compact")
    said = origin(short, Task("ab", 5, 5, "lower"), "four_head_compact")
    assert said.count("\n") == 1
    assert said.endswith(
        "alnum4 does not count characters and learns texts of 5 slowly: --base alnum8 counts"
    )
    assert "\n" not in origin(short, Task("abc", 4, 4, "lower"), "four_head_compact")
    counting = replace(short, architecture="many_head_compact")
    assert "\n" not in origin(counting, Task("ab", 9, 9, "lower"), "many_head_compact")


class Watched:
    """A learner that only remembers what it was shown."""

    def __init__(self):
        self.shown = []

    def step(self, images, classes, rate, seed):
        assert len(images) == len(classes)
        self.shown.append(images[:, 0, 0].astype(int).tolist())
        return 0.0

    def swap(self):
        pass


class Silent:
    def step(self, progress):
        pass

    def epoch(self, epoch):
        pass


def numbered(first, count):
    images = np.zeros((count, 32, 90), np.float16)
    images[:, 0, 0] = range(first, first + count)
    return Labelled(images, np.zeros((count, 2), np.int32))


def shown(seed, replay=0.25):
    schedule = choose_schedule(72, seconds=1e6, known=True, epochs=2, replay=replay)
    learner = Watched()
    drawn = numbered(1000, 50)
    Training(learner, numbered(0, 72), None, schedule, seed, replay=drawn).run(Silent())
    return learner.shown


def test_replay_takes_its_share_of_each_batch_and_the_site_is_still_seen_whole_each_pass():
    batches = shown(0)
    assert {len(batch) for batch in batches} == {32}
    assert {sum(number >= 1000 for number in batch) for batch in batches} == {8}
    own = [number for batch in batches for number in batch if number < 1000]
    assert sorted(own[:72]) == list(range(72))
    assert batches == shown(0)
    assert batches != shown(1)


def corpus(count):
    samples = tuple(Sample(f"{i}.png", "ab", str(i).encode()) for i in range(count))
    return Corpus(samples, np.zeros((count, 32, 90), np.float16), ())


def trained_on(parts, base=None):
    """The manifest of a model that was trained on a part of a corpus."""
    made = provenance(
        "fit",
        base and Bundle(Path(), base),
        trained_on=len(parts.train_on.samples),
        held_out=0,
        seed=0,
        steps=1,
        seconds=1,
        seen=parts.marks,
    )
    files = {"model.tflite": FileEntry("0" * 64, 1)}
    return Manifest("first", "ab", 2, 2, "four_head_compact", provenance=made, files=files)


def test_what_the_base_was_trained_on_for_want_of_labels_is_never_measured_on():
    task = Task("ab", 2, 2, "lower")
    few = split(corpus(190))
    assert few.held is None
    assert "190 images of 2 characters out of 2; fewer than 200 labels" in describe(few, task)
    first = trained_on(few)
    old = {s.digest for s in few.train_on.samples}
    more = split(corpus(210), first)  # a few new ones would be held out: too few
    assert more.held is None
    assert more.known > 10
    assert "fewer than 10 images for a holdout" in describe(more, task)
    second = trained_on(more, first)
    old |= {s.digest for s in more.train_on.samples}
    many = split(corpus(600), second)
    held = {s.digest for s in many.held.samples}
    assert len(held) > 20
    assert not held & old
    assert many.known == int(corpus(210).held_out().sum())
    assert f"{many.known} images that would be held out are trained on" in describe(many, task)
    assert "start from a shipped model" in describe(many, task)
    fresh = split(corpus(600))  # a base that never saw the site
    assert len(fresh.held.samples) == len(held) + many.known
    assert fresh.warning is None


def test_without_replay_a_batch_is_all_the_sites():
    assert max(number for batch in shown(0, replay=0.0) for number in batch) < 72


def small():
    """A tiny network about to be trained for a step."""
    keras.utils.set_random_seed(1)
    image = keras.Input((32, 90, 1))
    logits = keras.layers.Dense(4)(keras.layers.MaxPooling2D(16)(image))
    model = keras.Model(image, keras.layers.Reshape((10, 4))(logits))
    data = Labelled(np.ones((4, 32, 90), np.float16), np.zeros((4, 10), np.int32))
    schedule = choose_schedule(4, seconds=1e6, known=True, epochs=1)
    return Training(Learner(model, Emphasis((1.0,) * 10)), data, data, schedule, 0)


@pytest.mark.parametrize("change", ["shape of the last", "fields of an epoch", "no step"])
def test_a_checkpoint_that_does_not_fit_is_forgotten_and_changes_nothing(tmp_path, change):
    training = small()
    training.run(Silent())
    checkpoint = Checkpoint({"fit": 1}, tmp_path)
    checkpoint.save(training)
    with np.load(checkpoint.path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    progress = json.loads(str(arrays.pop("progress")))
    if change == "no step":
        del progress["step"]
    elif change == "fields of an epoch":
        progress["history"][0]["mood"] = "good"
    else:
        last = max(name for name in arrays if name.startswith("best"))
        arrays[last] = np.zeros(99, np.float32)
    np.savez(checkpoint.path, progress=json.dumps(progress), **arrays)
    fresh = small()
    before = [v.numpy() for v in fresh.learner.variables()]
    assert not checkpoint.restore(fresh)
    for variable, value in zip(fresh.learner.variables(), before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    assert fresh.history == []
    assert list(tmp_path.iterdir()) == []


def test_a_training_that_was_finished_is_finished_when_it_is_restored(tmp_path):
    training, again = small(), small()
    checkpoint = Checkpoint({"fit": 1}, tmp_path)
    training.run(Silent(), lambda: checkpoint.save(training))
    assert checkpoint.restore(again)
    assert again.finished
    again.run(Silent())
    for one, other in zip(
        training.learner.model.get_weights(), again.learner.model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(one, other)
