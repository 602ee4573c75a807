"""A reader process: reads batches that come over a socket until it is closed.

The service starts it as ``python -P -m scrapy_captcha.service.reader SECONDS BUNDLE VERSION...``
with the socket as its standard input; the versions, which may be empty, are those that were read
with before. The process decodes images from anywhere, so it may die or hang
without harm to anything but itself: the front replaces it.
"""

from __future__ import annotations

import gc
import logging
import os
import re
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from scrapy_captcha.bundle import MANIFEST, MODEL, resolve
from scrapy_captcha.errors import BundleError, ImageError
from scrapy_captcha.recognizer import ANY_LENGTH, AUTO, FOUR, Recognizer
from scrapy_captcha.service.messages import (
    FAILED,
    READ,
    UNREADABLE,
    Answer,
    Described,
    Frames,
    ModelState,
    decode_batch,
    encode_answers,
    encode_models,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scrapy_captcha.service.messages import Task

logger = logging.getLogger(__name__)

#: Lower priority than the front's, so that it refuses what is too much without delay.
NICENESS = 5
#: Below what makes the allocator ask the system for memory of its own at each call.
_CHUNK = 1 << 16
#: Where in memory an object is, as some of Pillow's messages say, is nobody's business.
_ADDRESS = re.compile(r" ?<[^<>]* at 0x[0-9a-f]+>", re.IGNORECASE)

#: What tells one version of a bundle from another: folder, times and sizes.
Version = tuple[tuple[Path, int, int], ...]


class LoadedModel:
    """A model and, once there is one, its newer version.

    :param source: ``"auto"``, a shipped name or the path of a bundle
    :param before: the version that other readers have, which stays if the current one is damaged
    """

    def __init__(self, source: str, before: str = "") -> None:
        self._source = source
        self._seen: Version | None = None
        self._error = ""
        self.recognizer: Recognizer | None = None
        self.look()
        if self.recognizer is None and before:
            self._go_back(before)

    @property
    def state(self) -> ModelState:
        """What the front is told."""
        reader = self.recognizer
        if reader is None:
            return ModelState(None, self._error)
        manifest, folder = reader.manifest, reader.bundle.folder
        described = Described(manifest.charset, manifest.length, manifest.min_length, manifest.case)
        version = folder.name if folder.parent == Path(self._source).expanduser() else ""
        return ModelState(reader.model_hash, self._error, described, version)

    def look(self) -> bool:
        """Load the current version if it is a new one; the old one stays if that fails.

        :return: whether the state is another one now
        """
        before = self.state
        version = None
        try:
            version = version_of(self._source)
            if version != self._seen:
                self.recognizer = Recognizer.load(self._source)
                self._error = ""
        except (BundleError, OSError, MemoryError) as e:
            self._error = str(e) or type(e).__name__
        self._seen = version  # what failed once is not loaded again every second
        return self.state != before

    def _go_back(self, version: str) -> None:
        try:
            self.recognizer = Recognizer.load(Path(self._source).expanduser() / version)
        except (BundleError, OSError, MemoryError) as e:
            self._error += f"; nor does the version before: {str(e) or type(e).__name__}"


def version_of(source: str) -> Version:
    """What changes when a bundle is promoted, or replaced where it is.

    :raises BundleError: when there is no bundle
    :raises OSError: when a file of it is missing
    """
    names = (FOUR, ANY_LENGTH) if source == AUTO else (source,)
    paths = [resolve(name) / file for name in names for file in (MANIFEST, MODEL)]
    stats = [(path, path.stat()) for path in paths]
    return tuple((path, stat.st_mtime_ns, stat.st_size) for path, stat in stats)


def answer(models: Sequence[LoadedModel], task: Task) -> Answer:
    """Read one image; whatever comes of it is an answer."""
    recognizer = models[task.model].recognizer
    if recognizer is None:
        return Answer(FAILED, message="this model cannot be loaded at present")
    try:
        return Answer(READ, recognizer.read(task.image, task.charset, task.length))
    except ImageError as e:
        return Answer(UNREADABLE, message=f"not an image: {_ADDRESS.sub('', str(e))}")
    except ValueError as e:
        return Answer(UNREADABLE, message=str(e))
    except Exception:
        logger.exception("An image of %d bytes could not be read", len(task.image))
        return Answer(FAILED, message="the image could not be read")


def serve(connection: socket.socket, models: Sequence[LoadedModel], stuck: float) -> None:
    """Answer batches until the connection is closed.

    :param stuck: seconds for a batch, after which the system ends the process: a front that was
        killed can no longer do it
    """
    connection.sendall(encode_models([model.state for model in models]))
    frames = Frames()
    while data := connection.recv(_CHUNK):
        for payload in frames.feed(data):
            tasks = decode_batch(payload)
            changed = [] if tasks else [model for model in models if model.look()]
            if changed:
                connection.sendall(encode_models([model.state for model in models]))
                _settle_memory()
            _alarm(stuck)
            answers = [answer(models, task) for task in tasks]
            _alarm(0)
            connection.sendall(encode_answers(answers))


def _settle_memory() -> None:
    """Leave what stays for good out of the garbage collector's rounds."""
    gc.collect()
    gc.freeze()


def _alarm(seconds: float) -> None:
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_REAL, seconds)  # its default action ends the process


def _connection() -> socket.socket:
    if sys.platform != "win32":
        return socket.socket(fileno=0)
    return socket.fromshare(sys.stdin.buffer.read())


def main() -> None:
    """Run a reader; its end is the connection's."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # they mean the front, which lets its readers finish
    if sys.platform != "win32":
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        with suppress(OSError):
            os.nice(NICENESS)
    logging.basicConfig(format="%(levelname)s [reader %(process)d] %(message)s")
    stuck, *words = sys.argv[1:]
    models = [LoadedModel(*pair) for pair in zip(words[::2], words[1::2], strict=True)]
    _settle_memory()
    with _connection() as connection, suppress(ConnectionError):
        serve(connection, models, float(stuck))


if __name__ == "__main__":
    main()
