"""Whether a site's yes means anything: canaries, and acceptances too good to be true; pure."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

    from scrapy_captcha.recognizer import Recognition

#: A canary that is due takes a reading among this share of the least sure, of the last so many,
#: and any after so many readings: its image is lost, and those were likely lost anyway.
LEAST_SURE, COMPARED, PATIENCE = 0.2, 50, 10
#: After so many canaries in a row on which the site gave no verdict, none is hastened any more.
UNANSWERED = 3
#: A text that may be right with more than this probability is no canary.
MAYBE_RIGHT = 1e-3
#: What is suspected: that of the wrong answers this share is accepted.
YES_TO_WRONG = 0.5
#: The reader may be wrong so many times less often than it says, without being suspicious.
MODESTY = 3.0
#: Odds at which a suspicion is acted on.
ODDS = 1e4


def known_wrong(recognition: Recognition, alphabet: str, rng: random.Random) -> str | None:
    """A text as long as a reading that differs from it in every character.

    :param alphabet: the characters that occur; upper and lower case count as one
    :return: ``None`` when it might be right all the same, because the reader is too unsure
    """
    text, right = [], 1.0
    for character, chance in recognition.characters:
        others = sorted({c for c in alphabet if c.lower() != character.lower()})
        if not others:
            return None
        text.append(rng.choice(others))
        right *= (1.0 - chance) / len(others)
    return "".join(text) if text and right <= MAYBE_RIGHT else None


class Canaries:
    """When a site is sent an answer that is known to be wrong.

    :param rate: the share of the answers
    :ivar proven: whether the last one of this crawl was rejected, as it should
    :ivar unanswered: how many in a row the site gave no verdict on
    """

    def __init__(self, rate: float, rng: random.Random) -> None:
        self.rate = rate
        self.proven = False
        self.unanswered = 0
        self._rng = rng
        self._due = self._out = False
        self._waited = 0
        self._confidences: deque[float] = deque(maxlen=COMPARED)

    def hasten(self) -> None:
        """Have one sent soon, unless one is on its way, or no verdict is to be hoped for."""
        if self.rate > 0 and self.unanswered < UNANSWERED:
            self._plan()

    def takes(self, confidence: float) -> bool:
        """Whether the reading at hand, of such a confidence, is to be replaced by a canary."""
        if not self.rate:
            return False
        if self._rng.random() < self.rate:
            self._plan()
        lower = sum(other < confidence for other in self._confidences)
        unsure = lower < LEAST_SURE * len(self._confidences)
        self._confidences.append(confidence)
        if not self._due:
            return False
        self._waited += 1
        return unsure or self._waited >= PATIENCE

    def sent(self) -> None:
        """A canary is on its way."""
        self._due, self._out, self._waited = False, True, 0

    def returned(self, accepted: bool | None) -> None:
        """The site's verdict on a canary; ``None`` if there was none."""
        self._out = False
        if accepted is None:
            self.unanswered += 1
        else:
            self.unanswered, self.proven = 0, not accepted

    def _plan(self) -> None:
        self._due = self._due or not self._out


class Suspicion:
    """A cumulative sum test of "it accepts half of the wrong answers, too" against an honest site.

    Each answer adds the logarithm of how much likelier the verdict is on such a site, given the
    reader's confidence; the sum never falls below zero. On an honest site, with a reader that errs
    at least a third as often as it says, it takes 10,000 answers at least, on average, until the
    sum comes to ``log(ODDS)`` by chance.

    Source: E. S. Page, "Continuous inspection schemes", Biometrika 41 (1954); the bound is that of
    G. Lorden, "Procedures for reacting to a change in distribution", Annals of Mathematical
    Statistics 42 (1971).
    """

    def __init__(self) -> None:
        self._sum = 0.0
        self._since: str | None = None

    def add(self, confidence: float, accepted: bool, time: str) -> str | None:
        """Take a verdict in.

        :param confidence: of the reading, calibrated on the site itself
        :param time: at or before which the answer is stored
        :return: when it came to be suspicious: the time of the first answer since the sum was zero
        """
        honest = 1.0 - (1.0 - min(1.0, max(0.0, confidence))) / MODESTY
        if accepted:
            self._sum += math.log1p((1.0 - honest) * YES_TO_WRONG / honest)
        else:
            self._sum += math.log(1.0 - YES_TO_WRONG)
        if self._sum <= 0.0:
            self._sum, self._since = 0.0, None
            return None
        self._since = self._since or time
        if self._sum < math.log(ODDS):
            return None
        since, self._sum, self._since = self._since, 0.0, None
        return since
