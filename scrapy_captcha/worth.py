"""Which readings are worth a submission: pure."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from scrapy_captcha.lineup import Arm

#: Without ``min_confidence``: answers of this crawl's present reader that a site must have judged
#: before readings are passed over, how many of the last are looked at, and how many images are
#: passed over in a row.
JUDGED_BEFORE, JUDGED_LATELY, PASSED_OVER = 20, 100, 2
#: Standard deviation, in nats, that a reader's confidence is off by before anything is known of it.
OFF = 2.0
_CERTAIN = 1e-6


class Judged(NamedTuple):
    """An answer: whether it was accepted, for how many images, with what confidence."""

    accepted: bool
    images: int
    confidence: float


class Worth:
    """What the site has said to its present reader's answers, and what follows from it.

    A reader that was trained a minute ago knows little of how sure it may be. So the log odds of
    its confidence are shifted by what makes its last answers as likely as they can be.
    """

    def __init__(self) -> None:
        self._arm: Arm | None = None
        self._lately: deque[Judged] = deque(maxlen=JUDGED_LATELY)

    def add(self, arm: Arm, accepted: bool, confidence: float, images: int) -> None:
        """An answer of the site's reader was judged, for which so many images were fetched."""
        if arm is not self._arm:
            self._arm = arm
            self._lately.clear()
        self._lately.append(Judged(accepted, images, confidence))

    def least(self, arm: Arm) -> float:
        """The least confidence of a reader with which an answer is worth a request.

        That is where the chance of being right is the number of right answers for each request
        that captchas cost here lately: who passes an image over for less must have that many
        requests' worth of a better one. 0 before enough is known.
        """
        if arm is not self._arm or len(self._lately) < JUDGED_BEFORE:
            return 0.0
        right = sum(judged.accepted for judged in self._lately)
        worth = right / sum(1 + judged.images for judged in self._lately)
        if not worth:
            return 0.0
        shifted = shift([(judged.confidence, judged.accepted) for judged in self._lately])
        return 1.0 / (1.0 + math.exp(shifted - math.log(worth / (1.0 - worth))))


def shift(answers: list[tuple[float, bool]]) -> float:
    """By how much the log odds of confidences are too low, as the verdicts have it.

    The most probable value if it was normally distributed around 0 beforehand, by Newton's method;
    a logistic regression with the slope held at 1.

    :param answers: confidence, 0 to 1, and whether it was right
    """
    sure = np.clip([confidence for confidence, _ in answers], _CERTAIN, 1.0 - _CERTAIN)
    odds = np.log(sure / (1.0 - sure))
    right = sum(accepted for _, accepted in answers)
    found = 0.0
    for _ in range(50):
        chance = 1.0 / (1.0 + np.exp(-(odds + found)))
        slope = right - float(chance.sum()) - found / OFF**2
        bend = float((chance * (1.0 - chance)).sum()) + 1.0 / OFF**2
        step = min(1.0, max(-1.0, slope / bend))  # far off, a whole step may lead further off
        found += step
        if abs(step) < 1e-4:
            break
    return found
