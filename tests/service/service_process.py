"""A service whose readers do as a test says: ``service_process.py '{"config": {}, "pool": {}}'``.

It prints its port. Readers that are held print "reading" for each request, and read it when a line
comes.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

from scrapy_captcha.recognizer import Recognition
from scrapy_captcha.service import ServiceConfig
from scrapy_captcha.service.api import assemble
from scrapy_captcha.service.metrics import Metrics
from scrapy_captcha.service.pool import Pool, Reading, Refusal
from scrapy_captcha.service.server import Server, listen
from scrapy_captcha.service.state import Service


class StandIn:
    """Stands for :class:`scrapy_captcha.service.pool.Pool`.

    :param refuses: what it says before an image is sent
    :param outcomes: what becomes of each image: a text, or [status, message, retry_after]
    :param held: whether it reads only when it is told to
    :param broken: whether reading raises an error
    """

    def __init__(
        self,
        refuses: list[Any] | None = None,
        outcomes: list[Any] | None = None,
        *,
        ready: bool = True,
        held: bool = False,
        broken: bool = False,
    ) -> None:
        self.ready = ready
        self._refuses = refuses
        self._outcomes = outcomes
        self._held, self._broken = held, broken

    async def start(self) -> None:
        self._released = asyncio.Semaphore(0)
        if self._held:
            asyncio.get_running_loop().add_reader(sys.stdin, self._line)

    async def stop(self) -> None:
        print("stopped", flush=True)

    def describe(self) -> list[Any]:
        return []

    def refuses(self, images: int = 1) -> Refusal | None:
        return None if self._refuses is None else Refusal(*self._refuses)

    async def read(
        self,
        images: list[bytes],
        *,
        model: str,
        charset: str | None,
        length: int | None,
        deadline: float,
    ) -> list[Reading | Refusal]:
        if self._broken:
            raise RuntimeError("the stand-in is broken")
        if self._held:
            print("reading", flush=True)
            await self._released.acquire()
        outcomes = self._outcomes or ["1a8m"] * len(images)
        return [
            Reading(_recognition(outcome), model) if isinstance(outcome, str) else Refusal(*outcome)
            for outcome in outcomes
        ]

    def _line(self) -> None:
        if sys.stdin.readline():
            self._released.release()


def _recognition(text: str) -> Recognition:
    return Recognition(text, 0.98, tuple((character, 0.995) for character in text), "5eed")


def main() -> None:
    given = json.loads(sys.argv[1])
    config = ServiceConfig(**given["config"])
    metrics = Metrics()
    pool: Any = Pool(config, metrics)
    if given["pool"] is not None:
        pool = StandIn(**given["pool"])
    guard = assemble(Service(config, metrics, pool))
    sockets = listen("127.0.0.1", 0)
    logging.basicConfig(level=logging.INFO)
    print(sockets[0].getsockname()[1], flush=True)
    Server(guard, config).run(sockets)


if __name__ == "__main__":
    main()
