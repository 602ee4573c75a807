from __future__ import annotations

import random

import numpy as np
import pytest

from scrapy_captcha.bundle import Manifest
from scrapy_captcha.intervals import wilson
from trainer.calibration import calibration_error, coverage, fit_temperature

MANIFEST = Manifest("test", "abcd", 2, 2, "four_head_compact")


def test_wilsons_interval_has_the_published_values():
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


def test_the_calibration_error_is_the_distance_of_confidence_from_truth():
    assert calibration_error([0.9] * 100, [True] * 90 + [False] * 10) == pytest.approx(0)
    assert calibration_error([1.0] * 20, [False] * 20) == 1.0
    assert calibration_error([], []) == 0.0
    rng = random.Random(0)
    sure = [rng.random() for _ in range(20_000)]
    assert calibration_error(sure, [rng.random() < c for c in sure]) < 0.02
    assert calibration_error(sure, [rng.random() < c / 2 for c in sure]) == pytest.approx(
        0.25, abs=0.02
    )


def test_coverage_is_the_largest_share_that_is_precise_enough():
    assert coverage([0.9, 0.8, 0.7, 0.6], [True, True, False, False], 0.99) == 0.5
    assert coverage([0.9, 0.8, 0.7, 0.6], [True, True, False, True], 0.75) == 1.0
    assert coverage([0.9, 0.8], [False, False], 0.99) == 0.0
    # no threshold can take one of two equal confidences and leave the other
    assert coverage([0.9, 0.9], [True, False], 0.99) == 0.0


@pytest.mark.parametrize("stretch", [0.5, 2.5])
def test_the_temperature_takes_back_what_made_the_confidence_wrong(stretch):
    rng = np.random.default_rng(0)
    honest = rng.normal(0, 2.5, (800, 2, 4)).astype(np.float32)
    chances = np.exp(honest) / np.exp(honest).sum(-1, keepdims=True)
    texts = [
        "".join(rng.choice(list("abcd"), p=head / head.sum()) for head in row) for row in chances
    ]
    assert fit_temperature(honest * stretch, texts, MANIFEST) == pytest.approx(stretch, rel=0.2)
