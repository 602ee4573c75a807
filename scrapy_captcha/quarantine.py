"""Which of a site's words do not count, and where their images go.

A site that accepts whatever it is sent would teach a model nonsense. An accepted canary, an answer
that was known to be wrong, takes back what the site has accepted since the last canary that it
rejected, and what it accepts until it rejects one again; if it never rejected any, what it has
accepted since that crawl began, for of earlier ones nothing is known. A line ``improbable`` does
the same from a given time on.

The line comes first; then the images are moved from ``confirmed/`` to ``quarantined/``; then a line
``quarantined`` follows for each of them. So a crash in between leaves pairs that are known not to
count, and :func:`settle` completes the work. A file that somebody moves back after that counts as
labelled by hand.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from scrapy_captcha.attempts import (
    ACCEPTED,
    CANARY_ACCEPTED,
    CANARY_REJECTED,
    IMPROBABLE,
    QUARANTINED,
    Attempt,
    attempts_in_order,
    explained,
    now,
)
from scrapy_captcha.durable import make_folder, names_in, sync_folder
from scrapy_captcha.naming import CONFIRMED_FOLDER, QUARANTINED_FOLDER, encode_label

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from scrapy_captcha.attempts import AttemptLog

#: Verdicts after which the site's word counts, or does not count, for what comes next.
MARKS = {CANARY_REJECTED: True, CANARY_ACCEPTED: False, IMPROBABLE: False}

#: An image (sha256) and the text under which it was accepted.
Word = tuple[str, str]


@dataclass(frozen=True)
class Words:
    """What a site has accepted, and what of it counts.

    :param valid: what counts
    :param pending: what does not, and still has to be moved
    :param quarantined: whether what the site accepts next does not count either
    """

    valid: Mapping[Word, Attempt]
    pending: Mapping[Word, Attempt]
    quarantined: bool


def weigh(attempts: Iterable[Attempt]) -> Words:
    """Go through a site's attempts, the oldest first."""
    valid: dict[Word, Attempt] = {}
    pending: dict[Word, Attempt] = {}
    unproven: list[Attempt] = []
    quarantined = tried = False
    for attempt in attempts:
        word = attempt.image, attempt.guess
        if attempt.verdict == ACCEPTED and quarantined:
            pending[word] = attempt
        elif attempt.verdict == ACCEPTED:
            unproven.append(attempt)
        elif attempt.verdict == QUARANTINED:
            pending.pop(word, None)
        elif attempt.verdict == CANARY_REJECTED:
            valid |= {(a.image, a.guess): a for a in unproven}
            unproven, quarantined, tried = [], False, True
        elif attempt.verdict in (CANARY_ACCEPTED, IMPROBABLE):
            since = "" if tried and attempt.verdict == CANARY_ACCEPTED else attempt.since or ""
            pending |= {(a.image, a.guess): a for a in unproven if a.time >= since}
            unproven = [a for a in unproven if a.time < since]
            quarantined = True
    valid |= {(a.image, a.guess): a for a in unproven}
    return Words(valid, {w: a for w, a in pending.items() if w not in valid}, quarantined)


def settle(site_dir: Path, log: AttemptLog) -> tuple[int, bool]:
    """Move what does not count out of ``confirmed/``, and write down that it was moved.

    :return: how many words were taken back, and whether the site is in quarantine
    :raises DatasetError: when the disk refuses; called again, it goes on
    """
    words = weigh(attempts_in_order(site_dir))
    if not words.pending:
        return 0, words.quarantined
    confirmed, quarantined = site_dir / CONFIRMED_FOLDER, site_dir / QUARANTINED_FOLDER
    starts = {f"{encode_label(guess)}_{image[:16]}" for image, guess in words.pending}
    with explained(quarantined):
        make_folder(quarantined)
        for name in names_in(confirmed):
            if name.rpartition(".")[0] in starts:
                try:
                    (confirmed / name).replace(quarantined / name)
                except FileNotFoundError:  # somebody else is at it
                    continue
        sync_folder(quarantined)
        sync_folder(confirmed)
        time = now()
        log.append(*(replace(a, verdict=QUARANTINED, time=time) for a in words.pending.values()))
    return len(words.pending), words.quarantined
