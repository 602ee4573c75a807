"""No reader outlives its service, however that ends."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from pooling import PATIENCE, Trial, gone, running, texts, use_fragile_readers

from scrapy_captcha.bundle import open_bundle

GOLDEN = open_bundle("alnum4").manifest.golden[0]
FRONT = Path(__file__).with_name("front.py")


def test_a_stopped_pool_leaves_no_process_and_refuses_what_it_had() -> None:
    async def main() -> list[int]:
        async with running(readers=2) as trial:
            pids = trial.pool.pids
            async with trial.stopped_readers():
                asked = [trial.asked(GOLDEN.image) for _ in range(3)]
                await trial.held()
            await trial.pool.stop()
            assert not [pid for pid in pids if psutil.pid_exists(pid)]
            for request in asked:
                assert set(texts(await request)) <= {503, GOLDEN.text}
            assert trial.pool.refuses() is not None
            assert not trial.pool.ready
            assert trial.pool.pids == []
            assert trial.count("reader_restarts_total") == 0
            return pids

    assert len(asyncio.run(main())) == 2


def test_a_reader_that_hangs_does_not_keep_the_pool_from_stopping(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_fragile_readers(monkeypatch)
    monkeypatch.setattr("scrapy_captcha.service.pool.FAREWELL", 0.1)

    async def main() -> list[int]:
        async with running(readers=1) as trial:
            hangs = trial.asked(b"hang")
            await trial.held()
            pids = trial.pool.pids
            await trial.pool.stop()
            assert list(texts(await hangs)) == [503]
            return pids

    (pid,) = asyncio.run(main())
    assert not psutil.pid_exists(pid)


def test_a_pool_that_is_stopped_while_it_starts_leaves_no_process() -> None:
    before = {child.pid for child in psutil.Process().children()}

    async def main() -> None:
        async with running(readers=2, ready=False):
            pass
        async with running(readers=2, ready=False):
            await asyncio.sleep(0)

    asyncio.run(main())
    assert {child.pid for child in psutil.Process().children()} <= before


def test_a_loop_that_ends_without_stopping_its_pool_leaves_no_process() -> None:
    async def main() -> list[int]:
        trial = Trial(readers=2)
        await trial.pool.start()
        while not trial.pool.ready:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return trial.pool.pids

    pids = asyncio.run(main())
    assert len(pids) == 2
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


@pytest.mark.parametrize("image", ["", "hang"])
def test_the_readers_of_a_killed_front_end_by_themselves(image: str) -> None:
    """Even those that hang and let no Python code run."""
    with subprocess.Popen(
        [sys.executable, str(FRONT), image], stdout=subprocess.PIPE, text=True
    ) as front:
        assert front.stdout is not None
        pids = [int(word) for word in front.stdout.readline().split()]
        try:
            assert len(pids) == 2
            assert not [pid for pid in pids if gone(pid)]
        finally:
            front.kill()
    give_up = time.monotonic() + PATIENCE
    while not all(map(gone, pids)):
        assert time.monotonic() < give_up, [psutil.Process(pid) for pid in pids if not gone(pid)]
        time.sleep(0.01)


def test_signals_that_mean_the_front_leave_the_readers_at_work() -> None:
    async def main() -> None:
        async with running() as trial:
            async with trial.stopped_readers():
                asked = trial.asked(GOLDEN.image)
                await trial.held()
                trial.signal(signal.SIGTERM)
                trial.signal(signal.SIGINT)
            assert list(texts(await asked)) == [GOLDEN.text]
            (pid,) = trial.pool.pids
            assert psutil.Process(pid).nice() >= 5
            assert trial.count("reader_restarts_total") == 0

    asyncio.run(main())
