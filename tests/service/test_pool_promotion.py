"""A promoted bundle reads without a restart, and a damaged one does not."""

from __future__ import annotations

import asyncio
import shutil
import signal
from typing import TYPE_CHECKING

import pytest
from pooling import running, until

from scrapy_captcha.bundle import CURRENT, MODEL, open_bundle, resolve
from scrapy_captcha.recognizer import Recognizer
from scrapy_captcha.service.pool import Reading

if TYPE_CHECKING:
    from pathlib import Path

    from pooling import Trial

IMAGE = open_bundle("alnum4").manifest.golden[0].image
OLD, NEW = Recognizer.load("alnum4"), Recognizer.load("alnum8")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle whose current version is the old one, with two others that are not."""
    folder = tmp_path / "mine"
    shutil.copytree(resolve("alnum4"), folder / "old")
    shutil.copytree(resolve("alnum8"), folder / "new")
    shutil.copytree(resolve("alnum8"), folder / "damaged")
    (folder / "damaged" / MODEL).write_bytes(b"torn")
    promote(folder, "old")
    return folder


def promote(folder: Path, version: str) -> None:
    (folder / "next").write_text(version)
    (folder / "next").replace(folder / CURRENT)


async def reading(trial: Trial) -> Reading:
    (outcome,) = await trial.read(IMAGE, model="mine")
    assert isinstance(outcome, Reading)
    return outcome


def said(by: Recognizer) -> Reading:
    return Reading(by.read(IMAGE), "mine")


def test_a_promoted_bundle_reads_without_a_restart(bundle: Path) -> None:
    async def main() -> None:
        async with running(readers=2, look=0.05, models={"mine": str(bundle)}) as trial:
            pids = trial.pool.pids
            assert await reading(trial) == said(OLD)

            promote(bundle, "new")
            seen = [await reading(trial)]
            while seen[-20:] != [said(NEW)] * 20:  # both readers
                seen.append(await reading(trial))
                await asyncio.sleep(0.01)

            # each reading names the version that gave it
            assert all(outcome in {said(OLD), said(NEW)} for outcome in seen)
            assert trial.pool.pids == pids
            assert trial.count("reader_restarts_total") == 0
            assert trial.count("model_info", name="mine", hash=NEW.model_hash) == 1
            assert trial.count("model_info", name="mine", hash=OLD.model_hash) == 0

    asyncio.run(main())


def test_a_busy_reader_looks_for_newer_models_too(bundle: Path) -> None:
    async def main() -> None:
        async with running(look=0.05, models={"mine": str(bundle)}) as trial:
            promote(bundle, "new")
            found = False

            async def keep_asking() -> None:
                nonlocal found
                while not found:
                    found = await reading(trial) == said(NEW)

            async with asyncio.timeout(60):
                await asyncio.gather(*(keep_asking() for _ in range(4)))

    asyncio.run(main())


def test_a_damaged_new_bundle_leaves_the_old_one_in_service(
    bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with running(readers=2, look=0.05, models={"mine": str(bundle)}) as trial:
            promote(bundle, "damaged")
            await until(lambda: f"stays {OLD.model_hash}" in caplog.text)
            assert await reading(trial) == said(OLD)
            assert trial.pool.ready

            (bundle / CURRENT).unlink()
            await until(lambda: "neither" in caplog.text)
            assert await reading(trial) == said(OLD)

            promote(bundle, "new")
            await until(lambda: trial.count("model_info", name="mine", hash=NEW.model_hash))
            while await reading(trial) != said(NEW):
                pass
            assert trial.count("reader_restarts_total") == 0

    asyncio.run(main())
    assert caplog.text.count(f"stays {OLD.model_hash}") == 2  # once for each reason


def test_a_reader_that_starts_beside_a_damaged_new_bundle_has_the_old_one(
    bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with running(look=0.05, models={"mine": str(bundle)}) as trial:
            promote(bundle, "damaged")
            await until(lambda: f"stays {OLD.model_hash}" in caplog.text)
            for _ in range(2):
                trial.signal(signal.SIGKILL)
                await until(lambda: not trial.pool.ready)
                await until(lambda: trial.pool.ready)
                assert await reading(trial) == said(OLD)
            assert caplog.text.count("does not load") == 1

            promote(bundle, "new")
            await until(lambda: trial.count("model_info", name="mine", hash=NEW.model_hash))
            assert await reading(trial) == said(NEW)

    asyncio.run(main())


def test_what_is_described_is_what_reads(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    (bundle / "damaged" / MODEL).write_bytes(bytes((bundle / "new" / MODEL).stat().st_size))

    async def main() -> None:
        models = {"mine": str(bundle), "either": "auto", "none": str(bundle / "damaged")}
        async with running(look=0.05, models=models) as trial:
            mine, either = trial.pool.describe()
            keys = ("charset", "length", "min_length", "case")
            assert mine == {
                "name": "mine",
                **{key: getattr(OLD.manifest, key) for key in keys},
                "model_hash": OLD.model_hash,
            }
            assert either["model_hash"] == Recognizer.load("auto").model_hash
            assert (either["min_length"], either["length"]) == (3, 8)

            promote(bundle, "damaged")
            await until(lambda: f"stays {OLD.model_hash}" in caplog.text)
            assert trial.pool.describe()[0] == mine

            promote(bundle, "new")
            await until(lambda: trial.count("model_info", name="mine", hash=NEW.model_hash))
            described = trial.pool.describe()[0]
            assert (described["length"], described["model_hash"]) == (8, NEW.model_hash)

    asyncio.run(main())
