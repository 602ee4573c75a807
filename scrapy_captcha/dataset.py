"""The labelled dataset: the image of every attempt, and what the site said to the reading of it.

A site's folder holds ``confirmed/<label>_<sha256[:16]>.<ext>``, ``rejected/<sha256[:16]>.<ext>``
and the attempts files of :mod:`scrapy_captcha.attempts`. An attempt counts once its image and then
its line are on the disk; :meth:`SiteDataset.store` returns after that. Nothing here knows of
Scrapy, and everything blocks: call it in a thread.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import threading
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scrapy_captcha.attempts import (
    ACCEPTED,
    ATTEMPTS_FOLDER,
    CANARY_ACCEPTED,
    QUARANTINED,
    REJECTED,
    Attempt,
    AttemptLog,
    attempt_files,
    attempts_in_order,
    complete_lines,
    explained,
    now,
    read_attempts,
)
from scrapy_captcha.durable import make_folder, names_in, read_file, sync_folder, write_once
from scrapy_captcha.image import MAX_BYTES
from scrapy_captcha.naming import (
    CONFIRMED_FOLDER,
    DIGEST,
    QUARANTINED_FOLDER,
    REJECTED_FOLDER,
    decode_label,
    encode_label,
    image_files,
    image_suffix,
    site_folder,
    split_name,
)
from scrapy_captcha.quarantine import MARKS, settle, weigh

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoreResult:
    """What became of an attempt.

    :param new: no file held this image under this label (or at all, if rejected) before
    :param path: the file that holds it
    :param conflict: the image is confirmed under another label as well
    :param counts: the site's word for it is taken, which it is not in quarantine
    """

    new: bool
    path: Path
    conflict: bool
    counts: bool = True


@dataclass(frozen=True)
class Pair:
    """A labelled image; ``sha256`` (hex) is of the file's bytes."""

    path: Path
    label: str
    sha256: str


@dataclass(frozen=True)
class Conflict:
    """One image under several labels, ``labels[i]`` that of ``paths[i]``.

    It is not to be trained on until the files under all labels but one are gone.
    """

    sha256: str
    labels: tuple[str, ...]
    paths: tuple[Path, ...]


@dataclass(frozen=True)
class Rejection:
    """An image that was read wrongly, and that nobody has read right since.

    :param guesses: what the site rejected, each text once, the first one first
    """

    path: Path
    sha256: str
    guesses: tuple[str, ...]


class Dataset:
    """The folder of all sites' datasets; nothing is made before the first image is stored."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self._sites: dict[tuple[str, str], SiteDataset] = {}

    def site(self, key: str, folder: str | None = None) -> SiteDataset:
        """The dataset of a site.

        :param key: the rule's key
        :param folder: the rule's ``dataset``, the plain name of a sub-folder
        """
        name = folder or site_folder(key)
        site = self._sites.get((key, name)) or SiteDataset(key, self.root / name)
        return self._sites.setdefault((key, name), site)

    def close(self) -> None:
        """Close this process's attempts files; a later store opens new ones."""
        for site in list(self._sites.values()):
            site.close()


class SiteDataset:
    """One site's images and attempts; safe to share between threads and forked processes."""

    def __init__(self, key: str, path: Path) -> None:
        self.key = key
        self.path = path
        self._opened = now()
        self._prepared = False
        self._journals: dict[int, _Journal] = {}

    def store(
        self, image: bytes, guess: str, confidence: float, model: str, verdict: str
    ) -> StoreResult:
        """Keep an image with the site's verdict; on return both are on the disk.

        :param image: the original bytes
        :raises DatasetError: when the disk refuses. The attempt may then be stored or not, and
            can be stored again; no image is torn under its name, and no line is
        """
        if verdict not in (ACCEPTED, REJECTED):
            raise ValueError(f"expected {ACCEPTED!r} or {REJECTED!r} as verdict, got {verdict!r}")
        if not math.isfinite(confidence):
            raise ValueError(f"expected a finite confidence, got {confidence!r}")
        accepted = verdict == ACCEPTED
        if accepted and self.quarantined:
            verdict = QUARANTINED
        attempt = self._attempt(image, guess, confidence, model, verdict)
        name = f"{attempt.image[:16]}{image_suffix(image)}"
        if accepted:
            folder = CONFIRMED_FOLDER if verdict == ACCEPTED else QUARANTINED_FOLDER
            path = self.path / folder / f"{encode_label(guess)}_{name}"
        else:
            path = self.path / REJECTED_FOLDER / name
        with explained(path):
            self._prepare(path.parent)
            new = write_once(path, image)
        with explained(self.path / ATTEMPTS_FOLDER):
            labels = self._journal().add(attempt)
        conflict = verdict == ACCEPTED and any(label != encode_label(guess) for label in labels)
        return StoreResult(new, path, conflict, verdict != QUARANTINED)

    @property
    def quarantined(self) -> bool:
        """Whether what the site accepts does not count, as far as this process knows."""
        return self._journal().quarantined

    def testify(
        self,
        image: bytes,
        guess: str,
        confidence: float,
        model: str,
        verdict: str,
        *,
        since: str | None = None,
    ) -> int:
        """Write down what tells how much the site's word is worth, and act on it.

        :param verdict: one of :data:`scrapy_captcha.quarantine.MARKS`
        :param since: for ``improbable``: from when on the site's word does not count; an accepted
            canary of a site that never rejected one speaks of what came since this was made
        :return: how many confirmed images were taken back
        :raises DatasetError: when the disk refuses; :meth:`settle` goes on where it stopped
        """
        if verdict == CANARY_ACCEPTED:
            since = self._opened
        attempt = self._attempt(image, guess, confidence, model, verdict, since=since)
        with explained(self.path / ATTEMPTS_FOLDER):
            self._prepare(self.path / ATTEMPTS_FOLDER)
            self._journal().add(attempt)
        return 0 if self._journal().settled else self.settle()

    def settle(self) -> int:
        """Complete what canaries have begun; how many confirmed images were taken back for it.

        :raises DatasetError: when the disk refuses
        """
        return self._journal().settle()

    def count_attempts(self) -> int:
        """How many attempts everybody has stored here so far: the whole lines of all files."""
        with explained(self.path / ATTEMPTS_FOLDER):
            return sum(1 for path in attempt_files(self.path) for _ in complete_lines(path))

    def close(self) -> None:
        """Close this process's attempts file; a later store opens a new one."""
        self._journal().close()

    def _attempt(
        self,
        image: bytes,
        guess: str,
        confidence: float,
        model: str,
        verdict: str,
        *,
        since: str | None = None,
    ) -> Attempt:
        return Attempt(
            time=now(),
            site=self.key,
            image=hashlib.sha256(image).hexdigest(),
            guess=guess,
            confidence=float(confidence),
            model=model,
            verdict=verdict,
            since=since,
        )

    def _prepare(self, folder: Path) -> None:
        """Have the site's folders, and know them to be durable whoever made them."""
        if self._prepared and folder.is_dir():
            return
        make_folder(folder)
        for name in (CONFIRMED_FOLDER, REJECTED_FOLDER, ATTEMPTS_FOLDER):
            make_folder(self.path / name)
        for parent in (self.path, *self.path.parents[:2]):
            sync_folder(parent)
        self._prepared = True

    def _journal(self) -> _Journal:
        # by process, so that a fork shares neither the file nor a lock that somebody holds
        pid = os.getpid()
        return self._journals.get(pid) or self._journals.setdefault(pid, _Journal(self.path))


class _Journal:
    """What one process writes down of a site, and what anybody else does.

    :ivar quarantined: whether the site's word counts for nothing at present
    :ivar settled: whether there is nothing to take back, which takes going through all attempts
    """

    def __init__(self, site_dir: Path) -> None:
        self.quarantined = False
        self.settled = False
        self._marked = ""
        self._site_dir = site_dir
        self._lock = threading.Lock()
        self._log = AttemptLog(site_dir)
        self._confirmed = site_dir / CONFIRMED_FOLDER
        self._labels: dict[int, tuple[str, ...]] = {}
        self._listed = False

    def add(self, attempt: Attempt) -> tuple[str, ...]:
        """Write an attempt's line; all labels, encoded, that its image is confirmed under."""
        with self._lock:
            self._log.append(attempt)
            for other in self._log.news():
                if other.verdict == ACCEPTED:
                    self._note(other.image, encode_label(other.guess))
                elif other.verdict in MARKS:
                    self.settled = self.settled and MARKS[other.verdict]
                    if other.time >= self._marked:
                        self._marked, self.quarantined = other.time, not MARKS[other.verdict]
            if not self._listed:  # after the news, which leave out writers that have ended
                for name in names_in(self._confirmed):
                    label, digest = split_name(self._confirmed / name)
                    if digest:
                        self._note(digest, label)
                self._listed = True
            return self._labels.get(int(attempt.image[:16], 16), ())

    def settle(self) -> int:
        with self._lock:
            time = now()
            moved, self.quarantined = settle(self._site_dir, self._log)
            self._marked, self.settled = time, not self.quarantined
            return moved

    def close(self) -> None:
        with self._lock:
            self._log.close()

    def _note(self, digest: str, label: str) -> None:
        image = int(digest[:16], 16)
        labels = self._labels.get(image, ())
        if label not in labels:
            self._labels[image] = (*labels, label)


def confirmed_pairs(site_dir: Path) -> tuple[list[Pair], list[Conflict]]:
    """The labelled images of a site, each image once, and those with more than one label.

    A file in ``confirmed/`` whose image no site accepted under its label was labelled by hand, and
    outranks what the site said of that image; so was one that came back from ``quarantined/``.
    What has to go there and has not yet is left out, and so are, with a warning, files that do not
    match the hash in their name, or cannot be read.

    :raises DatasetError: when an attempts file or a folder cannot be read
    """
    words = weigh(attempts_in_order(site_dir))
    site_said: dict[str, dict[str, str]] = defaultdict(dict)
    for image, guess in words.valid:
        site_said[image][encode_label(guess)] = guess
    pending = {(image, encode_label(guess)) for image, guess in words.pending}
    by_site: dict[str, list[Pair]] = defaultdict(list)
    by_hand: dict[str, list[Pair]] = defaultdict(list)
    with explained(site_dir):
        for path in image_files(site_dir / CONFIRMED_FOLDER):
            encoded, digest = split_name(path)
            sha256 = _hash(path, digest)
            if not sha256:
                continue
            if (sha256, encoded) in pending:
                continue
            said = site_said.get(sha256, {}).get(encoded)
            try:
                pair = Pair(path, decode_label(encoded) if said is None else said, sha256)
            except ValueError as e:
                logger.warning("%s has no label: %s; left out", path, e)
                continue
            (by_hand if said is None else by_site)[sha256].append(pair)
    pairs, conflicts = [], []
    for sha256, found in sorted((by_site | by_hand).items()):
        labels = tuple(pair.label for pair in found)
        if len(set(labels)) == 1:
            pairs.append(found[0])
        else:
            conflicts.append(Conflict(sha256, labels, tuple(pair.path for pair in found)))
    return pairs, conflicts


def rejections(site_dir: Path) -> list[Rejection]:
    """The images of a site of which only wrong readings are known, by their hash.

    Images with a label, or with several, are left out; so are, with a warning, files that do not
    match the hash in their name, or cannot be read.

    :raises DatasetError: when an attempts file or a folder cannot be read
    """
    pairs, conflicts = confirmed_pairs(site_dir)
    labelled = {pair.sha256 for pair in pairs} | {conflict.sha256 for conflict in conflicts}
    guesses: dict[str, dict[str, None]] = defaultdict(dict)
    for attempt in read_attempts(site_dir):
        if attempt.verdict == REJECTED and attempt.image not in labelled:
            guesses[attempt.image][attempt.guess] = None
    found = {}
    with explained(site_dir):
        for path in image_files(site_dir / REJECTED_FOLDER):
            sha256 = _hash(path, path.stem if DIGEST.fullmatch(path.stem) else "")
            if sha256 in guesses:
                found[sha256] = Rejection(path, sha256, tuple(guesses[sha256]))
    return [found[sha256] for sha256 in sorted(found)]


def _hash(path: Path, digest: str) -> str:
    """The sha256 of an image's file; empty, with a warning, when it is none that can be used.

    :param digest: the first digits, if the file's name says them
    """
    try:
        sha256 = hashlib.sha256(read_file(path, MAX_BYTES)).hexdigest()
    except FileNotFoundError:  # moved away meanwhile
        return ""
    except OSError as e:
        logger.warning("%s cannot be read: %s; left out", path, e.strerror or e)
        return ""
    if not sha256.startswith(digest):
        logger.warning("%s is not the image that its name says; left out", path)
        return ""
    return sha256
