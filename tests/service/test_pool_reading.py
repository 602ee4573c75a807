"""What a pool reads is what the model reads, for each request what it asked for."""

from __future__ import annotations

import asyncio
import base64
import io
import threading
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from pooling import Trial, running, texts, until

from scrapy_captcha.bundle import open_bundle
from scrapy_captcha.image import MAX_BYTES
from scrapy_captcha.recognizer import Recognizer
from scrapy_captcha.service.pool import Reading, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

PNG_START = base64.b64decode("iVBORw0KGgoAAAANSUhEUg==")


@pytest.fixture(scope="module")
def four() -> Recognizer:
    return Recognizer.load("alnum4")


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    """Images that differ in what is read in them, or at least in the confidence."""
    made = []
    for golden in open_bundle("alnum4").manifest.golden:
        with Image.open(io.BytesIO(golden.image)) as original:
            for turned in range(-8, 8):
                file = io.BytesIO()
                original.convert("RGB").rotate(turned, fillcolor="white").save(file, "PNG")
                made.append(file.getvalue())
    return made


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def trial(runner: asyncio.Runner) -> Iterator[Trial]:
    """One pool for all tests that leave it as it is."""
    context = running(readers=2, models={"alnum4": "alnum4", "any": "alnum8", "both": "auto"})
    yield runner.run(context.__aenter__())
    runner.run(context.__aexit__(None, None, None))


def test_images_come_back_in_order_as_the_model_reads_them(
    runner: asyncio.Runner, trial: Trial, four: Recognizer, images: list[bytes]
) -> None:
    outcomes = runner.run(trial.read(*images))

    assert outcomes == [Reading(four.read(image), "alnum4") for image in images]
    assert len({outcome.recognition for outcome in outcomes if isinstance(outcome, Reading)}) > 32


def test_requests_at_the_same_time_get_their_own_outcomes(
    runner: asyncio.Runner, trial: Trial, four: Recognizer, images: list[bytes]
) -> None:
    async def ask() -> list[list[Reading | Refusal]]:
        return await asyncio.gather(*(trial.read(image, b"torn", image) for image in images))

    for image, (first, torn, second) in zip(images, runner.run(ask()), strict=True):
        assert isinstance(torn, Refusal)
        assert first == second == Reading(four.read(image), "alnum4")


def test_each_request_has_its_own_charset_length_and_model(
    runner: asyncio.Runner, trial: Trial, four: Recognizer, images: list[bytes]
) -> None:
    any_length, both, image = Recognizer.load("alnum8"), Recognizer.load("auto"), images[0]

    async def ask() -> list[list[Reading | Refusal]]:
        return await asyncio.gather(
            trial.read(image),
            trial.read(image, charset="0123456789"),
            trial.read(image, length=5, model="any"),
            trial.read(image, charset="ABC", length=4, model="both"),
            trial.read(image, model="both"),
        )

    expected = [
        Reading(four.read(image), "alnum4"),
        Reading(four.read(image, "0123456789"), "alnum4"),
        Reading(any_length.read(image, length=5), "any"),
        Reading(both.read(image, "ABC", 4), "both"),
        Reading(both.read(image), "both"),
    ]
    assert runner.run(ask()) == [[outcome] for outcome in expected]
    assert len({outcome.recognition.text for outcome in expected}) >= 3


def test_what_the_model_cannot_read_is_refused_by_what_it_can(
    runner: asyncio.Runner, trial: Trial, images: list[bytes]
) -> None:
    def refusal(**options: object) -> str:
        (outcome,) = runner.run(trial.read(images[0], **options))  # type: ignore[arg-type]
        assert isinstance(outcome, Refusal)
        assert (outcome.status, outcome.retry_after) == (422, None)
        return outcome.message

    assert "'alnum4' reads 4 characters, not 5" in refusal(length=5)
    assert "it does not know 'é'" in refusal(charset="aé")
    assert "expected a charset" in refusal(charset="")
    assert "\\ud800" in refusal(charset="\ud800")
    assert "at most 4096 characters" in refusal(charset="a" * 4097)
    for length in (0, -1, 33, 10**30):
        assert refusal(length=length) == "expected a length from 1 to 32"
    assert refusal(model="alnum5") == "no model 'alnum5': expected alnum4 or any or both"


def test_what_is_not_an_image_is_refused_and_its_neighbours_are_read(
    runner: asyncio.Runner, trial: Trial, four: Recognizer, images: list[bytes]
) -> None:
    bad = [b"", b"GIF89a", b"<html>", PNG_START, images[0][:200], b"x" * (MAX_BYTES + 1)]
    outcomes = runner.run(trial.read(images[0], *bad, images[1]))

    first, last = four.read(images[0]).text, four.read(images[1]).text
    assert list(texts(outcomes)) == [first, *[422] * len(bad), last]
    for outcome in outcomes[1:-1]:
        assert isinstance(outcome, Refusal)
        assert "image" in outcome.message
        assert "0x" not in outcome.message  # where an object is in memory
    assert list(texts(runner.run(trial.read(bad[-1])))) == [422]


def test_a_request_without_images_has_no_outcomes(runner: asyncio.Runner, trial: Trial) -> None:
    assert runner.run(trial.read()) == []


def test_the_metrics_tell_what_came_of_the_images(images: list[bytes]) -> None:
    async def main() -> None:
        async with running(readers=1, batch=16) as trial:
            async with trial.stopped_readers():
                first = trial.asked(images[0])
                await trial.held()
                more = [trial.asked(images[0], b"torn") for _ in range(10)]
                await asyncio.sleep(0)
                assert trial.count("waiting_images") == 20
            await asyncio.gather(first, *more)
            assert trial.count("images_total", result="read") == 11
            assert trial.count("images_total", result="unreadable") == 10
            assert trial.count("batch_images_sum") == 21
            assert trial.count("batch_images_count") == 3  # 1, then 16 of the 20 that waited, 4
            assert trial.count("waiting_images") == trial.count("being_read_images") == 0
            assert trial.count("readers") == 1
            hash_ = open_bundle("alnum4").hash
            assert trial.count("model_info", name="alnum4", hash=hash_) == 1

    asyncio.run(main())


def test_a_pool_runs_on_another_loop_in_another_thread(images: list[bytes]) -> None:
    uvloop = pytest.importorskip("uvloop")
    found: list[Reading | Refusal] = []

    async def main() -> None:
        async with running() as trial:
            found.extend(await trial.read(*images[:2]))

    thread = threading.Thread(target=uvloop.run, args=(main(),))
    thread.start()
    thread.join()
    assert [type(outcome) for outcome in found] == [Reading, Reading]


def test_a_pool_that_was_stopped_can_be_started_again_on_another_loop(images: list[bytes]) -> None:
    trial, pids = Trial(readers=1), set()

    async def main() -> None:
        assert not trial.pool.ready
        await trial.pool.start()
        assert trial.pool.refuses() is not None
        await until(lambda: trial.pool.ready)
        assert trial.pool.refuses() is None
        pids.update(trial.pool.pids)
        (outcome,) = await trial.read(images[0])
        assert isinstance(outcome, Reading)
        await trial.pool.stop()
        assert list(texts(await trial.read(images[0]))) == [503]

    asyncio.run(main())
    asyncio.run(main())
    assert len(pids) == 2
