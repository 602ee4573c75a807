"""One reader process, seen from the front."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest
from pooling import until

from scrapy_captcha.bundle import open_bundle
from scrapy_captcha.service.messages import (
    READ,
    UNREADABLE,
    Answer,
    ModelState,
    Task,
    encode_models,
)
from scrapy_captcha.service.process import ReaderProcess, command
from scrapy_captcha.service.tickets import Entry, Ticket

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

GOLDEN = open_bundle("alnum4").manifest.golden[0]
SLEEPS = [sys.executable, "-c", "import time; time.sleep(600)"]


class Keeper:
    """Keeps what a reader said."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.times: list[float] = []

    def loaded(self, reader: ReaderProcess) -> None:
        pass

    def answered(
        self, reader: ReaderProcess, entries: list[Entry], answers: list[Answer], seconds: float
    ) -> None:
        self.answers += answers
        self.times.append(seconds)


def entries(*images: bytes) -> list[Entry]:
    ticket = Ticket(asyncio.get_running_loop().create_future(), [None] * len(images), 0.0)
    tasks = [Task(0, None, None, image) for image in images]
    return [Entry(ticket, index, task) for index, task in enumerate(tasks)]


def loops() -> list[Any]:
    found: list[Any] = [pytest.param(asyncio.run, id="asyncio")]
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        return found
    return [*found, pytest.param(uvloop.run, id="uvloop")]


@pytest.mark.parametrize("run", loops())
def test_a_reader_answers_batches_until_the_connection_is_closed(
    run: Callable[[Coroutine[Any, Any, None]], None],
) -> None:
    async def main() -> None:
        keeper = Keeper()
        reader = ReaderProcess(command(10.0, ["alnum4", "alnum8"]), keeper)
        await reader.start()
        try:
            await until(lambda: reader.models)
            assert reader.usable
            hashes = [state.hash for state in reader.models]
            assert hashes == [open_bundle(name).hash for name in ("alnum4", "alnum8")]

            for round_ in range(1, 4):
                reader.send(entries(GOLDEN.image, b"torn"))
                await until(lambda count=round_: len(keeper.answers) == 2 * count)
                assert reader.entries is None
            reader.look()
            await until(lambda: reader.entries is None)
        finally:
            code = await reader.ended(patience=60.0)

        assert code == 0
        assert not reader.usable
        assert [answer.status for answer in keeper.answers] == [READ, UNREADABLE] * 3
        texts = {answer.recognition.text for answer in keeper.answers if answer.recognition}
        assert texts == {GOLDEN.text}
        assert all(0 < seconds < 60 for seconds in keeper.times)

    run(main())


@pytest.mark.parametrize("run", loops())
def test_what_is_sent_to_a_reader_that_is_going_is_kept_for_another(
    run: Callable[[Coroutine[Any, Any, None]], None],
) -> None:
    async def main() -> None:
        reader = ReaderProcess(SLEEPS, Keeper())
        await reader.start()
        reader.close()
        batch = entries(GOLDEN.image)
        reader.send(batch)
        await reader.lost
        assert reader.entries == batch
        assert await reader.ended() == -signal.SIGKILL

    run(main())


def test_a_process_that_does_not_end_in_time_is_killed() -> None:
    async def main() -> None:
        reader = ReaderProcess(SLEEPS, Keeper())
        await reader.start()
        assert await reader.ended(patience=0.05) == -signal.SIGKILL
        assert await reader.ended(patience=0.05) == -signal.SIGKILL

    asyncio.run(main())


def test_a_process_that_cannot_be_started_leaves_nothing_open() -> None:
    async def main() -> None:
        reader = ReaderProcess(["/nowhere/python"], Keeper())
        with pytest.raises(OSError, match="/nowhere/python"):
            await reader.start()
        assert await reader.ended() is None
        assert reader.pid == 0

    asyncio.run(main())


def test_a_reader_is_overdue_only_when_it_is_late_at_two_looks_in_a_row() -> None:
    async def main() -> None:
        reader = ReaderProcess(command(10.0, ["alnum4"]), Keeper())
        await reader.start()
        try:
            await until(lambda: reader.models)
            assert [reader.overdue(0.0) for _ in range(3)] == [False] * 3  # idle
            os.kill(reader.pid, signal.SIGSTOP)
            reader.send(entries(GOLDEN.image))
            assert [reader.overdue(60.0) for _ in range(3)] == [False] * 3
            assert [reader.overdue(0.0) for _ in range(3)] == [False, True, True]
            os.kill(reader.pid, signal.SIGCONT)
            await until(lambda: reader.entries is None)
            assert not reader.overdue(0.0)
        finally:
            await reader.ended()

    asyncio.run(main())


def test_answers_that_nobody_asked_for_end_a_reader(caplog: pytest.LogCaptureFixture) -> None:
    """What is no message, an answer without a question, and models once too often."""
    models = encode_models([ModelState(None, "")])
    for said in (b"\0\0\0\4what", b"\0\0\0\1A", models + models):
        script = f"import os, time; os.write(0, {said!r}); time.sleep(600)"

        async def main(script: str = script) -> None:
            reader = ReaderProcess([sys.executable, "-c", script], Keeper())
            await reader.start()
            await reader.lost
            assert await reader.ended(patience=60.0) == -signal.SIGKILL

        with caplog.at_level(logging.ERROR):
            asyncio.run(main())
    assert "said b'what'" in caplog.text
    assert "expected no answers" in caplog.text
    assert "models that nobody asked for" in caplog.text
