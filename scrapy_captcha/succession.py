"""Who reads a site next: the trainer's versions, their contests, and the ways back, on the disk."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scrapy.utils.asyncio import run_in_thread
from scrapy.utils.defer import deferred_from_coro

from scrapy_captcha import retraining, signals, stats, versions
from scrapy_captcha.attempts import attempts_in_order
from scrapy_captcha.bundle import is_bundle
from scrapy_captcha.contest import Outcome
from scrapy_captcha.errors import BundleError
from scrapy_captcha.models import OWN, base_of, open_challenger
from scrapy_captcha.quarantine import weigh

if TYPE_CHECKING:
    from collections.abc import Mapping
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
    :param lengths: how many characters the confirmed texts have
    :param challenger: a version that was not judged to the end
    """

    taken_back: int
    fresh: int
    lengths: set[int]
    challenger: Arm | None


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

    def expect(self, site: Site) -> None:
        """There is something to learn from: the trainer will be wanted before long."""
        if self._trainer is not None and site.retrain_after is not None:
            self._trainer.start(base_of(site.lineup.champion.reader, site.lengths))

    async def closed(self) -> None:
        """End the trainer."""
        if self._trainer is not None:
            await run_in_thread(self._trainer.close)

    async def act(self, site: Site, outcome: Outcome) -> None:
        """Do what a contest, or the watch over a promotion, has come to."""
        lineup = site.lineup
        champion, challenger = lineup.scores
        if outcome is Outcome.TAKEN_BACK:
            await self._take_back(site, "it does worse than the one before")
        elif outcome is Outcome.PROMOTED:
            await self._promote(site, f"{challenger} accepted against {champion}")
        else:
            gone = lineup.drop(afresh=outcome is Outcome.LOST)
            await self._discard(site, gone, f"{challenger} accepted against {champion}")

    async def _promote(self, site: Site, why: str) -> None:
        arm = site.lineup.promote()
        assert arm.version is not None
        try:
            await run_in_thread(versions.promote, _own(site), arm.version)
        except BundleError as e:
            logger.error("%s", e, extra=self._extra)
            site.lineup.take_back()
            return
        self._counters.add(site.key, stats.PROMOTED)
        self._changed(site, arm, "promoted", why)

    async def _take_back(self, site: Site, why: str) -> None:
        """Go back to the champion before this one, on the disk too."""
        challenger = site.lineup.drop(afresh=True)
        gone = site.lineup.take_back()
        if gone is not None:
            try:
                if await run_in_thread(versions.current, _own(site)) == gone.version:
                    await run_in_thread(versions.roll_back, _own(site), to_none=True)
            except BundleError as e:
                logger.error("%s", e, extra=self._extra)
            self._changed(site, site.lineup.champion, "rolled_back", why)
        for arm in (gone, challenger):
            await self._discard(site, arm, why)

    async def _discard(self, site: Site, arm: Arm | None, why: str) -> None:
        """Delete a version that lost, or never came to be judged."""
        if arm is None or arm.version is None:
            return
        self._counters.add(site.key, stats.ROLLED_BACK)
        logger.info("%s: %s is dropped: %s", site.key, arm.version, why, extra=self._extra)
        await self._delete(site, arm.version)

    async def _delete(self, site: Site, version: str) -> None:
        try:
            await run_in_thread(versions.discard, _own(site), version)
        except BundleError as e:
            logger.warning("%s", e, extra=self._extra)

    async def distrust(self, site: Site) -> None:
        """What was learnt since the site's word was last known to count may be wrong."""
        why = "the site's word does not count"
        if site.lineup.unproven:
            await self._take_back(site, why)
        else:
            await self._discard(site, site.lineup.drop(afresh=True), why)

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
            deferred_from_coro(self._trained(answer))
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
        site.fresh, lineup.start_afresh = 0, False
        logger.info("Training on %s", site.key, extra=self._extra)
        self._trainer.ask(site.key, request)

    async def _trained(self, answer: Answer) -> None:
        site = self._sites[answer.key]
        if answer.error:
            logger.warning(
                "Training on %(site)s came to nothing: %(error)s",
                {"site": site.key, "error": answer.error},
                extra=self._extra,
            )
            return
        self._counters.add(site.key, stats.RETRAINED)
        logger.info("Trained on %s: %s", site.key, answer.said, extra=self._extra)
        if answer.version is None or site.dataset is None:
            return
        if site.lineup.start_afresh:  # it was made of what is not wanted any more
            await self._delete(site, answer.version)
            return
        try:
            arm = await run_in_thread(open_challenger, _own(site), answer.version, site.rule)
        except (BundleError, ValueError) as e:
            logger.error("%s cannot be read by a new model: %s", site.key, e, extra=self._extra)
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
        return Found(taken_back, 0, set(), None)
    out, newest, challenger = dataset.path / OWN, "", None
    listed = [versions.current(out) or "", *versions.previous(out)]
    if out.is_dir():
        found = [path.name for path in out.iterdir() if is_bundle(path)]
        newest = max(found, default="")
        if newest > listed[0] and newest not in listed:
            try:
                challenger = open_challenger(out, newest, site.rule)
            except (BundleError, ValueError) as e:
                logger.warning("The challenger %s of %s is left out: %s", newest, site.key, e)
    since = newest and f"{newest[:4]}-{newest[4:6]}-{newest[6:11]}:{newest[11:13]}:{newest[13:15]}"
    words = weigh(attempts_in_order(dataset.path)).valid
    fresh = sum(attempt.time > since for attempt in words.values())
    return Found(taken_back, fresh, {len(text) for _, text in words}, challenger)
