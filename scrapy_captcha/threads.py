"""Blocking calls in threads that are not the crawl's own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from scrapy.utils.asyncio import is_asyncio_available, run_in_thread
from scrapy.utils.defer import maybe_deferred_to_future
from twisted.internet.defer import Deferred

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor, Future

P = ParamSpec("P")
T = TypeVar("T")


async def run_in(
    executor: Executor | None, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Call a function in one of an executor's threads.

    Scrapy's own threads also look hosts up and write to the disk: what may wait for long is not to
    take them.

    :param executor: ``None`` for Scrapy's own threads
    """
    if executor is None:
        return await run_in_thread(function, *args, **kwargs)
    future = executor.submit(function, *args, **kwargs)
    if is_asyncio_available():
        return await asyncio.wrap_future(future)
    return await maybe_deferred_to_future(_deferred(future))


def _deferred(future: Future[T]) -> Deferred[T]:
    """The same as a Deferred, which fires in the reactor's thread."""
    from twisted.internet import reactor  # noqa: PLC0415 - it would install one

    deferred: Deferred[T] = Deferred()

    def fire() -> None:
        error = future.exception()
        if error is None:
            deferred.callback(future.result())
        else:
            deferred.errback(error)

    future.add_done_callback(lambda _: reactor.callFromThread(fire))
    return deferred
