"""Blocking calls in threads that are not the crawl's own.

Scrapy's threads also look hosts up and write to the disk: what may wait for long is not to take
them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

from scrapy.utils.asyncio import is_asyncio_available
from scrapy.utils.defer import maybe_deferred_to_future
from twisted.internet.defer import CancelledError, Deferred

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor, Future

T = TypeVar("T")


class GivenUp(Exception):  # noqa: N818 - not an error
    """A call that is not waited for any more."""


class Job(Generic[T]):
    """A call in one of an executor's threads, which can be given up.

    :param executor: begins the call when it has a thread for it
    """

    def __init__(self, executor: Executor, function: Callable[[], T]) -> None:
        self._future = executor.submit(function)
        self._waiter: asyncio.Future[T] | Deferred[T] = (
            asyncio.wrap_future(self._future) if is_asyncio_available() else _deferred(self._future)
        )
        self._given_up = False

    @property
    def waits(self) -> bool:
        """Whether no thread has begun it yet."""
        return not (self._future.running() or self._future.done())

    async def result(self) -> T:
        """What the call returns or raises.

        :raises GivenUp: when it was given up before
        """
        try:
            if isinstance(self._waiter, Deferred):
                return await maybe_deferred_to_future(self._waiter)
            return await self._waiter
        except (asyncio.CancelledError, CancelledError):
            if not self._given_up:
                raise
            raise GivenUp from None

    def give_up(self) -> None:
        """Wait no more; what no thread has begun is never begun."""
        self._given_up = True
        self._waiter.cancel()


def _deferred(future: Future[T]) -> Deferred[T]:
    """The same as a Deferred, which fires in the reactor's thread."""
    from twisted.internet import reactor  # noqa: PLC0415 - it would install one

    deferred: Deferred[T] = Deferred(lambda _: _cancel(future))

    def fire() -> None:
        if deferred.called:  # it was cancelled
            return
        error = future.exception()
        if error is None:
            deferred.callback(future.result())
        else:
            deferred.errback(error)

    future.add_done_callback(lambda _: reactor.callFromThread(fire))
    return deferred


def _cancel(future: Future[T]) -> None:
    future.cancel()
