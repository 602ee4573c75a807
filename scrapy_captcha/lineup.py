"""Who reads a site: the champion, now and then a challenger, and whom to go back to; pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scrapy_captcha.contest import LEAST, MOST, Contest, Outcome, Score, Watch

if TYPE_CHECKING:
    from scrapy_captcha.recognizer import Reader


#: So many promotions after the last canary, another one is sent soon.
DOUBTFUL = 2


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
    :ivar era: how often it has turned out that what the trainer makes is not wanted: it was worse,
        or learnt from answers that do not count
    """

    def __init__(self, champion: Arm) -> None:
        self.champion = champion
        self.challenger: Arm | None = None
        self.contest: Contest | None = None
        self.era = 0
        self._learnt = 0
        self._before: Arm | None = None
        self._trusted = champion
        self._unproven: list[str] = []
        self._watch: Watch | None = None
        self._answers: deque[bool] = deque(maxlen=MOST)

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
        if self.champion.version is not None:
            self._unproven.append(self.champion.version)
        self.challenger = self.contest = None
        return self.champion

    def drop(self, afresh: bool) -> Arm | None:
        """End the contest for the champion; the challenger that goes.

        :param afresh: whether the trainer must forget how it came to that challenger
        """
        gone, self.challenger, self.contest = self.challenger, None, None
        self.era += afresh
        return gone

    def take_back(self) -> list[str]:
        """Go back to the champion before this one, if it is remembered; the version that goes."""
        if self._before is None:
            return []
        gone, self._unproven = self.champion, self._unproven[:-1]
        if self._trusted is gone:
            self._trusted = self._before
        self._go_back(self._before)
        return [gone.version] if gone.version is not None else []

    def prove(self) -> None:
        """The site's word has turned out to count: so does what was promoted by it."""
        self._trusted, self._unproven = self.champion, []

    def doubt(self, versions: list[str], trusted: Arm) -> None:
        """An earlier crawl promoted these, the champion the last, and nothing has proven it yet."""
        self._trusted, self._unproven = trusted, versions

    def distrust(self) -> list[str]:
        """Go back to the last champion whose word counts; all the versions that go."""
        gone, self._unproven = self._unproven, []
        if gone:
            self._go_back(self._trusted)
        return gone

    def _go_back(self, arm: Arm) -> None:
        self.champion = arm
        self._before = self._watch = None
        self._answers.clear()
        self.era += 1

    @property
    def doubtful(self) -> bool:
        """Whether there were so many promotions by the site's word alone that it must be tried.

        The version to go back to is kept for a few promotions only.
        """
        return len(self._unproven) >= DOUBTFUL

    def learnt(self, era: int) -> None:
        """The trainer has made something of what it was asked in an era."""
        self._learnt = era

    @property
    def untried(self) -> bool:
        """Whether there is a challenger that has hardly read: a newer one would take its place."""
        return self.contest is not None and self.contest.challenger.judged < LEAST

    @property
    def start_afresh(self) -> bool:
        """Whether the trainer must forget what it made."""
        return self._learnt != self.era

    @property
    def scores(self) -> tuple[Score, Score]:
        """What the champion and what the challenger have come to."""
        contest = self.contest or Contest(self._answers)
        return contest.champion, contest.challenger
