"""Synthetic images that a fit sees between the site's own, so that it does not unlearn the rest."""

from __future__ import annotations

import math
import multiprocessing
import random
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from scrapy_captcha.image import HEIGHT, WIDTH
from trainer.fonts import CHARACTERS
from trainer.quiet import uninterrupted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from trainer.corpus import Task
    from trainer.fonts import Typeface

#: So many are drawn, a chunk at a time, which takes one core some seconds.
POOL = 2000
CHUNK = 250
#: Of the system's typefaces so many are looked at.
FACES = 100


@dataclass(frozen=True)
class Drawn:
    """What was drawn in time.

    Args:
        images: float16 of shape (n, 32, 90).
        classes: int32 of shape (n, heads), in the classes of the task.
        problem: why there are none, or fewer than wanted; empty if all is well.
    """

    images: NDArray[np.float16]
    classes: NDArray[np.int32]
    problem: str = ""


class Drawing:
    """Draws in a process of its own, while this one does something else.

    Args:
        task: characters and lengths.
        seed: the same seed gives the same images.
        count: how many.
    """

    def __init__(self, task: Task, seed: int, count: int = POOL) -> None:
        self._task = task
        self._count = count
        self._charset = "".join(c for c in task.charset if c in CHARACTERS)
        self._chunks: list[tuple[NDArray[np.uint8], NDArray[np.int32]]] = []
        self._problem = ""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe(duplex=False)
        lengths = task.min_length, task.length
        self._process = context.Process(
            target=draw, args=(theirs, seed, count, self._charset, lengths), daemon=True
        )
        self._receiver = threading.Thread(target=self._receive, daemon=True)
        if len(self._charset) < 2:
            self._problem = f"nothing in the charset {task.charset} can be drawn"
            return
        with uninterrupted():  # whoever started this ends it
            self._process.start()
        theirs.close()
        self._receiver.start()

    def take(self, seconds: float) -> Drawn:
        """What there is, once all is drawn or time is up.

        Args:
            seconds: to wait at most.
        """
        end = time.monotonic() + seconds
        while self._receiver.is_alive() and (left := end - time.monotonic()) > 0:
            self._receiver.join(min(left, 0.5))
        chunks = list(self._chunks)
        count = sum(len(pixels) for pixels, _ in chunks)
        if count < self._count and not self._problem:
            late = self._receiver.is_alive()
            why = f"in {seconds:.0f} s" if late else "before drawing failed"
            self._problem = f"{count} of {self._count} images were drawn {why}"
        if not chunks:
            none = np.zeros((0, HEIGHT, WIDTH), np.float16)
            return Drawn(none, np.zeros((0, self._task.length), np.int32), self._problem)
        pixels, classes = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
        places = [self._task.charset.index(c) for c in self._charset]
        translated = np.array([*places, len(self._task.charset)], np.int32)[classes]
        images = (pixels / np.float32(255)).astype(np.float16)
        return Drawn(images, translated, self._problem)

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        if self._process.pid is not None:
            self._process.terminate()
            self._process.join()
        if self._receiver.ident is not None:
            self._receiver.join()
        self._pipe.close()

    def _receive(self) -> None:
        try:
            while True:
                received = self._pipe.recv()
                if isinstance(received, str):
                    self._problem = received
                    return
                self._chunks.append(received)
        except (EOFError, OSError):
            return


@contextmanager
def drawing(task: Task, seed: int, share: float) -> Iterator[Drawing | None]:
    """Start drawing, if a share of the training images is to be drawn, and clean up afterwards."""
    if not share:
        yield None
        return
    started = Drawing(task, seed, POOL)
    try:
        yield started
    finally:
        started.stop()


class Pipe(Protocol):
    """Where chunks are sent, and a line on why there are no more."""

    def send(self, obj: Any, /) -> None:
        """Send one thing."""


def draw(pipe: Pipe, seed: int, count: int, charset: str, lengths: tuple[int, int]) -> None:
    """What the process does.

    Args:
        pipe: told of each chunk, and of what keeps it from drawing.
        seed: of typefaces and images.
        count: how many images.
        charset: what they show, in the order of the classes.
        lengths: shortest and longest text.
    """
    with uninterrupted():
        try:
            from trainer.drawing import Synthesizer  # noqa: PLC0415 - only this process draws

            drawer = Synthesizer(charset, lengths, _some_faces(seed))
            for number in range(math.ceil(count / CHUNK)):
                pipe.send(drawer.chunk(seed, number, min(CHUNK, count - number * CHUNK), 1.0))
        except BrokenPipeError:
            return
        except (OSError, ImportError) as e:
            pipe.send(str(e))


def _some_faces(seed: int) -> tuple[Typeface, ...]:
    """A few of the system's typefaces: to look through all of them takes half a minute.

    Raises:
        FileNotFoundError: when there are none.
    """
    from trainer.fonts import FOLDERS, PLAIN, PLAIN_WEIGHT, Typeface, font_files, legible  # noqa: PLC0415

    files = font_files(FOLDERS)
    paths = legible(random.Random(seed).sample(files, min(FACES, len(files))))
    if not paths:
        raise FileNotFoundError(f"no typefaces in {' or '.join(map(str, FOLDERS))}")
    plain = [bool(PLAIN.search(str(path.parent))) for path in paths]
    return tuple(
        Typeface(str(path), PLAIN_WEIGHT if common else 1.0, common)
        for path, common in zip(paths, plain, strict=True)
    )
