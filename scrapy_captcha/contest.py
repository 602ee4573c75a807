"""Champion against challenger, by what the site says to their answers; pure.

Both read alternate captchas of a site. Any share of accepted answers is equally likely beforehand,
so what is known of one afterwards is a beta distribution; after every answer it is asked how
probable it is that the challenger's share is the higher one.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Answers of each after which a contest ends in any case.
MOST = 60
#: Answers of the challenger before which it does not end.
LEAST = 5
#: How probable it must be that the challenger is better, or worse, for an earlier end. It has
#: learnt from this very site, and can be taken back, so a fair chance of being better is enough:
#: where 70 of 100 answers of the champion are right, one that gets 84 right is promoted after 14
#: answers on average (at 0.90: 23), one that gets 60 right in a quarter of all contests, one with
#: 50 in 8 of 100.
BETTER, WORSE = 0.80, 0.98
#: Answers of a new champion during which it may be taken back, the first of them, how many of the
#: last are looked at, and how probable it must be that it is worse than the one before.
WATCHED, WATCHED_FROM, LOOKED_AT, FALLEN = 300, 20, 60, 0.999


class Outcome(enum.Enum):
    """How a contest ended, or what came of a promotion."""

    PROMOTED = "promoted"
    #: Not better, but nothing says that it is worse either: it may go on learning.
    DRAWN = "drawn"
    LOST = "lost"
    TAKEN_BACK = "taken back"


@dataclass(frozen=True)
class Score:
    """How many answers were judged, and how many of them accepted."""

    accepted: int = 0
    judged: int = 0

    def add(self, accepted: bool) -> Score:
        """The score after one more answer."""
        return Score(self.accepted + accepted, self.judged + 1)

    @property
    def share(self) -> float:
        """The accepted part; 0 without any."""
        return self.accepted / max(1, self.judged)

    def __str__(self) -> str:
        return f"{self.accepted} of {self.judged}"


class Contest:
    """One contest; the champion's last answers before it count for the champion.

    :param before: whether those were accepted, at most the last ``MOST`` are looked at
    """

    def __init__(self, before: Iterable[bool] = ()) -> None:
        known = deque(before, maxlen=MOST)
        self.champion = Score(sum(known), len(known))
        self.challenger = Score()
        self._turn = False

    def challengers_turn(self) -> bool:
        """Whose turn the next captcha is; the challenger begins."""
        self._turn = not self._turn
        return self._turn

    def add(self, by_challenger: bool, accepted: bool) -> Outcome | None:
        """Take an answer in; the outcome once there is one."""
        if by_challenger:
            self.challenger = self.challenger.add(accepted)
        else:
            self.champion = self.champion.add(accepted)
        if self.challenger.judged < LEAST:
            return None
        better = chance_of_more(self.challenger, self.champion)
        if better >= BETTER:
            return Outcome.PROMOTED
        if better <= 1 - WORSE:
            return Outcome.LOST
        if self.challenger.judged < MOST:
            return None
        kept_up = self.challenger.share >= self.champion.share
        return Outcome.PROMOTED if kept_up else Outcome.DRAWN


class Watch:
    """Looks after a new champion for its first answers.

    :param before: what its predecessor came to
    """

    def __init__(self, before: Score) -> None:
        self._before = before
        self._count = 0
        self._last: deque[bool] = deque(maxlen=LOOKED_AT)

    def add(self, accepted: bool) -> Outcome | None:
        """Take an answer of the new champion in; whether it has fallen clearly below the old."""
        self._count += 1
        self._last.append(accepted)
        if not WATCHED_FROM <= self._count <= WATCHED:
            return None
        last = Score(sum(self._last), len(self._last))
        fallen = chance_of_more(self._before, last) >= FALLEN
        return Outcome.TAKEN_BACK if fallen else None


@lru_cache(maxsize=1024)
def chance_of_more(one: Score, other: Score) -> float:
    """How probable it is that the share behind one score is higher than that behind another.

    The posteriors are Beta(accepted + 1, rejected + 1); for whole numbers the integral is a sum.
    """
    a, b = one.accepted + 1, one.judged - one.accepted + 1
    c, d = other.accepted + 1, other.judged - other.accepted + 1
    terms = (
        math.exp(_log_beta(c + i, b + d) - math.log(b + i) - _log_beta(1 + i, b) - _log_beta(c, d))
        for i in range(a)
    )
    return min(1.0, sum(terms))


def _log_beta(a: int, b: int) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
