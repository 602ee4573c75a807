"""Who reads a site: the champion, now and then a challenger, and whom to go back to; pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scrapy_captcha.contest import MOST, Contest, Outcome, Score, Watch

if TYPE_CHECKING:
    from scrapy_captcha.recognizer import Reader


@dataclass(frozen=True, eq=False)
class Arm:
    """A model that reads a site.

    :param alphabet: the characters that it knows
    :param version: its name, if it is one of the bundle that the site's own data trained
    :param calibrated: whether its confidence was fitted to images of this very site
    """

    reader: Reader
    alphabet: str
    version: str | None = None
    calibrated: bool = False


class Lineup:
    """The readers of one site; each change takes place between two readings.

    :ivar challenger: who reads every other captcha while there is a contest
    :ivar start_afresh: whether the trainer must forget what it made: it was worse, or learnt from
        answers that do not count
    """

    def __init__(self, champion: Arm) -> None:
        self.champion = champion
        self.challenger: Arm | None = None
        self.contest: Contest | None = None
        self.start_afresh = False
        self._before: Arm | None = None
        self._watch: Watch | None = None
        self._answers: deque[bool] = deque(maxlen=MOST)
        self._proven = True

    def next_arm(self) -> Arm:
        """Who reads the next captcha."""
        if self.contest is None or self.challenger is None or not self.contest.challengers_turn():
            return self.champion
        return self.challenger

    def challenge(self, arm: Arm) -> Arm | None:
        """Begin a contest; the undecided challenger that it takes the place of, if there is one.

        What is known of the champion stays, so that a contest begun anew costs the answers of the
        challenger alone.
        """
        replaced, self.challenger = self.challenger, arm
        self.contest = Contest(self._answers)
        return replaced

    def judged(self, arm: Arm, accepted: bool) -> Outcome | None:
        """Take a verdict in; what is to be done now, by one of the three methods below."""
        if arm is not self.champion:
            if arm is not self.challenger or self.contest is None:
                return None  # of a contest that is over
            return self.contest.add(True, accepted)
        self._answers.append(accepted)
        outcome = self.contest.add(False, accepted) if self.contest is not None else None
        if self._watch is not None and self._before is not None:
            return self._watch.add(accepted) or outcome
        return outcome

    def promote(self) -> Arm:
        """The challenger is the champion from now on; it is watched for a while."""
        assert self.challenger is not None
        assert self.contest is not None
        self._before, self._watch = self.champion, Watch(self.contest.champion)
        self.champion, won = self.challenger, self.contest.challenger
        self._answers = deque([True] * won.accepted + [False] * (won.judged - won.accepted), MOST)
        self._proven = False
        self.challenger = self.contest = None
        return self.champion

    def drop(self, afresh: bool) -> Arm | None:
        """End the contest for the champion; the challenger that goes.

        :param afresh: whether the trainer must forget how it came to that challenger
        """
        gone, self.challenger, self.contest = self.challenger, None, None
        self.start_afresh = self.start_afresh or afresh
        return gone

    def take_back(self) -> Arm | None:
        """Go back to the champion before this one, if it is remembered; the one that goes."""
        if self._before is None:
            return None
        gone, self.champion = self.champion, self._before
        self._before = self._watch = None
        self._answers.clear()
        self._proven = self.start_afresh = True
        return gone

    def prove(self) -> None:
        """The site's word has turned out to count: so does what was promoted by it."""
        self._proven = True

    @property
    def unproven(self) -> bool:
        """Whether the champion came to be it by answers that may not count."""
        return not self._proven

    @property
    def scores(self) -> tuple[Score, Score]:
        """What the champion and what the challenger have come to."""
        contest = self.contest or Contest(self._answers)
        return contest.champion, contest.challenger
