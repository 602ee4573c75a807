"""What is known of a site in a crawl, by all of its sessions."""

from __future__ import annotations

import math
import random
from collections import deque
from typing import TYPE_CHECKING

from scrapy.utils.asyncio import run_in_thread

from scrapy_captcha.drift import Drift
from scrapy_captcha.honesty import UNANSWERED, Canaries, Suspicion, known_wrong
from scrapy_captcha.lineup import Lineup
from scrapy_captcha.models import OWN
from scrapy_captcha.worth import JUDGED_LATELY, Worth

if TYPE_CHECKING:
    from scrapy_captcha.config import SiteRule
    from scrapy_captcha.dataset import SiteDataset
    from scrapy_captcha.lineup import Arm
    from scrapy_captcha.recognizer import Recognition

#: Confirmed images that waited for a first canary, in a crawl, after which something is wrong: so
#: many, and so many times those that a training takes.
WAITED_LONG, WAITED_ROUNDS = 50, 3
#: A training takes so large a share of new images, beside those that the last one learnt from.
NEW_SHARE = 0.05


class Site:
    """One site.

    :param arm: who reads it to begin with
    :param dataset: where its attempts go; ``None`` keeps nothing
    :param retrain_after: newly confirmed images after which its model is trained; ``None`` for not

    :ivar bundle: where the models are that its data trained, even when nothing more is stored
    :ivar attempts: judged ones, those of earlier crawls included; ``None`` before they are counted
    :ivar lately: whether the last answers of this crawl were accepted
    :ivar fresh: confirmed images that no training has been started for
    :ivar trained_on: how many the last training learnt from
    :ivar lengths: how many characters they have
    """

    def __init__(
        self,
        rule: SiteRule,
        arm: Arm,
        dataset: SiteDataset | None = None,
        retrain_after: int | None = None,
    ) -> None:
        self.rule = rule
        self.lineup = Lineup(arm)
        self.dataset = dataset
        self.bundle = dataset.path / OWN if dataset is not None else None
        self.retrain_after = retrain_after
        self.attempts: int | None = None
        self.lately: deque[bool] = deque(maxlen=JUDGED_LATELY)
        self._worth = Worth()
        self.fresh = self.trained_on = 0
        self.lengths: set[int] = set()
        self.drift = Drift()
        self.suspicion = Suspicion()
        self._waited = 0
        self._warned: set[str] = set()
        self._rng = random.Random()
        self.canaries = Canaries(rule.canary_rate if dataset is not None else 0.0, self._rng)

    @property
    def key(self) -> str:
        """The rule's key."""
        return self.rule.site

    def judged(self, arm: Arm, accepted: bool, confidence: float, images: int) -> None:
        """An answer was judged in this crawl, for which so many images were fetched."""
        self.lately.append(accepted)
        if arm is self.lineup.champion:
            self._worth.add(arm, accepted, confidence, images)
        if self.attempts is not None:
            self.attempts += 1
        self._waited += accepted and self._waits_for_canary

    @property
    def acceptance(self) -> float:
        """The accepted share of the last answers of this crawl."""
        return sum(self.lately) / max(1, len(self.lately))

    @property
    def worth_submitting(self) -> float:
        """The least confidence that an answer is worth a request with.

        During a contest none is passed over, or a challenger that knows itself badly would look
        good.
        """
        if self.lineup.contest is not None:
            return 0.0
        return self._worth.least(self.lineup.champion)

    async def count_attempts(self) -> int:
        """How many answers the site has judged."""
        if self.attempts is None:
            self.attempts = 0
            if self.dataset is not None:
                self.attempts += await run_in_thread(self.dataset.count_attempts)
        return self.attempts

    def canary(self, recognition: Recognition) -> str | None:
        """What to submit in place of a reading to see whether the site rejects what is wrong."""
        if not self.canaries.takes(recognition.confidence):
            return None
        alphabet = self.rule.charset or self.lineup.champion.alphabet
        wrong = known_wrong(recognition, alphabet, self._rng)
        if wrong is not None:
            self.canaries.sent()
        return wrong

    def warning(self) -> str | None:
        """What keeps canaries from telling anything, once for each reason."""
        warning = None
        if self.canaries.unanswered >= UNANSWERED:
            warning = (
                f"no verdict on {UNANSWERED} wrong answers in a row, so that it cannot be told "
                "whether its yes means anything: give the rule a `rejected` that its refusals "
                "match, or `canary_rate: 0`"
            )
        elif self._waits_for_canary and not self._warned:
            assert self.retrain_after is not None
            if self._waited >= max(WAITED_LONG, WAITED_ROUNDS * self.retrain_after):
                warning = (
                    "nothing is trained on before it has rejected a wrong answer, and there was "
                    "no reading yet that one could be made of; with `canary_rate: 0` its word is "
                    "taken as it is"
                )
        if warning is None or warning in self._warned:
            return None
        self._warned.add(warning)
        return warning

    @property
    def _waits_for_canary(self) -> bool:
        """Whether a training is due but for a canary that was rejected."""
        if self.retrain_after is None or self.dataset is None or self.dataset.quarantined:
            return False
        due = self.fresh >= self._enough(self.retrain_after)
        return due and self.canaries.rate > 0 and not self.canaries.proven

    @property
    def wants_training(self) -> bool:
        """Whether so many images were confirmed, by a site whose word counts."""
        if self.retrain_after is None or self.dataset is None or self.dataset.quarantined:
            return False
        if self.lineup.untried:
            return False
        canaries, enough = self.canaries, self._enough(self.retrain_after)
        if canaries.rate and not canaries.proven and 2 * self.fresh >= enough:
            canaries.hasten()
        return self.fresh >= enough and (canaries.proven or not canaries.rate)

    def _enough(self, retrain_after: int) -> int:
        """Newly confirmed images that are worth a training: the more are known, the more."""
        return max(retrain_after, math.ceil(NEW_SHARE * self.trained_on))
