"""Who reads a site next: the trainer's versions, their contests, and the ways back, on the disk."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scrapy.utils.asyncio import run_in_thread
from scrapy.utils.defer import deferred_from_coro, maybe_deferred_to_future
from twisted.internet.defer import DeferredLock

from scrapy_captcha import retraining, signals, stats, versions
from scrapy_captcha.attempts import CANARY_REJECTED, attempts_in_order, explained
from scrapy_captcha.contest import Outcome
from scrapy_captcha.errors import BundleError
from scrapy_captcha.models import OWN, base_of, open_challenger
from scrapy_captcha.quarantine import weigh

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from scrapy.crawler import Crawler

    from scrapy_captcha.dataset import SiteDataset
    from scrapy_captcha.lineup import Arm
    from scrapy_captcha.retraining import Answer
    from scrapy_captcha.site import Site

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """What earlier crawls have left of a site.

    :param taken_back: confirmed images that had to go into quarantine still
    :param fresh: confirmed images since the last version was trained
    :param trained_on: those before
    :param lengths: how many characters the confirmed texts have
    :param challenger: a version that was not judged to the end
    :param unproven: versions, the current one the last, that are later than the last wrong answer
        that the site was seen to reject
    :param trusted: the one before those; ``None`` when that is the default
    """

    taken_back: int
    fresh: int
    trained_on: int
    lengths: set[int]
    challenger: Arm | None
    unproven: tuple[str, ...] = ()
    trusted: Arm | None = None


class Succession:
    """Has models trained, put to the test, promoted and taken back.

    :param trainer: ``None`` when there is no retraining
    """

    def __init__(
        self,
        crawler: Crawler,
        counters: stats.Counters,
        sites: Mapping[str, Site],
        trainer: retraining.Trainer | None,
    ) -> None:
        self._crawler = crawler
        self._counters = counters
        self._sites = sites
        self._trainer = trainer
        self._locks = {key: DeferredLock() for key in sites}
        self._era = 0

    def expect(self, site: Site) -> None:
        """There is something to learn from: the trainer will be wanted before long."""
        if self._trainer is not None and site.retrain_after is not None:
            self._trainer.start(base_of(site.lineup.champion.reader, site.lengths))

    async def closed(self) -> None:
        """End the trainer."""
        if self._trainer is not None:
            await run_in_thread(self._trainer.close)

    async def act(self, site: Site, outcome: Outcome) -> None:
        """Do what a contest, or the watch over a promotion, has come to.

        The lineup changes at once. The disk follows, one step of a site after the other.
        """
        lineup = site.lineup
        champion, challenger = lineup.scores
        if outcome is Outcome.TAKEN_BACK:
            await self._go_back(site, lineup.take_back(), "it does worse than the one before")
        elif outcome is Outcome.PROMOTED:
            await self._promote(site, f"{challenger} accepted against {champion}")
        else:
            gone = lineup.drop(afresh=outcome is Outcome.LOST)
            async with self._alone(site):
                await self._discard(site, gone, f"{challenger} accepted against {champion}")

    async def _promote(self, site: Site, why: str) -> None:
        lineup = site.lineup
        arm = lineup.promote()
        assert arm.version is not None
        async with self._alone(site):
            if lineup.champion is not arm:
                return  # taken back meanwhile
            try:
                await run_in_thread(versions.promote, _own(site), arm.version)
            except BundleError as e:
                logger.error("%s", e, extra=self._extra)
                if lineup.champion is arm:
                    lineup.take_back()
                return
            self._counters.add(site.key, stats.PROMOTED)
            self._changed(site, arm, "promoted", why)
            if lineup.doubtful:
                site.canaries.hasten()

    async def _go_back(self, site: Site, gone: list[str], why: str) -> None:
        """Go back on the disk from versions that were champions, and delete them.

        A challenger is dropped, too: it came of them, or of what they came of.
        """
        challenger, champion = site.lineup.drop(afresh=True), site.lineup.champion
        async with self._alone(site):
            if gone:
                try:
                    await run_in_thread(versions.withdraw, _own(site), gone)
                except BundleError as e:
                    logger.error("%s", e, extra=self._extra)
                self._changed(site, champion, "rolled_back", why)
            for version in gone:
                await self._drop(site, version, why)
            await self._discard(site, challenger, why)

    async def _discard(self, site: Site, arm: Arm | None, why: str) -> None:
        """Delete a challenger that lost, or never came to be judged."""
        if arm is not None and arm.version is not None:
            await self._drop(site, arm.version, why)

    async def _drop(self, site: Site, version: str, why: str) -> None:
        self._counters.add(site.key, stats.ROLLED_BACK)
        logger.info("%s: %s is dropped: %s", site.key, version, why, extra=self._extra)
        await self._delete(site, version)

    async def _delete(self, site: Site, version: str) -> None:
        try:
            await run_in_thread(versions.discard, _own(site), version)
        except BundleError as e:
            logger.warning("%s", e, extra=self._extra)

    async def distrust(self, site: Site) -> None:
        """What was learnt since the site's word was last known to count may be wrong."""
        await self._go_back(site, site.lineup.distrust(), "the site's word does not count")

    @asynccontextmanager
    async def _alone(self, site: Site) -> AsyncIterator[None]:
        """Nobody else changes the site's versions meanwhile; who came first goes first."""
        lock = self._locks[site.key]
        await maybe_deferred_to_future(lock.acquire())
        try:
            yield
        finally:
            lock.release()

    def _changed(self, site: Site, arm: Arm, reason: str, why: str) -> None:
        logger.info(
            "%(site)s is read by the model %(model)s from now on (%(reason)s: %(why)s)",
            {"site": site.key, "model": arm.reader.model_hash, "reason": reason, "why": why},
            extra=self._extra,
        )
        self._crawler.signals.send_catch_log(
            signals.reader_changed, site=site.key, model=arm.reader.model_hash, reason=reason
        )

    def tick(self) -> None:
        """Take what the trainer has done, and give it something to do; called now and then."""
        if self._trainer is None:
            return
        answer = self._trainer.poll()
        if answer is not None:
            site = self._sites[answer.key]
            if not answer.error:
                site.lineup.learnt(self._era)
            deferred_from_coro(self._trained(site, answer, self._era))
        due = [site for site in self._sites.values() if site.wants_training]
        if self._trainer.busy or not due:
            return
        site = max(due, key=lambda site: site.fresh)
        assert site.dataset is not None
        lineup = site.lineup
        request = retraining.Request(
            dataset=str(site.dataset.path),
            base=base_of(lineup.champion.reader, site.lengths),
            out=str(_own(site)),
            restart=lineup.start_afresh,
        )
        site.fresh, self._era = 0, lineup.era
        logger.info("Training on %s", site.key, extra=self._extra)
        self._trainer.ask(site.key, request)

    async def _trained(self, site: Site, answer: Answer, era: int) -> None:
        """Begin a contest with what has come of a request that was made in an era."""
        if answer.error:
            logger.warning(
                "Training on %(site)s came to nothing: %(error)s",
                {"site": site.key, "error": answer.error},
                extra=self._extra,
            )
            return
        self._counters.add(site.key, stats.RETRAINED)
        site.trained_on = answer.labels
        logger.info("Trained on %s: %s", site.key, answer.said, extra=self._extra)
        if answer.version is None:
            return
        async with self._alone(site):
            try:
                arm = await run_in_thread(open_challenger, _own(site), answer.version, site.rule)
            except (BundleError, ValueError) as e:
                logger.error("%s cannot be read by a new model: %s", site.key, e, extra=self._extra)
                return
            if era != site.lineup.era:  # it was made of what is not wanted any more
                await self._delete(site, answer.version)
                return
            if site.dataset is None:
                return
            replaced = site.lineup.challenge(arm)
            if replaced is not None and replaced.version is not None:
                await self._delete(site, replaced.version)

    @property
    def _extra(self) -> dict[str, object]:
        return {"spider": self._crawler.spider}


def _own(site: Site) -> Path:
    """Where the site's own bundle is."""
    assert site.bundle is not None
    return site.bundle


def look(site: Site, dataset: SiteDataset) -> Found:
    """Complete a quarantine that was cut short, and see where training has come to."""
    taken_back = dataset.settle()
    if site.retrain_after is None:
        return Found(taken_back, 0, 0, set(), None)
    out, challenger = dataset.path / OWN, None
    with explained(out):
        newest = max(versions.stored(out), default="")
        unjudged = versions.challengers(out)[-1:]
    for version in unjudged:
        try:
            challenger = open_challenger(out, version, site.rule)
        except (BundleError, ValueError) as e:
            logger.warning("The challenger %s of %s is left out: %s", version, site.key, e)
    attempts = list(attempts_in_order(dataset.path))
    words = weigh(attempts).valid
    fresh = sum(attempt.time > _time(newest) for attempt in words.values())
    rejected = [attempt.time for attempt in attempts if attempt.verdict == CANARY_REJECTED]
    unproven: list[str] = []
    trusted = None
    if rejected and site.rule.canary_rate and site.lineup.champion.version is not None:
        for version in (site.lineup.champion.version, *versions.previous(out)):
            if _time(version) <= max(rejected):
                with suppress(BundleError, ValueError):
                    trusted = open_challenger(out, version, site.rule)
                break
            unproven.insert(0, version)
    lengths = {len(text) for _, text in words}
    learnt = len(words) - fresh
    return Found(taken_back, fresh, learnt, lengths, challenger, tuple(unproven), trusted)


def _time(version: str) -> str:
    """When a version was made, as attempts say it."""
    v = version
    return v and f"{v[:4]}-{v[4:6]}-{v[6:11]}:{v[11:13]}:{v[13:15]}"
