"""The attempts files of a site's dataset: one JSON line an attempt, one writer a file.

``attempts/<host>-<pid>-<uuid>.jsonl`` are the authority on what a site said. A line is written in
one piece and synced before it counts; a last line without its end belongs to a writer that was
killed or is just writing, and no reader takes it for an attempt.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING

from scrapy_captcha.durable import (
    create,
    make_folder,
    open_file,
    sync_folder,
    unique_name,
    writer_gone,
)
from scrapy_captcha.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

logger = logging.getLogger(__name__)

SCHEMA = 1
ACCEPTED, REJECTED = "accepted", "rejected"
#: The verdict on an answer that was known to be wrong; its image is not kept.
CANARY_ACCEPTED, CANARY_REJECTED = "canary_accepted", "canary_rejected"
#: What was accepted ``since`` then was too good to be true. The line is no answer of its own.
IMPROBABLE = "improbable"
#: The site's word for this label of this image does not count: its file is in ``quarantined/``.
QUARANTINED = "quarantined"
VERDICTS = frozenset(
    {ACCEPTED, REJECTED, CANARY_ACCEPTED, CANARY_REJECTED, IMPROBABLE, QUARANTINED}
)
ATTEMPTS_FOLDER = "attempts"
#: A line has some 350 bytes; one of more than this is none of ours.
MAX_LINE = 1 << 16

_SHA256 = re.compile(r"[0-9a-f]{64}")
_ADVICE = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "the quota is used up: free some space",
    errno.EIO: "the disk reports errors: check it",
    errno.EROFS: "the file system is read-only: remount it",
    errno.EACCES: "allow this user to write there",
    errno.EPERM: "allow this user to write there",
    errno.EMFILE: "too many open files: raise the limit",
}


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One answer that was submitted, and the site's verdict.

    :param time: when the verdict was stored, ISO 8601 in UTC
    :param site: the rule's key
    :param image: sha256 (hex) of the image's original bytes
    :param guess: the text that was submitted
    :param confidence: the reader's probability that the guess is right, 0 to 1
    :param model: hash of the model that read it
    :param verdict: one of ``VERDICTS``
    :param since: from when on the site's word does not count: of an ``improbable`` line; of a
        ``canary_accepted`` line when the site never rejected a canary
    """

    schema: int = SCHEMA
    time: str
    site: str
    image: str
    guess: str
    confidence: float
    model: str
    verdict: str
    since: str | None = None


def now() -> str:
    """The present, as it stands in an attempt."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Raise every OSError as a :class:`DatasetError` with the path and what to do about it."""
    try:
        yield
    except DatasetError:
        raise
    except OSError as e:
        code = e.errno or errno.EIO
        advice = _ADVICE.get(code, "check the folder")
        message = f"{e.strerror or e}; {advice}, or choose another folder (CAPTCHA_DATASET)"
        raise DatasetError(code, message, str(e.filename or path)) from e


def attempt_files(site_dir: Path) -> list[Path]:
    """A site's attempts files, by name."""
    folder = site_dir / ATTEMPTS_FOLDER
    return [folder / name for name in _attempt_names(folder)]


def _attempt_names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(e.name for e in entries if e.name.endswith(".jsonl") and e.is_file())
    except FileNotFoundError:
        return []


def complete_lines(path: Path, offset: int = 0) -> Iterator[tuple[bytes, int]]:
    """The lines of an attempts file from a byte on, and where each ends.

    A torn last one is left out; one that is too long to be an attempt comes empty. A file that is
    gone has none.
    """
    try:
        f = open_file(path)
    except FileNotFoundError:
        return
    with f:
        f.seek(offset)
        whole = True
        for piece in iter(partial(f.readline, MAX_LINE), b""):
            offset += len(piece)
            if piece.endswith(b"\n"):
                yield (piece if whole else b"\n"), offset
                whole = True
            else:
                whole = False


def parse_attempt(line: bytes) -> Attempt | None:
    """The attempt on a line, or None if it is not one of this schema; unknown keys are ignored."""
    try:
        data = json.loads(line)
        given = {**data, "since": data.get("since")}
        attempt = Attempt(**{f.name: given[f.name] for f in fields(Attempt)})
        whole = (
            attempt.schema == SCHEMA
            and attempt.verdict in VERDICTS
            and _SHA256.fullmatch(attempt.image) is not None
            and isinstance(attempt.confidence, float | int)
            and all(
                isinstance(text, str)
                for text in (attempt.time, attempt.site, attempt.guess, attempt.model)
            )
            and _is_since(attempt.since, attempt.verdict)
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return attempt if whole else None


def _is_since(since: object, verdict: str) -> bool:
    if since is None:
        return verdict != IMPROBABLE
    return isinstance(since, str) and verdict in {IMPROBABLE, CANARY_ACCEPTED}


def read_attempts(site_dir: Path) -> Iterator[Attempt]:
    """Every line of a site's attempts, file by file; within a file, the oldest comes first.

    A torn last line is left out without a word, any other line that is no attempt with a warning.

    :raises DatasetError: when a file cannot be read
    """
    with explained(site_dir):
        for path in attempt_files(site_dir):
            yield from _read_file(path)


def attempts_in_order(site_dir: Path) -> list[Attempt]:
    """Every line of a site's attempts, the oldest first, whoever wrote it.

    :raises DatasetError: when a file cannot be read
    """
    timed: list[tuple[str, Attempt]] = []
    with explained(site_dir):
        for path in attempt_files(site_dir):
            latest = ""  # a clock that was set back does not turn a file's order round
            for attempt in _read_file(path):
                latest = max(latest, attempt.time)
                timed.append((latest, attempt))
    return [attempt for _, attempt in sorted(timed, key=itemgetter(0))]


def _read_file(path: Path) -> Iterator[Attempt]:
    for number, (line, _) in enumerate(complete_lines(path), 1):
        attempt = parse_attempt(line)
        if attempt is None:
            logger.warning("Line %d of %s is not an attempt; left out", number, path)
        else:
            yield attempt


def _as_line(attempt: Attempt) -> bytes:
    data = asdict(attempt)
    if attempt.since is None:
        del data["since"]
    return json.dumps(data).encode() + b"\n"


class AttemptLog:
    """One process's attempts file of a site; not to be shared between threads."""

    def __init__(self, site_dir: Path) -> None:
        self._site_dir = site_dir
        self._path: Path | None = None
        self._descriptor = -1
        self._offsets: dict[str, int] = {}
        self._finished: set[str] = set()

    def append(self, *attempts: Attempt) -> None:
        """Write a line for each attempt, durably, and all or none of them."""
        line = b"".join(_as_line(attempt) for attempt in attempts)
        if self._path is not None and os.fstat(self._descriptor).st_nlink == 0:
            self.close()  # somebody deleted it
        if self._path is None:
            self._open()
        length = os.fstat(self._descriptor).st_size
        try:
            if os.write(self._descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._descriptor)
        except OSError:
            self._abandon(length)
            raise

    def news(self) -> list[Attempt]:
        """What any file got since the last time, but for those whose writer ended before it."""
        folder = self._site_dir / ATTEMPTS_FOLDER
        attempts: list[Attempt] = []
        for name in _attempt_names(folder):
            if name in self._finished:
                continue
            if name not in self._offsets and writer_gone(name):
                self._finished.add(name)
            else:
                attempts += self._read_on(folder / name)
        return attempts

    def close(self) -> None:
        """Close the file, if one is open; the next line opens a new one."""
        if self._path is not None:
            self._path = None
            with suppress(OSError):  # every line in it was synced
                os.close(self._descriptor)

    def _open(self) -> None:
        folder = self._site_dir / ATTEMPTS_FOLDER
        make_folder(folder)
        path = folder / f"{unique_name()}.jsonl"
        self._descriptor = create(path, os.O_APPEND)
        self._path = path
        try:
            sync_folder(folder)
        except OSError:
            self._abandon(0)
            raise

    def _abandon(self, length: int) -> None:
        """Take a failed line back, and go on in a new file.

        A line that cannot be taken back thus stays the last of its file, where readers know a
        torn one.
        """
        path = self._path
        with suppress(OSError):
            os.ftruncate(self._descriptor, length)
        self.close()
        if path is not None and not length:
            with suppress(OSError):
                path.unlink()

    def _read_on(self, path: Path) -> Iterator[Attempt]:
        offset = self._offsets.setdefault(path.name, 0)
        with suppress(FileNotFoundError):
            if path.stat().st_size <= offset:
                return
        for line, end in complete_lines(path, offset):
            self._offsets[path.name] = end
            attempt = parse_attempt(line)
            if attempt is not None:
                yield attempt
