"""What the parts of one running service share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scrapy_captcha.service.config import ServiceConfig
    from scrapy_captcha.service.metrics import Metrics
    from scrapy_captcha.service.pool import Pool


@dataclass
class Service:
    """A service that runs.

    :param draining: whether it was told to stop; it still answers, and says so
    """

    config: ServiceConfig
    metrics: Metrics
    pool: Pool
    draining: bool = False

    @property
    def why_not_ready(self) -> str | None:
        """For ``/ready``: ``None`` when requests are welcome."""
        if self.draining:
            return "the service is stopping"
        return None if self.pool.ready else "the readers are loading their models"
