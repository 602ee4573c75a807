"""All answers that a site has judged, in columns: for looking at long histories at small cost.

A line of the attempts files takes some 200 bytes here, all in all; a site's history is looked at
without reading its images.
"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from scrapy_captcha.attempts import (
    ACCEPTED,
    CANARY_ACCEPTED,
    CANARY_REJECTED,
    IMPROBABLE,
    QUARANTINED,
    REJECTED,
    attempt_files,
    complete_lines,
    parse_attempt,
)
from scrapy_captcha.naming import encode_label

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from scrapy_captcha.attempts import Attempt

_CODES = (ACCEPTED, REJECTED, QUARANTINED, CANARY_ACCEPTED, CANARY_REJECTED, IMPROBABLE)
#: The last second that a time can have.
_LATEST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()


@dataclass(frozen=True)
class Answers:
    """What the site judged, the oldest first; all arrays are of one length.

    :ivar times: seconds since 1970
    :ivar accepted: what the site said
    :ivar models: index into ``names`` of the model that read it
    :ivar confidences: the reader's, 0 to 1
    :ivar images: the first 16 digits of the image's sha256, as a number
    :ivar names: hashes of the models, in the order of their first answers
    :ivar sites: the rules' keys, the most frequent first
    :ivar confirmed: names, without extension, of files in ``confirmed/`` whose label the site gave
    :ivar canaries: how many answers known to be wrong were accepted, and how many rejected
    :ivar quarantined: whether the site's word does not count at present
    :ivar notes: what is odd in the files, a line each
    :ivar unreadable: files that could not be read, and why
    """

    times: np.ndarray
    accepted: np.ndarray
    models: np.ndarray
    confidences: np.ndarray
    images: np.ndarray
    names: tuple[str, ...]
    sites: tuple[str, ...]
    confirmed: frozenset[str]
    canaries: tuple[int, int]
    quarantined: bool
    notes: tuple[str, ...]
    unreadable: tuple[str, ...]


def read_answers(site_dir: Path) -> Answers:
    """Read a site's attempts files; what cannot be read is noted, and the rest counts."""
    columns = _Columns()
    for path in attempt_files(site_dir):
        try:
            columns.read(path)
        except OSError as e:
            columns.unreadable.append(f"{path}: {e.strerror or e}")
    return columns.in_order()


class _Columns:
    """Lines as they come, file by file."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.unreadable: list[str] = []
        self._times = array("d")
        self._codes = bytearray()
        self._models = array("L")
        self._confidences = array("d")
        self._images = array("Q")
        self._words: list[str] = []
        self._known: dict[str, int] = {}
        self._sites: Counter[str] = Counter()

    def read(self, path: Path) -> None:
        latest, odd, end = 0.0, 0, 0
        for line, end in complete_lines(path):  # noqa: B007  # the last one's is wanted
            attempt = parse_attempt(line)
            if attempt is None:
                odd += 1
                continue
            # a clock that was set back does not turn a file's order round
            latest = max(latest, _seconds(attempt.time))
            self._add(attempt, latest)
        if odd:
            self.notes.append(f"{path}: {odd} {'line is' if odd == 1 else 'lines are'} no attempt")
        if path.stat().st_size > end:
            self.notes.append(f"{path}: its last line is torn, or being written")

    def _add(self, attempt: Attempt, time: float) -> None:
        guess = attempt.guess
        label = guess if guess.isalnum() and guess.isascii() else encode_label(guess)
        self._times.append(time)
        self._codes.append(_CODES.index(attempt.verdict))
        self._models.append(self._known.setdefault(attempt.model, len(self._known)))
        self._confidences.append(float(min(1, max(0, attempt.confidence))))
        self._images.append(int(attempt.image[:16], 16))
        self._words.append(f"{label}_{attempt.image[:16]}")
        self._sites[attempt.site] += 1

    def in_order(self) -> Answers:
        times = np.asarray(self._times, np.float64)
        order = np.argsort(times, kind="stable")
        codes = np.frombuffer(bytes(self._codes), np.uint8)
        answers, confirmed, quarantined = self._judged(order.tolist())
        order = np.asarray(answers, np.int64)
        models, names = _renumbered(np.asarray(self._models)[order], list(self._known))
        return Answers(
            times=times[order],
            accepted=codes[order] != _CODES.index(REJECTED),
            models=models,
            confidences=np.asarray(self._confidences, np.float64)[order],
            images=np.asarray(self._images, np.uint64)[order],
            names=names,
            sites=tuple(site for site, _ in self._sites.most_common()),
            confirmed=frozenset(confirmed),
            canaries=(
                self._codes.count(_CODES.index(CANARY_ACCEPTED)),
                self._codes.count(_CODES.index(CANARY_REJECTED)),
            ),
            quarantined=quarantined,
            notes=tuple(self.notes),
            unreadable=tuple(self.unreadable),
        )

    def _judged(self, order: Iterable[int]) -> tuple[list[int], set[str], bool]:
        """The lines that are answers of their own, whose word counts, and if the next would."""
        answers: list[int] = []
        confirmed: set[str] = set()
        quarantined = False
        for i in order:
            verdict = _CODES[self._codes[i]]
            if verdict == QUARANTINED and self._words[i] in confirmed:
                confirmed.discard(self._words[i])  # an earlier answer's image was moved
                continue
            if verdict in (ACCEPTED, REJECTED, QUARANTINED):
                answers.append(i)
                if verdict == ACCEPTED:
                    confirmed.add(self._words[i])
            else:
                quarantined = verdict != CANARY_REJECTED
        return answers, confirmed, quarantined


def _seconds(time: str) -> float:
    """Seconds since 1970; 0 for what is no time."""
    try:
        moment = datetime.fromisoformat(time)
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return 0.0
    return min(seconds, _LATEST)


def _renumbered(models: np.ndarray, names: list[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Models numbered by when they were first used, whichever file came first."""
    used, first, where = np.unique(models, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    by_rank = used[np.argsort(first)]
    return rank[where], tuple(names[i] for i in by_rank)
