"""How far a confidence can be trusted, in numbers; nothing but NumPy."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from scrapy_captcha.recognizer import decode_logits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from scrapy_captcha.bundle import Manifest

#: Confidences are compared with outcomes in at most so many bins ...
MAX_BINS = 15
#: ... of at least so many readings, or the error would measure little but chance.
MIN_BIN = 25
TEMPERATURES = (0.4, 4.0)


def wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a proportion, at 95 % unless told otherwise.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    Journal of the American Statistical Association 22 (1927).
    """
    if n == 0:
        return 0.0, 1.0
    share, square = hits / n, z * z
    middle = (share + square / (2 * n)) / (1 + square / n)
    half = z / (1 + square / n) * float(np.sqrt(share * (1 - share) / n + square / (4 * n * n)))
    return max(0.0, middle - half), min(1.0, middle + half)


def calibration_error(confidences: Sequence[float], correct: Sequence[bool]) -> float:
    """Expected calibration error over bins of about equally many readings.

    Args:
        confidences: 0 to 1, one a reading.
        correct: whether that reading was right as a whole.

    Returns:
        The mean distance between a bin's confidence and its share of right readings.
    """
    n = len(confidences)
    if n == 0:
        return 0.0
    sure, right = np.asarray(confidences), np.asarray(correct, np.float64)
    bins = max(1, min(MAX_BINS, n // MIN_BIN))
    edges = np.quantile(sure, np.linspace(0, 1, bins + 1)[1:-1])
    which = np.searchsorted(edges, sure, side="right")
    gaps = np.bincount(which, sure - right, minlength=bins)
    return float(np.abs(gaps).sum() / n)


def coverage(confidences: Sequence[float], correct: Sequence[bool], precision: float) -> float:
    """The largest share of readings, most confident first, that is right to at least ``precision``.

    Readings of equal confidence stand or fall together: no threshold can tell them apart.
    """
    if not len(confidences):
        return 0.0
    order = np.argsort(-np.asarray(confidences), kind="stable")
    sure, right = np.asarray(confidences)[order], np.asarray(correct, np.float64)[order]
    counts = np.arange(1, len(right) + 1)
    last_of_its_kind = np.append(sure[1:] != sure[:-1], True)
    good = counts[last_of_its_kind & (right.cumsum() / counts >= precision)]
    return float(good[-1] / len(right)) if len(good) else 0.0


def fit_temperature(logits: NDArray[np.float32], texts: Sequence[str], manifest: Manifest) -> float:
    """The temperature that makes the confidence of whole texts fit how often they are right.

    Minimises the log loss of the confidence as a forecast of "the whole text is right". The two
    outcomes are softened as Platt did (1999), so that a holdout without an error does not ask for
    boundless confidence.

    Args:
        logits: float32 of shape (images, heads, classes).
        texts: the true texts, in the bundle's case.
        manifest: how logits become text; its own temperature is ignored.

    Returns:
        A temperature from 0.4 to 4.
    """
    right = np.array(
        [decode_logits(row, manifest).text == text for row, text in zip(logits, texts, strict=True)]
    )
    if not len(right):
        return 1.0
    hits = int(right.sum())
    target = np.where(right, (hits + 1) / (hits + 2), 1 / (len(right) - hits + 2))

    def loss(log_temperature: float) -> float:
        scaled: dict[str, Any] = {"temperature": float(np.exp(log_temperature))}
        tried = replace(manifest, **scaled)
        sure = np.array([decode_logits(row, tried).confidence for row in logits])
        sure = np.clip(sure, 1e-6, 1 - 1e-6)
        return float(-(target * np.log(sure) + (1 - target) * np.log(1 - sure)).mean())

    low, high = np.log(TEMPERATURES)
    grid = np.linspace(low, high, 13)
    best = float(grid[int(np.argmin([loss(t) for t in grid]))])
    near = best + np.linspace(-1, 1, 9) * (grid[1] - grid[0])
    near = np.clip(near, low, high)
    return float(np.exp(near[int(np.argmin([loss(t) for t in near]))]))
