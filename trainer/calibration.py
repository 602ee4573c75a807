"""How far a confidence can be trusted, in numbers; nothing but NumPy."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from scrapy_captcha.recognizer import decode_logits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from scrapy_captcha.bundle import Manifest

#: Confidences are compared with outcomes in so many bins of equal width.
BINS = 15
TEMPERATURES = (0.4, 4.0)
#: How often honest confidences are played through to learn what chance alone makes of them.
PLAYS = 200


class Bin(NamedTuple):
    """Readings of about the same confidence: how many, their mean confidence, the share right."""

    n: int
    confidence: float
    right: float


class Cut(NamedTuple):
    """What is left above a confidence: the share of the readings, and the share of those right."""

    confidence: float
    coverage: float
    precision: float


def reliability(confidences: Sequence[float], correct: Sequence[bool]) -> list[Bin]:
    """Confidence beside outcome, in 15 bins of equal width, lowest first, empty ones left out.

    Args:
        confidences: 0 to 1, one a reading.
        correct: whether that reading was right as a whole.
    """
    sure, right = np.asarray(confidences, np.float64), np.asarray(correct, np.float64)
    which = _bins(sure)
    return [
        Bin(int(there.sum()), float(sure[there].mean()), float(right[there].mean()))
        for there in (which == i for i in np.unique(which))
    ]


def calibration_error(confidences: Sequence[float], correct: Sequence[bool]) -> float:
    """Expected calibration error: the mean distance of confidence from outcome in `reliability`.

    Source: C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On calibration of modern neural networks",
    ICML 2017, with as many bins.
    """
    gaps = [b.n * abs(b.confidence - b.right) for b in reliability(confidences, correct)]
    return float(sum(gaps) / max(1, len(confidences)))


def chance_error(confidences: Sequence[float]) -> float:
    """The calibration error that these confidences would show on average if each were true.

    So many readings are too few to measure less than this.
    """
    sure = np.sort(np.asarray(confidences, np.float64))
    if not len(sure):
        return 0.0
    played = np.random.default_rng(0).random((PLAYS, len(sure))) < sure
    starts = np.unique(_bins(sure), return_index=True)[1]
    gaps = np.add.reduceat(sure - played, starts, axis=1)
    return float(np.abs(gaps).sum(axis=1).mean() / len(sure))


def _bins(sure: NDArray[np.float64]) -> NDArray[np.int64]:
    """The number of each confidence's bin."""
    return np.minimum((sure * BINS).astype(np.int64), BINS - 1)


def precision_curve(confidences: Sequence[float], correct: Sequence[bool]) -> list[Cut]:
    """What every possible threshold would leave, the highest first.

    Readings of equal confidence stand or fall together: no threshold can tell them apart.
    """
    order = np.argsort(-np.asarray(confidences, np.float64), kind="stable")
    sure = np.asarray(confidences, np.float64)[order]
    right = np.asarray(correct, np.float64)[order]
    counts = np.arange(1, len(right) + 1)
    precision = right.cumsum() / counts
    last_of_its_kind = np.append(sure[1:] != sure[:-1], True) if len(sure) else np.zeros(0, bool)
    return [
        Cut(float(sure[i]), float(counts[i] / len(right)), float(precision[i]))
        for i in np.flatnonzero(last_of_its_kind)
    ]


def coverage(confidences: Sequence[float], correct: Sequence[bool], precision: float) -> float:
    """The largest share of readings, most confident first, that is right to ``precision``."""
    cuts = precision_curve(confidences, correct)
    return max((cut.coverage for cut in cuts if cut.precision >= precision), default=0.0)


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
