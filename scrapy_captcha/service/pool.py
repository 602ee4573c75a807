"""The reader processes, and the one queue that they take from.

What a reader gets is whatever waits when it becomes idle, so batches form by themselves under
load, and an image that finds an idle reader waits for nothing. Admission is refused before the
queue grows longer than can be read in time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from scrapy_captcha.bundle import MAX_CHARSET, MAX_HEADS
from scrapy_captcha.image import MAX_BYTES
from scrapy_captcha.service.messages import FAILED, READ, UNREADABLE, MessageError, ModelState, Task
from scrapy_captcha.service.process import ReaderProcess, command
from scrapy_captcha.service.tickets import (
    Entry,
    Line,
    Pace,
    Reading,
    Refusal,
    Ticket,
    whole_seconds,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scrapy_captcha.service.config import ServiceConfig
    from scrapy_captcha.service.messages import Answer
    from scrapy_captcha.service.metrics import Metrics

__all__ = ["Pool", "Reading", "Refusal"]

logger = logging.getLogger(__name__)

#: Seconds after which a reader looks for a newer version of its models.
LOOK = 1.0
#: Share of the deadline that may be spent waiting.
PATIENCE = 0.5
#: Seconds that a reader has to end by itself.
FAREWELL = 2.0
#: Seconds before a process that ended without a model is replaced; doubled each time, up to 30.
PAUSE, LONGEST_PAUSE = 0.5, 30.0

_LATE = Refusal(503, "the image could not be read before its deadline", 1, "deadline")
_LOST = Refusal(503, "the image could not be read: its reader ended, twice", 1, "lost")
_NO_READER = Refusal(503, "no reader is up", 1, "starting")
_STOPPING = Refusal(503, "the service is stopping", 1, "stopping")


class Pool:
    """Reads images in other processes.

    :param config: how many processes, and how much may wait for how long
    :param metrics: where to count
    """

    def __init__(self, config: ServiceConfig, metrics: Metrics) -> None:
        self._config = config
        self._metrics = metrics
        self._names = tuple(config.models)
        self._places = {name: place for place, name in enumerate(self._names)}
        self._line = Line()
        self._pace = Pace()
        self._open: dict[Ticket, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._scheduled = False
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._readers: list[ReaderProcess] = []
        self._usable: set[ReaderProcess] = set()
        self._idle: list[ReaderProcess] = []
        self._being_read = 0
        self._complete = False
        self._said: dict[str, ModelState] = {}
        self._loaded: dict[str, ModelState] = {}
        metrics.watch(
            lambda: self._line.waiting, lambda: self._being_read, lambda: len(self._usable)
        )
        self._read = metrics.images.labels("read")
        self._unreadable = metrics.images.labels("unreadable")
        self._failed = metrics.images.labels("failed")

    @property
    def ready(self) -> bool:
        """Whether every reader has once been up with the default model, and one is now."""
        return self._complete and not self._stopping.is_set() and bool(self._usable)

    @property
    def pids(self) -> list[int]:
        """The numbers of the reader processes."""
        return [reader.pid for reader in self._readers]

    def describe(self) -> list[dict[str, Any]]:
        """Name, charset, lengths, case and hash of each model that readers have, the default first.

        Of a version that does not load nothing is said: the one before reads.
        """
        described = []
        for place, name in enumerate(self._names):
            has = [reader.models[place] for reader in self._readers if reader.models]
            last = self._loaded.get(name)
            state = last if last in has else next((state for state in has if state.hash), None)
            if state is not None and state.described is not None:
                fields = {"name": name, **state.described._asdict(), "model_hash": state.hash}
                described.append(fields)
        return described

    async def start(self) -> None:
        """Start the readers; they load their models by themselves."""
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._complete = False
        keepers = [self._keep() for _ in range(self._config.readers)]
        self._tasks = [asyncio.create_task(task) for task in (*keepers, self._watch())]
        for task in self._tasks:
            task.add_done_callback(_log_failure)

    async def stop(self) -> None:
        """Refuse whatever still waits, and end the readers."""
        self._stopping.set()
        for ticket in self._open:
            self._give_up(ticket, _STOPPING)
        for reader in self._readers:
            reader.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def refuses(self, images: int = 1) -> Refusal | None:
        """Why so many images would not be admitted now; ``None`` if they would be."""
        if self._stopping.is_set():
            return _STOPPING
        if not self._usable:
            return _NO_READER
        waiting = self._line.waiting
        if not waiting:  # else a wrong idea of the pace would stay, a large request stay outside
            return None
        wait = self._pace.wait(waiting + self._being_read, len(self._usable))
        full = waiting + images > self._config.max_waiting
        if not full and wait <= self._config.deadline * PATIENCE:
            return None
        reason = "full" if full else "slow"
        return Refusal(429, f"{waiting} images wait; try again later", whole_seconds(wait), reason)

    async def read(
        self,
        images: Sequence[bytes],
        *,
        model: str,
        charset: str | None,
        length: int | None,
        deadline: float,
    ) -> list[Reading | Refusal]:
        """Read images, all admitted together or none of them.

        :param model: one of the configured names
        :param charset: as for :meth:`scrapy_captcha.recognizer.Recognizer.read`
        :param length: likewise
        :param deadline: in the loop's time; what has not been read by then is refused
        :return: what came of each, in their order
        """
        refusal = self._senseless(model, charset, length) or self.refuses(len(images))
        if refusal is not None:
            self._count(refusal, len(images))
            return [refusal] * len(images)
        outcomes = [_too_large(image) for image in images]
        ticket = Ticket(self._loop.create_future(), outcomes, deadline)
        place = self._places[model]
        entries = [
            Entry(ticket, index, Task(place, charset, length, image))
            for index, image in enumerate(images)
            if outcomes[index] is None
        ]
        if not entries:
            return [outcome for outcome in outcomes if outcome is not None]
        self._line.add(entries)
        self._open[ticket] = None
        if self._timer is None or deadline < self._timer.when():
            self._expire()
        self._schedule()
        try:
            return await ticket.future
        finally:
            del self._open[ticket]
            self._line.forget(ticket)

    def loaded(self, reader: ReaderProcess) -> None:
        """A reader has loaded models."""
        if len(reader.models) != len(self._names):
            raise MessageError(f"expected {len(self._names)} models, got {len(reader.models)}")
        for name, state in zip(self._names, reader.models, strict=True):
            self._announce(name, state)
        if reader.usable:
            self._usable.add(reader)
            self._complete = self._complete or len(self._usable) == self._config.readers
        if reader.entries is None:
            self._freed(reader)

    def answered(
        self, reader: ReaderProcess, entries: list[Entry], answers: list[Answer], seconds: float
    ) -> None:
        """A reader has done what it got; it gets more before anything else."""
        self._being_read -= len(entries)
        self._freed(reader)
        if not entries:
            return
        self._pace.saw(len(entries), seconds)
        self._metrics.batch_images.observe(len(entries))
        counts: Counter[int] = Counter()
        for entry, (status, recognition, message) in zip(entries, answers, strict=True):
            counts[status] += 1
            entry.ticket.settle(
                entry.index,
                Reading(recognition, self._names[entry.task.model])
                if recognition is not None
                else _refusal(status, message),
            )
        self._read.inc(counts[READ])
        self._unreadable.inc(counts[UNREADABLE])
        self._failed.inc(counts[FAILED])

    def _freed(self, reader: ReaderProcess) -> None:
        if reader.due:
            reader.look()
        elif reader in self._usable:
            self._idle.append(reader)
            self._dispatch()

    def _schedule(self) -> None:
        """Hand out what waits once all requests that came together have been seen."""
        if self._idle and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._scheduled = False
        if self._timer is not None and self._loop.time() >= self._timer.when():
            self._expire()
        while self._idle and self._line.waiting:
            share = -(-self._line.waiting // len(self._idle))
            entries = self._line.take(min(share, self._config.batch))
            self._being_read += len(entries)
            self._idle.pop().send(entries)

    def _expire(self) -> None:
        """Refuse what is late, and come again when the next ticket will be."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._loop.time()
        for ticket in self._open:
            if ticket.deadline <= now:
                self._give_up(ticket, _LATE)
        deadlines = [ticket.deadline for ticket in self._open if not ticket.over]
        if deadlines:
            self._timer = self._loop.call_at(min(deadlines), self._expire)

    def _give_up(self, ticket: Ticket, refusal: Refusal) -> None:
        if not ticket.over:
            self._count(refusal, ticket.settle_rest(refusal))
            self._line.forget(ticket)

    def _count(self, refusal: Refusal, images: int) -> None:
        self._metrics.refused.labels(refusal.reason).inc(images)

    def _senseless(self, model: str, charset: str | None, length: int | None) -> Refusal | None:
        """What no reader need be asked."""
        if model not in self._places:
            return Refusal(422, f"no model {model[:100]!r}: expected {' or '.join(self._names)}")
        if charset is not None and len(charset) > MAX_CHARSET:
            return Refusal(422, f"expected a charset of at most {MAX_CHARSET} characters")
        if length is not None and not 1 <= length <= MAX_HEADS:
            return Refusal(422, f"expected a length from 1 to {MAX_HEADS}")
        return None

    def _announce(self, name: str, state: ModelState) -> None:
        """Log what a model is now, once for all readers."""
        if self._said.get(name) == state:
            return
        self._said[name] = state
        told = {"name": name, "hash": state.hash, "error": state.error}
        if not state.error:
            logger.info("The model %(name)s is %(hash)s", told)
        elif state.hash is None:
            logger.error("The model %(name)s does not load: %(error)s", told)
        else:
            logger.error(
                "The model %(name)s stays %(hash)s, for its new version does not load: %(error)s",
                told,
            )
        if state.hash is not None:
            self._loaded[name] = state
            self._metrics.show_model(name, state.hash)

    def _command(self) -> list[str]:
        """What runs a reader; a damaged new version costs it no more than it costs the others."""
        before = [
            self._loaded[name].version if name in self._loaded else "" for name in self._names
        ]
        return command(2 * self._config.stuck, list(self._config.models.values()), before)

    async def _keep(self) -> None:
        """Run a reader, and another one whenever it ends."""
        failures = 0
        while not self._stopping.is_set():
            reader = ReaderProcess(self._command(), self)
            self._readers.append(reader)
            try:
                await reader.start()
                if self._stopping.is_set():
                    reader.close()
                await reader.lost
            except OSError as e:
                logger.error("A reader cannot be started: %(error)s", {"error": e})
            finally:
                self._lose(reader)
                code = await reader.ended(FAREWELL if self._stopping.is_set() else 0)
            if self._stopping.is_set():
                return
            failures = 0 if reader.models else failures + 1
            pause = min(PAUSE * 2 ** (failures - 1), LONGEST_PAUSE) if failures else 0.0
            logger.error(
                "The reader %(pid)d ended with code %(code)s; the next one starts in %(pause)g s",
                {"pid": reader.pid, "code": code, "pause": pause},
            )
            self._metrics.reader_restarts.inc()
            await self._rest(pause)

    def _lose(self, reader: ReaderProcess) -> None:
        """Let others read what a reader had; what costs a second one is refused."""
        self._readers.remove(reader)
        self._usable.discard(reader)
        if reader in self._idle:
            self._idle.remove(reader)
        entries, reader.entries = reader.entries or [], None
        self._being_read -= len(entries)
        wanted = [entry for entry in entries if not entry.ticket.over]
        for entry in wanted:
            if entry.tried:
                self._count(_LOST, 1)
                entry.ticket.settle(entry.index, _LOST)
        self._line.try_again([entry for entry in wanted if not entry.tried])
        self._dispatch()

    async def _watch(self) -> None:
        """Kill readers that hang, and have one after the other look for newer models."""
        pause = max(min(LOOK / self._config.readers, self._config.stuck / 2), 0.01)
        while not self._stopping.is_set():
            await self._rest(pause)
            for reader in self._readers:
                if reader.overdue(self._config.stuck):
                    logger.error("Killing the reader %(pid)d: it hangs", {"pid": reader.pid})
                    reader.kill()
            waiting = [reader for reader in self._readers if reader.models and not reader.due]
            longest = min(waiting, key=lambda reader: reader.looked, default=None)
            if longest is not None and time.monotonic() - longest.looked >= LOOK:
                longest.due = True
                if longest in self._idle:
                    self._idle.remove(longest)
                if longest.entries is None:
                    self._freed(longest)

    async def _rest(self, seconds: float) -> None:
        """Wait, but no longer than the pool is to run."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)


def _log_failure(task: asyncio.Task[None]) -> None:
    """Without it a mistake in here would show when the pool stops, if ever."""
    if not task.cancelled() and task.exception() is not None:
        logger.error("A task of the pool failed", exc_info=task.exception())


def _refusal(status: int, message: str) -> Refusal:
    """What a reader could not read."""
    if status == UNREADABLE:
        return Refusal(status, message)
    return Refusal(status, message, 1, "failed")


def _too_large(image: bytes) -> Refusal | None:
    """Refuse what no reader would decode before it is copied there."""
    if len(image) <= MAX_BYTES:
        return None
    return Refusal(
        422, f"not an image: expected at most {MAX_BYTES} bytes of one, got {len(image)}"
    )
