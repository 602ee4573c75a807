"""The front's side of one reader process."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
import time
from itertools import chain
from typing import TYPE_CHECKING, Protocol, cast

from scrapy_captcha.service.messages import (
    MAX_ANSWERS,
    Frames,
    MessageError,
    Models,
    decode_reply,
    encode_batch,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scrapy_captcha.service.messages import Answer, ModelState
    from scrapy_captcha.service.tickets import Entry

logger = logging.getLogger(__name__)

#: Seconds that a process has to load its models; on a busy machine that takes long.
LOADING = 180.0
#: Seconds between looks at whether a process has ended.
_POLL = 0.01
_LOOK = encode_batch([])
#: One image at a time keeps one core busy; the libraries' own threads would only wait.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class Owner(Protocol):
    """Whoever is told what a reader says."""

    def loaded(self, reader: ReaderProcess) -> None:
        """It has loaded models, for the first time or newer ones: ``reader.models``."""

    def answered(
        self, reader: ReaderProcess, entries: list[Entry], answers: list[Answer], seconds: float
    ) -> None:
        """It is idle again, and this is what came of what it got, after so many seconds."""


def command(stuck: float, sources: Sequence[str], before: Sequence[str] = ()) -> list[str]:
    """What runs a reader; ``-P`` keeps the folder that the service was started in out of its path.

    :param stuck: seconds after which a reading that has not ended never will
    :param sources: the bundles
    :param before: the version of each that was loaded last, empty for none
    """
    pairs = zip(sources, before or [""] * len(sources), strict=True)
    words = [f"{stuck:g}", *chain.from_iterable(pairs)]
    return [sys.executable, "-P", "-m", "scrapy_captcha.service.reader", *words]


class ReaderProcess(asyncio.Protocol):
    """A process that reads one batch after the other, until either side closes the connection.

    :param arguments: what to run
    """

    def __init__(self, arguments: Sequence[str], owner: Owner) -> None:
        self._arguments = arguments
        self._owner = owner
        self._frames = Frames(MAX_ANSWERS)
        self._process: subprocess.Popen[bytes] | None = None
        self._transport: asyncio.Transport | None = None
        self._strikes = 0
        #: Whether it shall look for newer models before it gets anything else.
        self.due = False
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        #: What it reads now; ``None`` while it loads, or is idle.
        self.entries: list[Entry] | None = None
        self.models: list[ModelState] = []
        self._since = self.looked = time.monotonic()

    @property
    def usable(self) -> bool:
        """Whether it can read with the default model."""
        return bool(self.models) and self.models[0].hash is not None and not self.lost.done()

    @property
    def pid(self) -> int:
        """The process's number; 0 before it has been started."""
        return self._process.pid if self._process else 0

    async def start(self) -> None:
        """Start the process; it loads its models by itself.

        :raises OSError: when it cannot be started
        """
        ours, theirs = socket.socketpair()
        try:
            self._process = _spawn(self._arguments, theirs)
            await asyncio.get_running_loop().create_connection(lambda: self, sock=ours)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()

    def send(self, entries: list[Entry]) -> None:
        """Have it read a batch."""
        self._write(entries, encode_batch([entry.task for entry in entries]))

    def look(self) -> None:
        """Have it look for newer versions of its models."""
        self.due = False
        self.looked = time.monotonic()
        self._write([], _LOOK)

    def overdue(self, stuck: float) -> bool:
        """Whether it has been at work for too long at two looks in a row.

        One is not enough: this process itself may have been stopped meanwhile.
        """
        limit = stuck if self.models else LOADING
        idle = self.entries is None and bool(self.models)
        late = not idle and time.monotonic() - self._since > limit
        self._strikes = self._strikes + 1 if late else 0
        return self._strikes > 1

    def kill(self) -> None:
        """End the process at once."""
        if self._process is not None:
            self._process.kill()
        self.close()

    def close(self) -> None:
        """Close the connection: the process ends by itself."""
        if self._transport is not None:
            self._transport.abort()

    async def ended(self, patience: float = 0.0) -> int | None:
        """Wait for the end of the process, and kill it when that takes longer than the patience.

        :return: its exit code; ``None`` if it was never started
        """
        self.close()
        process = self._process
        if process is None:
            return None
        until = time.monotonic() + patience
        try:
            while process.poll() is None:
                if time.monotonic() >= until:
                    process.kill()
                await asyncio.sleep(_POLL)
        finally:
            if process.poll() is None:  # this task was cancelled
                process.kill()
                process.wait()
        return process.returncode

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The process can be talked to."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """It said something; one that makes no sense is killed."""
        try:
            for payload in self._frames.feed(data):
                self._take(payload)
        except MessageError as e:
            logger.error("Killing the reader %(pid)d: %(error)s", {"pid": self.pid, "error": e})
            self.kill()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """It is gone, or was told to go."""
        if not self.lost.done():
            self.lost.set_result(None)

    def _take(self, payload: bytes) -> None:
        reply = decode_reply(payload)
        if isinstance(reply, Models):
            if self.models and self.entries is None:
                raise MessageError("models that nobody asked for")
            self.models = reply.states
            self._owner.loaded(self)
            return
        entries = self.entries
        if entries is None or len(entries) != len(reply):
            expected = "no" if entries is None else len(entries)
            raise MessageError(f"expected {expected} answers, got {len(reply)}")
        self.entries = None
        self._owner.answered(self, entries, reply, time.monotonic() - self._since)

    def _write(self, entries: list[Entry], frame: bytes) -> None:
        assert self._transport is not None
        self.entries = entries
        self._since, self._strikes = time.monotonic(), 0
        if not self._transport.is_closing():  # else it is lost in a moment, and what it had known
            self._transport.write(frame)


def _spawn(arguments: Sequence[str], theirs: socket.socket) -> subprocess.Popen[bytes]:
    """Start a process that has its end of the connection as its standard input.

    Ctrl-C in the terminal is for the front alone, which lets the readers finish.
    """
    environment = {**_ONE_THREAD, **os.environ}
    if sys.platform != "win32":
        return subprocess.Popen(  # noqa: S603
            arguments, stdin=theirs.fileno(), process_group=0, env=environment
        )
    flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.BELOW_NORMAL_PRIORITY_CLASS
    process = subprocess.Popen(  # noqa: S603
        arguments, stdin=subprocess.PIPE, creationflags=flags, env=environment
    )
    assert process.stdin is not None
    with process.stdin as pipe:
        pipe.write(theirs.share(process.pid))
    return process
