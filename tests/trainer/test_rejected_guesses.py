from __future__ import annotations

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from drawn_captchas import captcha  # noqa: E402

from scrapy_captcha.dataset import SiteDataset  # noqa: E402
from trainer.corpus import Task  # noqa: E402
from trainer.loop import Learner  # noqa: E402
from trainer.losses import rejected_guess_loss  # noqa: E402
from trainer.plan import Emphasis  # noqa: E402
from trainer.rejections import BESIDE, GUESSES, load_rejected  # noqa: E402
from trainer.transfer import faster, fresh  # noqa: E402

TASK = Task("0147", 2, 2, "lower")


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def test_the_loss_is_that_of_the_sum_of_the_rejected_texts_probabilities():
    logits = np.random.default_rng(0).normal(size=(3, 2, 4)).astype(np.float32)
    none = [-1, -1]
    guesses = np.array([[[0, 1], none], [[2, 2], [2, 3]], [[3, 0], [1, 1]]], np.int32)
    chances = softmax(logits)
    believed = [
        sum(chances[i, 0, a] * chances[i, 1, b] for a, b in texts if a >= 0)
        for i, texts in enumerate(guesses)
    ]
    found = float(rejected_guess_loss(tf.constant(guesses), tf.constant(logits)))
    assert found == pytest.approx(-np.log(1 - np.array(believed)).mean(), rel=1e-5)


@pytest.mark.parametrize("sure", [0.0, 5.0, 30.0, 500.0])
def test_loss_and_gradient_stay_finite_however_sure_a_network_is_of_a_rejected_text(sure):
    logits = tf.Variable([[[sure, 0.0, 0.0], [sure, 0.0, 0.0]]])
    with tf.GradientTape() as tape:
        loss = rejected_guess_loss(tf.constant([[[0, 0], [-1, -1]]]), logits)
    (gradient,) = [tape.gradient(loss, logits)]
    assert np.isfinite(float(loss))
    assert np.isfinite(np.asarray(gradient)).all()
    if 0 < sure < 10:  # the step that lowers it makes the text less likely
        assert np.asarray(gradient)[0, :, 0].min() > 0.4


def test_a_text_that_a_network_does_not_believe_in_teaches_it_next_to_nothing():
    logits = tf.Variable([[[0.0, 9.0, 0.0], [0.0, 9.0, 0.0]]])
    with tf.GradientTape() as tape:
        loss = rejected_guess_loss(tf.constant([[[0, 0]]]), logits)
    assert float(loss) < 1e-6
    assert np.abs(np.asarray(tape.gradient(loss, logits))).max() < 1e-6


@pytest.fixture
def site(tmp_path):
    return SiteDataset("shop", tmp_path / "captchas" / "shop")


def rejects(site, number, *guesses):
    for guess in guesses:
        site.store(captcha("01", number), guess, 0.5, "m", "rejected")


def test_rejected_images_come_with_their_guesses_and_confirmed_ones_do_not(site, tmp_path):
    rejects(site, 0, "00", "11", "00")
    rejects(site, 1, "14", "zz", "147")  # two that no such model can read
    rejects(site, 2, "zz")
    rejects(site, 3, "10")
    rejects(site, 4, *[a + b for a in "017" for b in "47"])
    site.store(captcha("01", 3), "01", 0.9, "m", "accepted")
    known = {}
    found = load_rejected([tmp_path / "captchas"], TASK, known)
    by_text = dict(zip(found.texts, found.guesses.tolist(), strict=True))
    assert by_text["00", "11"] == [[0, 0], [1, 1], [-1, -1], [-1, -1]]
    assert by_text["14",][0] == [1, 2]
    assert len(found) == 3
    assert found.guesses.shape == (3, GUESSES, 2)
    assert found.images.shape == (3, 32, 90)
    assert set(known) == set(found.digests)
    images, guesses = found.draw((0, 1))
    assert len(images) == len(guesses) == BESIDE
    site.close()


def test_folders_and_zips_of_labels_have_no_rejections(tmp_path, folder):
    assert len(load_rejected([folder, tmp_path / "some.zip"], TASK)) == 0


def test_what_is_rejected_is_not_taken_for_what_is_confirmed_elsewhere():
    rng = np.random.default_rng(0)
    images = rng.random((12, 32, 90)).astype(np.float16)
    classes = np.full((4, 2), 3, np.int32)
    guesses = np.full((8, GUESSES, 2), -1, np.int32)
    guesses[:, 0] = 3

    def believed(weight):
        tf.keras.utils.set_random_seed(0)
        network = faster(fresh("four_head_compact", TASK), "four_head_compact")
        learner = Learner(network, Emphasis((1.0, 1.0), None, 0.0, rejected=weight))
        for step in range(12):
            learner.step(images, classes, 3e-3, (0, step), guesses)
        logits = np.asarray(network(images[4:, :, :, None].astype(np.float32), training=True))
        return softmax(logits)[:, :, 3].prod(axis=-1).mean()

    assert believed(1.0) < believed(0.0) / 2
