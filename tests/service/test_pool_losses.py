"""Readers die, hang and talk nonsense; the pool replaces them and answers everybody."""

from __future__ import annotations

import asyncio
import shutil
import signal
from typing import TYPE_CHECKING

import pytest
from pooling import running, texts, until, use_fragile_readers

from scrapy_captcha.bundle import MODEL, open_bundle, resolve
from scrapy_captcha.service.pool import Refusal

if TYPE_CHECKING:
    from pathlib import Path

GOLDEN = open_bundle("alnum4").manifest.golden[0]
IMAGE, TEXT = GOLDEN.image, GOLDEN.text


@pytest.fixture
def fragile(monkeypatch: pytest.MonkeyPatch) -> None:
    use_fragile_readers(monkeypatch)


def test_what_a_killed_reader_had_is_read_by_the_next(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with running() as trial:
            async with trial.stopped_readers():
                asked = trial.asked(IMAGE, IMAGE)
                await trial.held()
                waits = trial.asked(IMAGE)
                await until(lambda: trial.count("waiting_images") == 1)
                before = trial.pool.pids
                trial.signal(signal.SIGKILL)
                await until(lambda: trial.count("readers") == 0)
                assert trial.count("waiting_images") == 3
                refusal = trial.pool.refuses()
                assert refusal is not None
                assert refusal.status == 503
                assert list(texts(await asked)) == [TEXT, TEXT]
                assert list(texts(await waits)) == [TEXT]
            assert trial.pool.ready
            assert trial.pool.pids != before
            assert trial.count("reader_restarts_total") == 1

    asyncio.run(main())
    assert "ended with code -9" in caplog.text


@pytest.mark.usefixtures("fragile")
def test_an_image_that_kills_readers_is_refused_and_its_neighbours_are_read() -> None:
    async def main() -> None:
        async with running(readers=2) as trial:
            async with trial.stopped_readers():
                first = [trial.asked(IMAGE) for _ in range(2)]
                await until(lambda: trial.count("being_read_images") == 2)
                together = trial.asked(IMAGE, b"die", IMAGE, IMAGE)
                neighbour = trial.asked(IMAGE)
                await until(lambda: trial.count("waiting_images") == 5)
            assert list(texts(await together)) == [TEXT, 503, TEXT, TEXT]
            assert list(texts(await neighbour)) == [TEXT]
            await asyncio.gather(*first)
            (refusal,) = [entry for entry in await together if isinstance(entry, Refusal)]
            assert "its reader ended, twice" in refusal.message
            assert trial.count("reader_restarts_total") == 2
            await until(lambda: trial.count("readers") == 2)
            assert list(texts(await trial.read(IMAGE))) == [TEXT]

    asyncio.run(main())


@pytest.mark.usefixtures("fragile")
def test_a_reader_that_hangs_is_killed(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with running(readers=1, stuck=0.2) as trial:
            assert list(texts(await trial.read(b"hang"))) == [503]
            await until(lambda: trial.count("reader_restarts_total") == 2)
            await until(lambda: trial.pool.ready)
            assert list(texts(await trial.read(IMAGE))) == [TEXT]

    asyncio.run(main())
    assert "it hangs" in caplog.text


def test_a_reader_that_hangs_while_idle_is_found_before_a_request_meets_it() -> None:
    async def main() -> None:
        async with running(look=0.1, stuck=0.5) as trial:
            trial.signal(signal.SIGSTOP)
            await until(lambda: trial.count("reader_restarts_total") == 1)
            await until(lambda: trial.pool.ready)
            assert list(texts(await trial.read(IMAGE))) == [TEXT]

    asyncio.run(main())


@pytest.mark.usefixtures("fragile")
def test_a_reader_that_talks_nonsense_is_killed(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with running() as trial:
            assert list(texts(await trial.read(b"babble"))) == [503]
            await until(lambda: trial.pool.ready)
            assert list(texts(await trial.read(IMAGE))) == [TEXT]

    asyncio.run(main())
    assert "said b'what'" in caplog.text


@pytest.mark.usefixtures("fragile")
def test_an_error_that_nobody_expects_costs_one_answer_and_no_reader() -> None:
    async def main() -> None:
        async with running(models={"alnum4": "alnum4", "other": "alnum4"}) as trial:
            outcomes = await trial.read(b"fail", model="other")
            assert outcomes == [Refusal(503, "the image could not be read", 1, "failed")]
            assert list(texts(await trial.read(IMAGE))) == [TEXT]
            assert trial.count("reader_restarts_total") == 0
            assert trial.count("images_total", result="failed") == 1

    asyncio.run(main())


def test_a_model_that_does_not_load_makes_no_pool_ready_until_it_is_mended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shutil.copytree(resolve("alnum4"), tmp_path / "mine")
    (folder / MODEL).write_bytes(b"torn")

    async def main() -> None:
        async with running(look=0.05, ready=False, models={"mine": str(folder)}) as trial:
            await until(lambda: "The model mine does not load" in caplog.text)
            assert not trial.pool.ready
            assert trial.pool.refuses() is not None
            shutil.copyfile(resolve("alnum4") / MODEL, folder / MODEL)
            await until(lambda: trial.pool.ready)
            assert list(texts(await trial.read(IMAGE, model="mine"))) == [TEXT]
            assert trial.count("reader_restarts_total") == 0

    asyncio.run(main())


def test_a_second_model_that_does_not_load_leaves_the_first_in_service(tmp_path: Path) -> None:
    folder = shutil.copytree(resolve("alnum4"), tmp_path / "mine")
    (folder / MODEL).write_bytes(b"torn")

    async def main() -> None:
        async with running(models={"alnum4": "alnum4", "mine": str(folder)}) as trial:
            assert list(texts(await trial.read(IMAGE))) == [TEXT]
            (outcome,) = await trial.read(IMAGE, model="mine")
            assert isinstance(outcome, Refusal)
            assert outcome.status == 503
            assert str(folder) not in outcome.message

    asyncio.run(main())
