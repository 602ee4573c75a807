from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("keras")

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import networks
import one_style
import recipes

try:
    one_style.faces()
except FileNotFoundError:
    pytest.skip("none of the style's typefaces is installed", allow_module_level=True)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return one_style.open_images(tmp_path_factory.mktemp("images"), train=40, unseen=24, seed=1)


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    monkeypatch.setattr(networks, "BATCH", 8)


def trained(images, run, *, epochs, network="four_head_compact", recipe="article", every=1e9):
    training = networks.learner(
        network, recipe, "float32", seed=1, steps=epochs * len(images.pixels) // 8
    )
    lines = []
    curve = networks.train(
        training,
        images,
        run,
        seed=1,
        minutes=math.inf,
        epochs=epochs,
        every=every,
        report=lines.append,
    )
    return training, curve, lines


def test_an_epoch_shows_every_image_once_in_an_order_of_its_own(images):
    order = networks.Order(images, seed=3)

    def shown(epoch):
        steps = range(epoch * order.steps, (epoch + 1) * order.steps)
        return [image.tobytes() for step in steps for image in order.batch(step)[0]]

    first, second = shown(0), shown(1)
    assert first != second
    assert sorted(first) == sorted(second) == sorted(image.tobytes() for image in images.pixels)
    pixels, labels = order.batch(2)
    again, same = networks.Order(images, seed=3).batch(2)
    np.testing.assert_array_equal(pixels, again)
    np.testing.assert_array_equal(labels, same)


def test_training_ends_after_its_epochs_with_a_measurement(images, tmp_path):
    training, curve, lines = trained(images, tmp_path / "run", epochs=2)
    assert training.step == 10
    assert [point["step"] for point in curve] == [10]
    assert "exact match" in lines[0]
    assert "of 24" in lines[0]
    result = networks.result_of(training, images)
    assert (result["n"], result["images_shown"], result["epochs"]) == (24, 80, 2.0)
    assert 0 <= result["interval_95"][0] <= result["exact_match"] <= result["interval_95"][1] <= 1


def test_training_ends_when_its_minutes_are_over(images, tmp_path):
    training = networks.learner("four_head_compact", "own", "mixed_bfloat16", seed=1, minutes=1e-6)
    curve = networks.train(
        training,
        images,
        tmp_path / "run",
        seed=1,
        minutes=1e-6,
        epochs=math.inf,
        every=60,
        report=lambda line: None,
    )
    assert training.step == len(curve) == 1


def test_training_goes_on_after_a_kill_as_if_never_stopped(images, tmp_path):
    whole, _, _ = trained(images, tmp_path / "whole", epochs=2)
    trained(images, tmp_path / "half", epochs=1)
    again, curve, lines = trained(images, tmp_path / "half", epochs=2)
    assert "going on from step 5" in lines[0]
    assert [point["step"] for point in curve] == [5, 10]
    for one, other in zip(whole.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


def test_dropout_goes_on_with_the_random_numbers_it_had_come_to(images, tmp_path):
    first = recipes.Article("four_head_vgg", "float32", heads=4, classes=36, seed=1)
    first.update(images.pixels[:2], images.labels[:2])
    first.save(tmp_path / "kept.npz")
    second = recipes.Article("four_head_vgg", "float32", heads=4, classes=36, seed=2)
    second.restore(tmp_path / "kept.npz")
    losses = [each.update(images.pixels[2:4], images.labels[2:4]) for each in (first, second)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert second.step == 2


@pytest.mark.parametrize("precision", recipes.PRECISIONS)
def test_the_articles_recipe_lowers_the_loss_in_each_precision(images, precision):
    training = recipes.Article("four_head_compact", precision, heads=4, classes=36, seed=1)
    losses = [training.update(images.pixels[:8], images.labels[:8]) for _ in range(8)]
    assert losses[-1] < losses[0]
    assert training.reader().dtype_policy.name == "float32"


def test_the_own_recipe_ends_its_schedule_by_steps_or_by_minutes():
    training = networks.learner(
        "four_head_compact", "own", "mixed_bfloat16", seed=1, minutes=2, steps=10
    )
    assert training.progress == 0
    training.step = 5
    assert training.progress == 0.5
    training.seconds = 90.0
    assert training.progress == 0.75


def test_the_command_writes_result_and_picture(images, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(networks, "open_images", lambda folder, **_: images)
    monkeypatch.setattr(
        sys,
        "argv",
        [
            *("networks.py", "--network", "four_head_compact", "--epochs", "1"),
            *("--images", str(tmp_path)),
        ],
    )
    assert networks.main() == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["network"], result["recipe"], result["n"]) == ("four_head_compact", "own", 24)
    assert json.loads((tmp_path / "runs" / "results.jsonl").read_text()) == result
    assert (tmp_path / "runs" / "comparison.png").stat().st_size > 5000


def test_throughput_is_measured_of_each_case(monkeypatch):
    monkeypatch.setattr(networks, "CASES", networks.CASES[-1:])
    rows = networks.throughput(0.01)
    assert [(row["recipe"], row["precision"]) for row in rows] == [
        ("own", "mixed_bfloat16"),
    ]
    assert all(row["images_per_second"] > 0 for row in rows)
