from __future__ import annotations

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from trainer.augment import augment  # noqa: E402
from trainer.losses import per_head_cross_entropy  # noqa: E402


def loss(labels, logits, weights, smoothing=0.0):
    found = per_head_cross_entropy(tf.constant(labels), tf.constant(logits), weights, smoothing)
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
