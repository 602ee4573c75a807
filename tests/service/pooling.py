"""Pools with real reader processes, and readers that do as their images say."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import psutil

from scrapy_captcha.service import pool as pool_module
from scrapy_captcha.service import process
from scrapy_captcha.service.config import ServiceConfig
from scrapy_captcha.service.metrics import Metrics
from scrapy_captcha.service.pool import Pool, Reading, Refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    import pytest

#: Longer than anything takes; a test that waits so long has failed.
PATIENCE = 120.0
FRAGILE = Path(__file__).with_name("fragile_reader.py")

Outcome = Reading | Refusal


class Trial:
    """A pool that runs, and what its metrics say."""

    def __init__(self, **config: Any) -> None:
        self.config = ServiceConfig(**config)
        self.metrics = Metrics()
        self.pool = Pool(self.config, self.metrics)

    async def read(
        self,
        *images: bytes,
        model: str = "alnum4",
        charset: str | None = None,
        length: int | None = None,
        within: float = PATIENCE,
    ) -> list[Outcome]:
        deadline = asyncio.get_running_loop().time() + within
        return await self.pool.read(
            images, model=model, charset=charset, length=length, deadline=deadline
        )

    def asked(self, *images: bytes, **options: Any) -> asyncio.Task[list[Outcome]]:
        """A request that is under way."""
        return asyncio.create_task(self.read(*images, **options))

    def count(self, sample: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"captcha_{sample}", labels) or 0.0

    async def held(self) -> None:
        """Wait until the readers have what they can take."""
        await until(lambda: self.count("being_read_images") > 0)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all readers."""
        for pid in self.pool.pids:
            os.kill(pid, number)

    @asynccontextmanager
    async def stopped_readers(self) -> AsyncIterator[None]:
        """Readers that do nothing inside."""
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)


@asynccontextmanager
async def running(
    *, ready: bool = True, look: float = 3600.0, **config: Any
) -> AsyncIterator[Trial]:
    """A pool, with one reader and time enough if nothing else is said.

    :param look: seconds after which readers look for newer models
    """
    trial = Trial(**{"readers": 1, "deadline": PATIENCE, **config})
    with patch.object(pool_module, "LOOK", look):
        await trial.pool.start()
        try:
            if ready:
                await until(lambda: trial.pool.ready)
            yield trial
        finally:
            await trial.pool.stop()


async def until(holds: Callable[[], object]) -> None:
    """Wait for something that is sure to come."""
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110 - of another process, mostly
            await asyncio.sleep(0.005)


def use_fragile_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let readers do as their images say, see ``fragile_reader.py``."""

    def command(*given: Any) -> list[str]:
        python, path, _, _, *words = process.command(*given)
        return [python, path, str(FRAGILE), *words]

    monkeypatch.setattr(pool_module, "command", command)


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for yet counts."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def texts(outcomes: Iterable[Outcome]) -> Iterator[str | int]:
    """What was read, or the status of what was not."""
    for outcome in outcomes:
        yield outcome.recognition.text if isinstance(outcome, Reading) else outcome.status
