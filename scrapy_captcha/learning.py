"""What becomes of a judged answer: it is stored and counted, and the site's reader learns from it.

The decisions are in :mod:`scrapy_captcha.site` and what it is made of; here they meet the disk, the
trainer, the crawl's stats and its log.
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scrapy.utils.asyncio import run_in_thread

from scrapy_captcha import signals, stats
from scrapy_captcha.attempts import (
    ACCEPTED,
    CANARY_ACCEPTED,
    CANARY_REJECTED,
    IMPROBABLE,
    REJECTED,
    explained,
    now,
)
from scrapy_captcha.dataset import Dataset
from scrapy_captcha.errors import BundleError, DatasetError
from scrapy_captcha.models import Readers
from scrapy_captcha.retraining import Trainer, check
from scrapy_captcha.site import Site
from scrapy_captcha.succession import Succession, look
from scrapy_captcha.worth import JUDGED_LATELY

if TYPE_CHECKING:
    from scrapy.crawler import Crawler

    from scrapy_captcha.config import Settings, SiteRule
    from scrapy_captcha.lineup import Arm
    from scrapy_captcha.recognizer import Recognition

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reading:
    """An image, what was read in it, and by whom.

    :param images: how many were fetched for it, those that were passed over included
    """

    image: bytes
    recognition: Recognition
    arm: Arm
    images: int = 1


class Learning:
    """The sites of a crawl, and all that changes how they are read."""

    def __init__(self, crawler: Crawler, settings: Settings, counters: stats.Counters) -> None:
        self._crawler = crawler
        self._counters = counters
        self._dataset = Dataset(settings.dataset) if settings.dataset else None
        trainer = None
        if settings.retrain_after is not None and self._dataset is not None:
            check()
            trainer = Trainer(self._dataset.root)
        self._lately: deque[bool] = deque(maxlen=JUDGED_LATELY)
        self._readers = readers = Readers(settings)
        self.sites = {
            key: self._site(rule, readers, settings) for key, rule in settings.sites.items()
        }
        self._succession = Succession(crawler, counters, self.sites, trainer)

    def _site(self, rule: SiteRule, readers: Readers, settings: Settings) -> Site:
        dataset = None
        if self._dataset is not None:
            dataset = self._dataset.site(rule.site, folder=rule.dataset)
        # a rule's model would outrank whatever comes of it
        retrain_after = settings.retrain_after if rule.model is None else None
        with explained(settings.dataset or Path()):
            arm = readers.arm(rule)
        return Site(rule, arm, dataset, retrain_after)

    async def opened(self) -> None:
        """Go on from what earlier crawls have stored."""
        for site in self.sites.values():
            if site.dataset is None:
                continue
            try:
                with explained(site.dataset.path):
                    if not site.dataset.path.is_dir():
                        continue
                found = await run_in_thread(look, site, site.dataset)
            except DatasetError as e:
                self.stop_storing(site, e)
                continue
            self._say_taken_back(site, found.taken_back, "a crawl that was killed had seen to it")
            site.fresh, site.lengths = found.fresh, found.lengths
            site.trained_on = found.trained_on
            if found.challenger is not None:
                site.lineup.challenge(found.challenger)
            if found.unproven:
                with suppress(BundleError, ValueError):  # then there is nothing to go back to
                    trusted = found.trusted or self._readers.default(site.rule)
                    site.lineup.doubt(list(found.unproven), trusted)
            if site.fresh:
                self._succession.expect(site)

    async def closed(self) -> None:
        """End the trainer, and close the attempts files."""
        await self._succession.closed()
        self._readers.close()
        if self._dataset is not None:
            self._dataset.close()

    def tick(self) -> None:
        """Look after the trainer; called now and then."""
        self._succession.tick()

    async def judged(self, site: Site, reading: Reading, accepted: bool) -> None:
        """Store and count an answer, and do what follows from it."""
        self._counters.add(site.key, stats.ACCEPTED if accepted else stats.REJECTED)
        confidence = reading.recognition.confidence
        site.judged(reading.arm, accepted, confidence, reading.images)
        self._lately.append(accepted)
        self._counters.show_acceptance(site.key, site.acceptance)
        self._counters.show_acceptance(None, sum(self._lately) / len(self._lately))
        time = now()
        await self._store(site, reading, accepted)
        if reading.arm is site.lineup.champion:
            warning = site.drift.add(accepted)
            if warning is not None:
                logger.warning("%s: %s", site.key, warning, extra=self._extra)
        if reading.arm.calibrated:
            since = site.suspicion.add(confidence, accepted, time)
            if since is not None:
                await self._suspect(site, reading, since)
        outcome = site.lineup.judged(reading.arm, accepted)
        if outcome is not None:
            await self._succession.act(site, outcome)

    async def canary_judged(
        self, site: Site, reading: Reading, wrong: str, accepted: bool | None
    ) -> None:
        """Take the site's verdict on an answer that was known to be wrong; ``None`` for none."""
        site.canaries.returned(accepted)
        if accepted is None:
            return
        self._counters.add(site.key, stats.CANARY)
        verdict = CANARY_ACCEPTED if accepted else CANARY_REJECTED
        if not accepted:
            site.lineup.prove()  # what is promoted while the line is written is not proven by it
        was = site.dataset is not None and site.dataset.quarantined
        taken_back = await self._testify(site, reading, wrong, verdict)
        if not accepted:
            if was:
                logger.info("%s rejects wrong answers again", site.key, extra=self._extra)
            return
        why = f"it accepted {wrong!r}, which was known to be wrong"
        self._say_taken_back(site, taken_back, why, always=not was)
        await self._succession.distrust(site)

    async def _store(self, site: Site, reading: Reading, accepted: bool) -> None:
        """Store a judged answer; when that fails, say so loudly, keep nothing more, crawl on."""
        if site.dataset is None:
            return
        recognition = reading.recognition
        try:
            result = await run_in_thread(
                site.dataset.store,
                reading.image,
                recognition.text,
                recognition.confidence,
                reading.recognition.model_hash,
                ACCEPTED if accepted else REJECTED,
            )
        except DatasetError as e:
            self.stop_storing(site, e)
            return
        if not accepted:
            return
        self._counters.add(site.key, stats.STORED if result.counts else stats.QUARANTINED)
        if result.conflict:
            self._counters.add(site.key, stats.CONFLICT)
            logger.warning(
                "%(site)s accepted %(text)r for an image that it, or somebody by hand, gave "
                "another text: nothing is learnt from either until one is deleted (%(path)s)",
                {"site": site.key, "text": recognition.text, "path": result.path},
                extra=self._extra,
            )
        if result.new and result.counts:
            site.fresh += 1
            site.lengths.add(len(recognition.text))
            self._succession.expect(site)

    async def _testify(
        self, site: Site, reading: Reading, guess: str, verdict: str, since: str | None = None
    ) -> int:
        if site.dataset is None:
            return 0
        try:
            return await run_in_thread(
                site.dataset.testify,
                reading.image,
                guess,
                reading.recognition.confidence,
                reading.recognition.model_hash,
                verdict,
                since=since,
            )
        except DatasetError as e:
            self.stop_storing(site, e)
            return 0

    async def _suspect(self, site: Site, reading: Reading, since: str) -> None:
        text = reading.recognition.text
        taken_back = await self._testify(site, reading, text, IMPROBABLE, since)
        why = "it accepts more than its reader can have read right"
        self._say_taken_back(site, taken_back, why, always=True)
        site.canaries.hasten()
        await self._succession.distrust(site)

    def stop_storing(self, site: Site, e: DatasetError) -> None:
        """The site's dataset cannot be read or written: keep nothing more of it, crawl on."""
        site.dataset = None
        site.lineup.drop(afresh=False)  # whoever won could not be promoted on that disk
        self._counters.add(site.key, stats.failed("storage"))
        logger.error(
            "Nothing more of %(site)s will be stored in this crawl: %(e)s",
            {"site": site.key, "e": e},
            extra=self._extra,
        )

    def _say_taken_back(self, site: Site, images: int, why: str, *, always: bool = False) -> None:
        if images:
            self._counters.add(site.key, stats.QUARANTINED, images)
            site.fresh = max(0, site.fresh - images)
        if not images and not always:
            return
        logger.warning(
            "The word of %(site)s does not count until it rejects a wrong answer: %(why)s. "
            "%(images)d confirmed images were put into quarantine",
            {"site": site.key, "why": why, "images": images},
            extra=self._extra,
        )
        self._crawler.signals.send_catch_log(signals.site_quarantined, site=site.key, images=images)

    @property
    def _extra(self) -> dict[str, object]:
        return {"spider": self._crawler.spider}
