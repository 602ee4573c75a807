"""Endless synthetic captchas, prepared exactly as the crawl prepares an image.

Chunk ``i`` of a stream depends on the seed and on ``i`` alone, so the stream is the same for any
number of worker processes.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import random
import threading
from dataclasses import dataclass
from io import BytesIO
from itertools import cycle
from queue import Queue
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from scrapy_captcha.errors import CaptchaError, DatasetError
from scrapy_captcha.page import check_place
from trainer.corpus import SUFFIXES
from trainer.drawing import ALNUM, Chunk, Synthesizer
from trainer.quiet import uninterrupted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess
    from pathlib import Path

    from numpy.typing import NDArray

#: Images in one unit of work of a worker.
CHUNK = 256
#: How many finished chunks a worker may be ahead.
AHEAD = 4


@dataclass(frozen=True)
class _Task:
    """What a worker draws: chunks of some numbers, with clutter that rises over ``ramp`` images."""

    seed: int
    indices: range
    count: int
    ramp: int

    def run(self, drawer: Synthesizer, index: int) -> Chunk:
        drawn = index * self.count
        busy = 0.15 + 0.85 * drawn / self.ramp if drawn < self.ramp else 1.0
        return drawer.chunk(self.seed, index, self.count, busy)


def _work(pipe: Connection, drawer: Synthesizer, task: _Task) -> None:
    drawn: Queue[Chunk] = Queue(AHEAD)
    threading.Thread(target=_send, args=(pipe, drawn), daemon=True).start()
    for index in task.indices:
        drawn.put(task.run(drawer, index))


def _send(pipe: Connection, drawn: Queue[Chunk]) -> None:
    try:
        while True:
            pipe.send(drawn.get())
    except OSError:  # whom it was for has been killed
        os._exit(0)


def chunks(
    *,
    seed: int,
    charset: str,
    length: tuple[int, int],
    batch: int = CHUNK,
    workers: int = 1,
    start: int = 0,
    ramp: int = 0,
) -> Iterator[Chunk]:
    """Endless prepared images as uint8, as `Synthesizer.chunk` gives them.

    Args:
        seed: of everything.
        charset: the labels' characters, in the order of the classes.
        length: shortest and longest text.
        batch: images in a chunk.
        workers: processes that draw; 0 draws in this one.
        start: the first chunk's number, to go on where an earlier run stopped.
        ramp: over how many images clutter and damage rise from little to full.

    Raises:
        CaptchaError: when there is something in the charset that cannot be drawn, or a process ends
            before its time.

    """
    drawer = Synthesizer(charset, length)
    tasks = [
        _Task(seed, range(start + i, 1 << 62, max(1, workers)), batch, ramp)
        for i in range(max(1, workers))
    ]
    if workers < 1:
        yield from (tasks[0].run(drawer, index) for index in tasks[0].indices)
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe(duplex=False) for _ in tasks]
    processes = [
        context.Process(target=_work, args=(theirs, drawer, task), daemon=True)
        for (_, theirs), task in zip(pipes, tasks, strict=True)
    ]
    with uninterrupted():  # whoever started them ends them
        for process, (_, theirs) in zip(processes, pipes, strict=True):
            process.start()
            theirs.close()  # else its end would not be noticed
    try:
        for (ours, _), process in cycle(zip(pipes, processes, strict=True)):
            yield _next(ours, process)
    finally:
        for process in processes:
            process.terminate()
        for process, (ours, _) in zip(processes, pipes, strict=True):
            process.join()
            ours.close()


def _next(pipe: Connection, process: BaseProcess) -> Chunk:
    try:
        chunk: Chunk = pipe.recv()
    except (EOFError, OSError):
        process.join()
        raise CaptchaError(
            f"a process that draws captchas ended with code {process.exitcode}, perhaps for want "
            "of memory: give the same command again, with fewer --workers if it happens again"
        ) from None
    return chunk


def stream(
    *,
    seed: int,
    charset: str = ALNUM,
    length: tuple[int, int] = (4, 4),
    batch: int = CHUNK,
    workers: int = 1,
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int32]]]:
    """Endless batches for a network.

    Args:
        seed: of everything.
        charset: the labels' characters, in the order of the classes.
        length: shortest and longest text; if they differ, the class after the last character is the
            blank that fills short texts up.
        batch: images in a batch.
        workers: processes that draw; 0 draws in this one.

    Yields:
        Images float32 (batch, 32, 90, 1) in [0, 1], and labels int32 (batch, heads).

    """
    for pixels, labels in chunks(
        seed=seed, charset=charset, length=length, batch=batch, workers=workers
    ):
        yield (pixels[..., None] / np.float32(255)).astype(np.float32), labels


def encoded(image: Image.Image) -> bytes:
    """An image as PNG bytes."""
    buffer = BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def write_images(
    out: Path, count: int, seed: int, charset: str = ALNUM, length: tuple[int, int] = (4, 4)
) -> None:
    """Write ``LABEL_number.png`` files, a plain dataset.

    Args:
        out: the folder, made if missing.
        count: how many.
        seed: of everything.
        charset: the labels' characters.
        length: shortest and longest text.

    Raises:
        CaptchaError: when there is something in the charset that cannot be drawn, or the disk
            refuses.

    """
    drawer, rng = Synthesizer(charset, length), random.Random(seed)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image, text = drawer.draw(rng)
            (out / f"{text}_{number:06d}.png").write_bytes(encoded(image))
    except OSError as e:
        raise DatasetError(f"cannot write images to {out}: {e.strerror or e}") from None


def check_sheet(path: Path) -> None:
    """Make sure that a contact sheet could be written there, before it is drawn.

    Raises:
        DatasetError: when it is no place for a file, or no image's name.

    """
    if path.suffix.lower() not in SUFFIXES:
        raise DatasetError(
            f"expected a sheet's name to end in {', '.join(sorted(SUFFIXES))}, got {path}"
        )
    check_place(path, "sheet")


def contact_sheet(
    path: Path,
    seed: int,
    charset: str = ALNUM,
    length: tuple[int, int] = (4, 4),
    *,
    columns: int = 10,
    rows: int = 16,
) -> None:
    """Write one picture of many styles, each beside what the network is shown of it."""
    drawer, rng = Synthesizer(charset, length), random.Random(seed)
    cell_width, cell_height = 150, 50
    sheet = Image.new(
        "RGB", (columns * (cell_width + 4), rows * (cell_height + 4)), (128, 128, 128)
    )
    for cell in range(columns * rows):
        image, _ = drawer.draw(rng)
        scale = min(cell_width / image.width, cell_height / image.height)
        shown = image.resize((math.floor(image.width * scale), math.floor(image.height * scale)))
        sheet.paste(shown, (cell % columns * (cell_width + 4), cell // columns * (cell_height + 4)))
    sheet.save(path)
