"""Names of the counters, and the one place that counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scrapy.statscollectors import StatsCollector

DETECTED = "detected"
SUBMITTED = "submitted"
ACCEPTED = "accepted"
REJECTED = "rejected"
SKIPPED = "skipped"
UNSOLVED = "unsolved"
REPLAYED = "replayed"
STORED = "stored"
BREAKER_OPEN = "breaker_open"
SECONDS = "seconds"
RETRAINED = "retrained"
PROMOTED = "promoted"
ROLLED_BACK = "rolled_back"
CANARY = "canary"
QUARANTINED = "quarantined"
CONFLICT = "conflict"
ACCEPTANCE = "acceptance"


def failed(reason: str) -> str:
    """Name of the counter of attempts that failed for a reason."""
    return f"failed/{reason}"


class Counters:
    """Counts each event twice: as ``captcha/...`` and as ``captcha/site/<host>/...``."""

    def __init__(self, stats: StatsCollector) -> None:
        self._stats = stats

    def add(self, site: str, name: str, count: float = 1) -> None:
        """Count an event of a site, or add up its seconds."""
        for key in (f"captcha/{name}", f"captcha/site/{site}/{name}"):
            self._stats.inc_value(key, count)  # type: ignore[arg-type]  # seconds are a float

    def show_acceptance(self, site: str | None, share: float) -> None:
        """Set the share of a site's last answers that was accepted, or of those of all sites."""
        key = f"captcha/{ACCEPTANCE}" if site is None else f"captcha/site/{site}/{ACCEPTANCE}"
        self._stats.set_value(key, round(share, 3))
