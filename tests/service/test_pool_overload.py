"""A pool admits what it can read in time, and refuses the rest at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pooling import Trial, running, texts, until

from scrapy_captcha.bundle import open_bundle
from scrapy_captcha.service.pool import Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

GOLDEN = open_bundle("alnum4").manifest.golden[0]
IMAGE, TEXT = GOLDEN.image, GOLDEN.text


def with_a_held_reader(
    test: Callable[[Trial], Awaitable[None]],
    after: Callable[[Trial], Awaitable[None]],
    **config: object,
) -> None:
    """Run a test while the only reader is stopped over one image, and another one afterwards."""

    async def main() -> None:
        async with running(**config) as trial:  # type: ignore[arg-type]
            async with trial.stopped_readers():
                first = trial.asked(IMAGE)
                await trial.held()
                await test(trial)
            assert list(texts(await first)) == [TEXT]
            await after(trial)

    asyncio.run(main())


def test_what_would_overflow_the_queue_is_refused_and_what_waits_is_read() -> None:
    waiting = []

    async def test(trial: Trial) -> None:
        waiting.extend([trial.asked(IMAGE) for _ in range(3)])
        await until(lambda: trial.count("waiting_images") == 3)
        assert trial.pool.refuses() is None

        refused = await trial.read(IMAGE, IMAGE)  # together or not at all
        assert list(texts(refused)) == [429, 429]
        assert trial.count("waiting_images") == 3

        waiting.append(trial.asked(IMAGE))
        await until(lambda: trial.count("waiting_images") == 4)
        refusal = trial.pool.refuses()
        assert refusal == Refusal(429, "4 images wait; try again later", 1, "full")
        assert await trial.read(IMAGE) == [refusal]
        assert trial.count("refused_total", reason="full") == 3

    async def after(trial: Trial) -> None:
        for outcomes in await asyncio.gather(*waiting):
            assert list(texts(outcomes)) == [TEXT]
        assert trial.pool.refuses() is None
        assert list(texts(await trial.read(IMAGE))) == [TEXT]

    with_a_held_reader(test, after, max_waiting=4)


def test_a_request_larger_than_the_queue_is_read_when_nothing_waits() -> None:
    async def main() -> None:
        async with running(max_waiting=2) as trial:
            assert list(texts(await trial.read(*[IMAGE] * 5))) == [TEXT] * 5

    asyncio.run(main())


def test_what_would_wait_for_half_the_deadline_is_refused_before_the_queue_is_full() -> None:
    waiting = []

    async def test(trial: Trial) -> None:
        waiting.append(trial.asked(*[IMAGE] * 15))
        await until(lambda: trial.count("waiting_images") == 15)
        assert trial.pool.refuses() is None  # 16 ms, as long as it knows no better
        waiting.append(trial.asked(*[IMAGE] * 10))
        await until(lambda: trial.count("waiting_images") == 25)
        refusal = trial.pool.refuses()
        assert refusal is not None
        assert (refusal.status, refusal.reason) == (429, "slow")

    async def after(trial: Trial) -> None:
        for outcomes in await asyncio.gather(*waiting):
            assert set(texts(outcomes)) == {TEXT}
        assert trial.pool.refuses() is None

    with_a_held_reader(test, after, deadline=0.05)


def test_what_is_late_is_refused_at_its_deadline_and_not_read() -> None:
    async def test(trial: Trial) -> None:
        late = await trial.read(IMAGE, IMAGE, within=0.05)  # while the reader still does nothing
        assert list(texts(late)) == [503, 503]
        assert [outcome.retry_after for outcome in late if isinstance(outcome, Refusal)] == [1, 1]
        assert list(texts(await trial.read(IMAGE, within=-1.0))) == [503]
        assert trial.count("waiting_images") == 0
        assert trial.count("refused_total", reason="deadline") == 3

    async def after(trial: Trial) -> None:
        assert list(texts(await trial.read(IMAGE))) == [TEXT]
        assert trial.count("images_total", result="read") == 2  # none of the three

    with_a_held_reader(test, after)


def test_what_a_reader_has_is_refused_at_its_deadline_too() -> None:
    async def main() -> None:
        async with running() as trial:
            async with trial.stopped_readers():
                assert list(texts(await trial.read(IMAGE, within=0.05))) == [503]
            assert list(texts(await trial.read(IMAGE))) == [TEXT]

    asyncio.run(main())


def test_what_nobody_waits_for_any_more_leaves_the_queue() -> None:
    async def test(trial: Trial) -> None:
        abandoned, wanted = trial.asked(IMAGE, IMAGE), trial.asked(IMAGE)
        await until(lambda: trial.count("waiting_images") == 3)
        abandoned.cancel()
        await asyncio.wait([abandoned])
        assert trial.count("waiting_images") == 1
        wanted.cancel()
        await asyncio.wait([wanted])
        assert trial.count("waiting_images") == 0

    async def after(trial: Trial) -> None:
        assert list(texts(await trial.read(IMAGE))) == [TEXT]
        assert trial.count("images_total", result="read") == 2

    with_a_held_reader(test, after)


def test_nothing_is_admitted_before_a_reader_is_up() -> None:
    async def main() -> None:
        async with running(ready=False) as trial:
            refusal = trial.pool.refuses()
            assert refusal is not None
            assert (refusal.status, refusal.retry_after) == (503, 1)
            assert await trial.read(IMAGE) == [refusal]
            assert not trial.pool.ready
            await until(lambda: trial.pool.ready)
            assert list(texts(await trial.read(IMAGE))) == [TEXT]

    asyncio.run(main())


def test_all_readers_have_to_be_up_before_the_pool_is_ready() -> None:
    async def main() -> None:
        async with running(readers=2, ready=False) as trial:
            await until(lambda: trial.count("readers") == 1)
            assert not trial.pool.ready
            assert list(texts(await trial.read(IMAGE))) == [TEXT]
            await until(lambda: trial.count("readers") == 2)
            assert trial.pool.ready

    asyncio.run(main())
