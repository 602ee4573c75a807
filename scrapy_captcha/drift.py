"""Whether a site's acceptance has fallen below its past; fed with one verdict at a time."""

from __future__ import annotations

import math
from collections import deque

#: The present is the last so many judged answers.
WINDOW = 100
#: The past is the best stretch before them, of so many answers or of what there is.
PAST = 300
#: Signed root of the likelihood ratio at which the fall is called clear.
CLEAR = 5.0


class Drift:
    """A test of the last 100 judged answers against the best 300 in a row before them.

    The past is kept in blocks of 100 answers; its best stretch is the three blocks in a row (fewer,
    while there are fewer) that had the highest share accepted. From 200 answers on, each answer is
    followed by the likelihood-ratio test of one share for both against two: with the signed root
    ``r = sqrt(2 (log L(two shares) - log L(one)))``, a lower present share and ``r >= CLEAR`` is a
    clear fall. As the past is its best stretch and not its mean, a site that has been learnt while
    it was crawled is measured by what it had come to, and a slow decline shows too.

    In 10,000 answers that are all accepted with one and the same probability, between 5 % and 99 %,
    a warning comes in at most 2 % of crawls (1,000 simulated for each of nine probabilities). After
    a fall from 90 % to 70 % it comes within 97 answers in half of them and within 270 in 95 %; from
    90 % to 50 % within 48 and 67. ``python benchmarks/drift.py`` has more.
    """

    def __init__(self) -> None:
        self._recent: deque[bool] = deque(maxlen=WINDOW)
        self._now = 0
        self._blocks: deque[int] = deque(maxlen=PAST // WINDOW)
        self._block = self._filled = 0
        self._best = (0, 0)
        self._warned = False

    def add(self, accepted: bool) -> str | None:
        """Take a verdict in; a warning the first time that it makes the fall clear.

        Canaries do not count, nor do the answers of a challenger on trial.
        """
        if len(self._recent) == WINDOW:
            self._leave(self._recent[0])
            self._now -= self._recent[0]
        self._recent.append(accepted)
        self._now += accepted
        if self._warned or not self.fallen:
            return None
        self._warned = True
        return self.describe()

    @property
    def share(self) -> float | None:
        """The share accepted of the last 100 answers, of fewer at first; ``None`` before any."""
        return self._now / len(self._recent) if self._recent else None

    @property
    def best(self) -> float | None:
        """The share accepted in the best stretch of the past; ``None`` below 200 answers."""
        hits, n = self._best
        return hits / n if n else None

    @property
    def fallen(self) -> bool:
        """Whether the present is clearly below the past."""
        hits, n = self._best
        return self._now * n < hits * WINDOW and _root(self._now, WINDOW, hits, n) >= CLEAR

    def describe(self) -> str:
        """The present and the past, as a part of a sentence."""
        was = "" if self.best is None else f", {self.best:.0%} of the best {self._best[1]} before"
        return f"{self.share or 0:.0%} of the last {len(self._recent)} answers were accepted{was}"

    def _leave(self, accepted: bool) -> None:
        """An answer goes from the present to the past."""
        self._block += accepted
        self._filled += 1
        if self._filled < WINDOW:
            return
        self._blocks.append(self._block)
        self._block = self._filled = 0
        stretch = (sum(self._blocks), WINDOW * len(self._blocks))
        hits, n = self._best
        # a longer stretch is the better measured one while the past is short
        if n < stretch[1] or stretch[0] > hits:
            self._best = stretch


def _root(hits: int, n: int, past_hits: int, past_n: int) -> float:
    apart = _log_likelihood(hits, n) + _log_likelihood(past_hits, past_n)
    return math.sqrt(max(0.0, 2 * (apart - _log_likelihood(hits + past_hits, n + past_n))))


def _log_likelihood(hits: int, n: int) -> float:
    """Of the hits at their own share."""
    misses = n - hits
    return (hits * math.log(hits / n) if hits else 0.0) + (
        misses * math.log(misses / n) if misses else 0.0
    )
