"""What has become of a site's captchas: shares over time and by model, labels, disk use."""

from __future__ import annotations

import errno
import hashlib
import os
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import numpy as np

from scrapy_captcha.answers import Answers, read_answers
from scrapy_captcha.attempts import ATTEMPTS_FOLDER, explained
from scrapy_captcha.drift import WINDOW, Drift
from scrapy_captcha.durable import names_in, read_file
from scrapy_captcha.errors import DatasetError
from scrapy_captcha.image import MAX_BYTES
from scrapy_captcha.intervals import wilson
from scrapy_captcha.naming import (
    CONFIRMED_FOLDER,
    IMAGE_SUFFIXES,
    QUARANTINED_FOLDER,
    REJECTED_FOLDER,
    split_stem,
)
from scrapy_captcha.verify import is_site

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A history is divided into so many stretches, of at least so many answers.
STRETCHES, SHORTEST = 12, 20
#: A rolling share has at most so many points, and begins when so many answers are known.
POINTS = 600


@dataclass(frozen=True)
class Stretch:
    """Answers in a row.

    :param since: time of the first of them, in seconds since 1970
    :param until: that of the last
    """

    since: float
    until: float
    judged: int
    accepted: int

    @property
    def share(self) -> float:
        """The share accepted."""
        return self.accepted / self.judged

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of it."""
        return wilson(self.accepted, self.judged)


@dataclass(frozen=True)
class ModelUse:
    """The answers that one model read.

    :param model: its hash
    :param first: number of the first answer that it read, from 1
    :param version: folder in the site's ``model/``, if it is there
    :param current: whether that is the version that crawls load
    """

    model: str
    first: int
    answers: Stretch
    version: str | None = None
    current: bool = False


@dataclass(frozen=True)
class Labels:
    """What ``confirmed/`` holds, by the names of its files.

    :param images: the images, as the first 16 digits of their sha256, with all their labels
    :param by_hand: those of them that were labelled by hand
    :param conflicts: images with more than one label of equal rank, and the files' names
    """

    images: frozenset[int]
    by_hand: frozenset[int]
    conflicts: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class History:
    """A site's history.

    :param site: the rule's key; the folder's name, decoded, if it is not known or not one
    :param total: all judged answers, ``None`` before the first
    :param last: the last 100 of them
    :param stretches: the same in pieces of equal length
    :param curve: number of an answer, the share accepted of the last 100 up to it, and the ends
        of its 95 % interval
    :param times: when the answers were judged, in seconds since 1970
    :param drift: what has fallen, ``None`` if nothing has
    :param folders: files and bytes in each of the site's folders
    :param notes: what is odd in its files, a line each
    :param unreadable: files and folders that could not be read, and why
    """

    folder: Path
    site: str
    total: Stretch | None
    last: Stretch | None
    stretches: tuple[Stretch, ...]
    models: tuple[ModelUse, ...]
    curve: tuple[tuple[int, float, float, float], ...]
    times: np.ndarray
    drift: str | None
    labels: Labels
    canaries: tuple[int, int]
    quarantined: bool
    folders: dict[str, tuple[int, int]]
    notes: tuple[str, ...]
    unreadable: tuple[str, ...]

    def files(self, folder: str) -> int:
        """How many files a folder of the site holds."""
        return self.folders.get(folder, (0, 0))[0]

    @property
    def bytes(self) -> int:
        """What all its files take."""
        return sum(size for _, size in self.folders.values())


def site_folders(root: Path) -> list[Path]:
    """The sites' folders in a dataset, or the folder itself if it is a site's.

    :raises DatasetError: when it holds none
    """
    if not root.is_dir():
        known = "no such dataset folder" if not root.exists() else "not a folder"
        raise DatasetError(errno.ENOTDIR if root.exists() else errno.ENOENT, known, str(root))
    with explained(root):
        if is_site(root):
            return [root]
        found = [path for name in names_in(root) if is_site(path := root / name)]
    if not found:
        raise DatasetError(
            errno.ENOENT,
            "holds no site's folder; give the folder that CAPTCHA_DATASET names, or one in it",
            str(root),
        )
    return found


def image_names(folder: Path) -> Iterator[tuple[str, str]]:
    """The names of the images in a folder, with and without their extensions."""
    for name in names_in(folder):
        stem, _, suffix = name.rpartition(".")
        if f".{suffix.lower()}" in IMAGE_SUFFIXES and stem:
            yield name, stem


def look_at(site_dir: Path) -> tuple[History, Answers]:
    """A site's history, and what it was made from.

    :raises DatasetError: when a folder cannot be read
    """
    with explained(site_dir):
        answers = read_answers(site_dir)
        unreadable = list(answers.unreadable)
        labels = _labels(site_dir / CONFIRMED_FOLDER, answers, unreadable)
        folders = _disk_use(site_dir, unreadable)
    pieces = max(1, min(STRETCHES, len(answers.times) // SHORTEST))
    drift = Drift()
    for accepted in answers.accepted.tolist():
        drift.add(accepted)
    history = History(
        folder=site_dir,
        site=answers.sites[0] if len(answers.sites) == 1 else unquote(site_dir.resolve().name),
        total=_stretch(answers, slice(None)),
        last=_stretch(answers, slice(-WINDOW, None)),
        stretches=tuple(_pieces(answers, pieces)),
        models=tuple(_uses(answers, site_dir / "model")),
        curve=tuple(_curve(answers.accepted)),
        times=answers.times,
        drift=drift.describe() if drift.fallen else None,
        labels=labels,
        canaries=answers.canaries,
        quarantined=answers.quarantined,
        folders=folders,
        notes=answers.notes,
        unreadable=tuple(unreadable),
    )
    return history, answers


def _stretch(answers: Answers, which: slice | np.ndarray) -> Stretch | None:
    times, accepted = answers.times[which], answers.accepted[which]
    if not len(times):
        return None
    return Stretch(float(times[0]), float(times[-1]), len(times), int(accepted.sum()))


def _pieces(answers: Answers, number: int) -> Iterator[Stretch]:
    ends = np.linspace(0, len(answers.times), number + 1).round().astype(int).tolist()
    for start, end in pairwise(ends):
        piece = _stretch(answers, slice(start, end))
        if piece is not None:
            yield piece


def _uses(answers: Answers, bundle: Path) -> Iterator[ModelUse]:
    # a version's folder is named by its time and the first digits of its hash
    versions = {name[-8:]: name for name in names_in(bundle) if name[-9:-8] == "-"}
    try:
        current = read_file(bundle / "CURRENT", 1024).decode(errors="replace").split()[:1]
    except OSError:
        current = []
    for index, model in enumerate(answers.names):
        which = np.flatnonzero(answers.models == index)
        stretch = _stretch(answers, which)
        if stretch is not None:
            version = versions.get(model[:8])
            yield ModelUse(model, int(which[0]) + 1, stretch, version, [version] == current)


def _curve(accepted: np.ndarray) -> Iterator[tuple[int, float, float, float]]:
    sums = np.concatenate([[0], np.cumsum(accepted, dtype=np.int64)])
    total = len(accepted)
    first = min(SHORTEST, total)
    if not total:
        return
    for end in np.unique(np.linspace(first, total, min(POINTS, total)).round().astype(int)):
        n = min(WINDOW, int(end))
        hits = int(sums[end] - sums[end - n])
        yield int(end), hits / n, *wilson(hits, n)


def _labels(folder: Path, answers: Answers, unreadable: list[str]) -> Labels:
    """The labels by the names of files; only those without a hash in their name are read."""
    by_site: dict[int, str | list[str]] = {}
    by_hand: dict[int, str | list[str]] = {}
    for name, stem in image_names(folder):
        label, digits = split_stem(stem)
        if not digits:
            try:
                digits = hashlib.sha256(read_file(folder / name, MAX_BYTES)).hexdigest()[:16]
            except OSError as e:
                unreadable.append(f"{folder / name}: {e.strerror or e}")
                continue
        found = by_site if f"{label}_{digits}" in answers.confirmed else by_hand
        image = int(digits, 16)
        if image in found:  # seldom, so that most images take no list
            found[image] = [*_listed(found[image]), name]
        else:
            found[image] = name
    conflicts = {
        f"{image:016x}": tuple(names)
        for image, names in (by_site | by_hand).items()
        if isinstance(names, list)
        and len({split_stem(name.rpartition(".")[0])[0] for name in names}) > 1
    }
    return Labels(frozenset(by_site) | frozenset(by_hand), frozenset(by_hand), conflicts)


def _listed(names: str | list[str]) -> list[str]:
    return [names] if isinstance(names, str) else names


def _disk_use(site_dir: Path, unreadable: list[str]) -> dict[str, tuple[int, int]]:
    """Files and bytes by folder; ``.`` is what lies in the site's folder itself."""
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    pending = [(site_dir, ".")]
    while pending:
        folder, name = pending.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append((Path(entry.path), entry.name if name == "." else name))
                    else:
                        found[name][0] += 1
                        found[name][1] += entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:  # moved away meanwhile
            continue
        except OSError as e:
            unreadable.append(f"{folder}: {e.strerror or e}")
    order = [CONFIRMED_FOLDER, REJECTED_FOLDER, QUARANTINED_FOLDER, ATTEMPTS_FOLDER]
    return {
        name: (found[name][0], found[name][1])
        for name in [*order, *sorted(found.keys() - set(order))]
        if name in found
    }
