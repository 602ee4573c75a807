"""The queue between the requests and the readers, and what it knows of their pace; no I/O."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Iterable, Sequence

    from scrapy_captcha.recognizer import Recognition
    from scrapy_captcha.service.messages import Task

#: What an image is thought to take before any has been read, in seconds.
FIRST_GUESS = 0.001
#: Share that an image's time has in the smoothed one.
WEIGHT = 0.02
#: The longest time, in seconds, that a client is asked to stay away.
LONGEST_RETRY = 30


@dataclass(frozen=True)
class Reading:
    """An image that was read.

    :param model: the name it goes by in the configuration
    """

    recognition: Recognition
    model: str

    @property
    def model_hash(self) -> str:
        """Of the version that read it."""
        return self.recognition.model_hash


@dataclass(frozen=True)
class Refusal:
    """An image that was not read.

    :param status: of HTTP: 422 for what can never be read, 429 and 503 for what can later
    :param message: for the client
    :param retry_after: whole seconds after which to try again
    :param reason: for the metrics
    """

    status: int
    message: str
    retry_after: int | None = None
    reason: str = "unreadable"


class Ticket:
    """A request's images, which were admitted together.

    :param future: gets the outcomes, in the images' order, as soon as there is one for each
    :param deadline: in the loop's time
    """

    __slots__ = ("_left", "_outcomes", "deadline", "future", "queued")

    def __init__(
        self,
        future: Future[list[Reading | Refusal]],
        outcomes: Sequence[Refusal | None],
        deadline: float,
    ) -> None:
        self.future = future
        self.deadline = deadline
        self.queued = 0
        self._outcomes: list[Reading | Refusal | None] = list(outcomes)
        self._left = self._outcomes.count(None)

    @property
    def over(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.future.done()

    def settle(self, index: int, outcome: Reading | Refusal) -> None:
        """Keep what came of one image."""
        self._outcomes[index] = outcome
        self._left -= 1
        if not self._left:
            self._finish()

    def settle_rest(self, refusal: Refusal) -> int:
        """Refuse what has no outcome yet; tell how many images that were."""
        rest = self._outcomes.count(None)
        self._outcomes = [refusal if outcome is None else outcome for outcome in self._outcomes]
        self._finish()
        return rest

    def _finish(self) -> None:
        if not self.future.done():
            self.future.set_result([outcome for outcome in self._outcomes if outcome is not None])


class Entry:
    """One image of a ticket.

    :param tried: whether a reader was lost over it
    """

    __slots__ = ("index", "task", "ticket", "tried")

    def __init__(self, ticket: Ticket, index: int, task: Task) -> None:
        self.ticket = ticket
        self.index = index
        self.task = task
        self.tried = False


class Line:
    """The images that wait, first come, first served.

    What a reader was lost over waits at the front, and is handed out alone: the next reader that
    one image costs then takes no other image's last chance with it.
    """

    def __init__(self) -> None:
        self._queue: deque[Entry] = deque()
        self.waiting = 0

    def add(self, entries: Iterable[Entry]) -> None:
        """Let images wait."""
        for entry in entries:
            self._queue.append(entry)
            self._count(entry)

    def try_again(self, entries: Sequence[Entry]) -> None:
        """Let images that a reader was lost over wait once more."""
        for entry in reversed(entries):
            entry.tried = True
            self._queue.appendleft(entry)
            self._count(entry)

    def take(self, most: int) -> list[Entry]:
        """What a reader gets now; nothing of a ticket that is over."""
        taken: list[Entry] = []
        queue = self._queue
        while queue and len(taken) < most:
            entry = queue[0]
            if entry.tried and taken:
                break
            queue.popleft()
            if entry.ticket.over:
                continue
            entry.ticket.queued -= 1
            self.waiting -= 1
            taken.append(entry)
            if entry.tried:
                break
        return taken

    def forget(self, ticket: Ticket) -> None:
        """Drop what waits of a ticket that is over."""
        if not ticket.queued:
            return
        self.waiting -= ticket.queued
        ticket.queued = 0
        if len(self._queue) > 2 * self.waiting:
            self._queue = deque(entry for entry in self._queue if not entry.ticket.over)

    def _count(self, entry: Entry) -> None:
        entry.ticket.queued += 1
        self.waiting += 1


class Pace:
    """How long one reader takes for one image, smoothed."""

    def __init__(self) -> None:
        self.seconds = FIRST_GUESS

    def saw(self, images: int, seconds: float) -> None:
        """Learn of a batch."""
        share = 1 - (1 - WEIGHT) ** images
        self.seconds += share * (seconds / images - self.seconds)

    def wait(self, images: int, readers: int) -> float:
        """Seconds until so many images have been read."""
        return images * self.seconds / max(readers, 1)


def whole_seconds(wait: float) -> int:
    """A ``Retry-After``: at least a second, and no longer than a client can be asked to wait."""
    return min(max(math.ceil(wait), 1), LONGEST_RETRY)
