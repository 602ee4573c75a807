"""Labelled images on disk -> arrays, with everything that does not fit counted and named."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import numpy as np

from scrapy_captcha.dataset import confirmed_pairs
from scrapy_captcha.durable import read_file
from scrapy_captcha.errors import DatasetError, ImageError
from scrapy_captcha.image import MAX_BYTES, prepare
from scrapy_captcha.naming import CONFIRMED_FOLDER, shown
from trainer.zips import members

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, MutableMapping, Sequence

    from numpy.typing import NDArray

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp"})
#: Images whose sha256 starts with a byte below this are held out: about one in ten.
HOLDOUT_BYTE = 26
MAX_HOLDOUT = 1000
#: How many names a message spells out before it counts the rest.
NAMED = 5


@dataclass(frozen=True)
class Sample:
    """A labelled image.

    Args:
        name: where it came from, for messages.
        label: the text in the image.
        origin: the original bytes, empty when they could not be read, or the file that has them.
        sha256: of the bytes, in hex, where it is known.
    """

    name: str
    label: str
    origin: bytes | Path
    sha256: str = ""

    @property
    def data(self) -> bytes:
        """The original bytes; empty when they cannot be read."""
        return self.origin if isinstance(self.origin, bytes) else read(self.origin)

    @cached_property
    def digest(self) -> str:
        """The sha256 of the bytes, in hex: what identifies an image, whatever it is called."""
        return self.sha256 or hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class Task:
    """What a model is to read.

    Args:
        charset: the characters in the order of the classes.
        length: longest text, which is the number of heads.
        min_length: shortest text; below ``length``, one more class, the last, is the blank.
        case: "lower" (labels are folded) or "as-is".
    """

    charset: str
    length: int
    min_length: int
    case: str

    @property
    def classes(self) -> int:
        """Number of classes of a head, the blank included."""
        return len(self.charset) + (self.min_length < self.length)

    def reads(self, text: str) -> bool:
        """Whether a model for the task could read that text."""
        return self.min_length <= len(text) <= self.length and not set(text) - set(self.charset)

    @property
    def lengths(self) -> str:
        """The lengths as the command line writes them: "4" or "3-8"."""
        one = self.length == self.min_length
        return str(self.length) if one else f"{self.min_length}-{self.length}"


@dataclass(frozen=True)
class Corpus:
    """Images that can be learnt from, and what was left out on the way.

    Args:
        samples: readable images, each with one label and each but once.
        images: float16 of shape (samples, 32, 90), as `scrapy_captcha.image.prepare` gives.
        notes: one line for each kind of thing that was left out.
        conflicts: images that were left out as they stand under several labels.
    """

    samples: tuple[Sample, ...]
    images: NDArray[np.float16]
    notes: tuple[str, ...]
    conflicts: tuple[Sample, ...] = ()

    @property
    def labels(self) -> list[str]:
        """The label of each sample."""
        return [sample.label for sample in self.samples]

    def pick(self, where: NDArray[np.bool_]) -> Corpus:
        """The part of it that a boolean mask selects."""
        kept = tuple(s for s, wanted in zip(self.samples, where, strict=True) if wanted)
        return Corpus(kept, self.images[where], self.notes)

    def held_out(self) -> NDArray[np.bool_]:
        """Which samples are the holdout.

        It depends on each image's own hash, so a folder that grows never moves an image from the
        rest into the holdout. Of more than 1000, those with the lowest hashes are taken. While
        there are too few to hold any out they are trained on, too: see `trainer.plan.split`.
        """
        digests = [sample.digest for sample in self.samples]
        chosen = low_hashes(digests)
        return np.array([d in chosen for d in digests], bool)


def low_hashes(digests: Iterable[str]) -> set[str]:
    """Those that make an image one of the holdout."""
    return set(sorted({d for d in digests if int(d[:2], 16) < HOLDOUT_BYTE})[:MAX_HOLDOUT])


def name_some(names: Sequence[str]) -> str:
    """Spell out the first few of many names."""
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")


def gather(paths: Iterable[str | os.PathLike[str]]) -> list[Sample]:
    """Find the labelled images of folders and zips.

    Args:
        paths: each a folder or zip of ``LABEL.ext`` or ``LABEL_anything.ext``, or what a crawl
            harvested: a dataset, one site of it, or a site's ``confirmed`` folder. In a zip, images
            are stored or deflated; those that are packed otherwise count as unreadable.

    Returns:
        The samples in a stable order, nothing decoded, labels as they stand in the names. Those of
        a folder hold no image, but the file that has it.

    Raises:
        DatasetError: when a path is missing, is neither folder nor zip, or holds no images.
    """
    samples: list[Sample] = []
    for path in map(Path, paths):
        found = list(_from_folder(path)) if path.is_dir() else list(_from_zip(path))
        if not found:
            raise DatasetError(
                f"{path} holds no labelled images: expected LABEL.png or LABEL_x.png, "
                "or a folder that a crawl filled"
            )
        samples += found
    return samples


def site_folders(path: str | os.PathLike[str]) -> list[Path]:
    """The sites' folders that a path stands for, if it is what a crawl harvested."""
    path = Path(path)
    if path.name == CONFIRMED_FOLDER:
        return [path.parent]
    if (path / CONFIRMED_FOLDER).is_dir():
        return [path]
    return sorted(site.parent for site in path.glob(f"*/{CONFIRMED_FOLDER}") if site.is_dir())


def _from_folder(path: Path) -> Iterator[Sample]:
    if sites := site_folders(path):
        for site in sites:
            yield from _from_site(site)
    else:
        for file in _image_files(path):
            data = read(file)
            origin, digest = (file, hashlib.sha256(data).hexdigest()) if data else (data, "")
            yield _sample(str(file), plain_label(file.name), origin, digest)


def _image_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if _is_image(file) and file.is_file())


def _is_image(path: PurePath) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _from_site(site: Path) -> Iterator[Sample]:
    pairs, conflicts = confirmed_pairs(site)
    for pair in pairs:
        yield _sample(str(pair.path), pair.label, pair.path, pair.sha256)
    for conflict in conflicts:  # perhaps none once the labels are folded
        for path, label in zip(conflict.paths, conflict.labels, strict=True):
            yield _sample(str(path), label, path, conflict.sha256)


def _sample(name: str, label: str, origin: bytes | Path, sha256: str = "") -> Sample:
    """A sample whose texts can be printed, whatever bytes its file is named by."""
    label = label.encode("utf-8", "replace").decode("utf-8")
    return Sample(shown(name), label, origin, sha256)


def read(file: Path) -> bytes:
    """The bytes of an image's file; none when it is too large or cannot be read."""
    try:
        return read_file(file, MAX_BYTES)
    except OSError:
        return b""


def _from_zip(path: Path) -> Iterator[Sample]:
    if not path.is_file():
        raise DatasetError(f"no such folder or zip: {path}")
    for inside, data in members(path, _is_image):
        yield _sample(f"{path}:{inside}", plain_label(inside.name), data)


def plain_label(name: str) -> str:
    """The label in a file name ``LABEL.ext`` or ``LABEL_anything.ext``."""
    return name.rpartition(".")[0].split("_", 1)[0]


def load(
    paths: Iterable[str | os.PathLike[str]],
    case: str,
    known: MutableMapping[str, NDArray[np.float16]] | None = None,
    *,
    newest: int | None = None,
) -> Corpus:
    """Read what can be learnt from.

    Unreadable images, second copies of an image, and images that stand under two labels are left
    out, each kind with a note.

    Args:
        paths: what `gather` takes.
        case: "lower" folds the labels, "as-is" keeps them.
        known: images that are prepared already, by their sha256; new ones are added.
        newest: beside the holdout, at most so many images, those that were stored last.

    Raises:
        DatasetError: when fewer than two images or only one label remain.
    """
    samples = fold(gather(paths), case)
    if newest is not None:
        samples = choose_newest(samples, newest)
    unique, duplicates, conflicts = sort_out(s for s in samples if s.origin)
    prepared = prepare_all(unique, known)
    readable = [(s, p) for s, p in zip(unique, prepared, strict=True) if p is not None]
    unreadable = [s.name for s in samples if not s.origin]
    unreadable += [s.name for s, p in zip(unique, prepared, strict=True) if p is None]
    left_out = {
        "unreadable or damaged": unreadable,
        "second copies of an image": duplicates,
        "one image under two labels": [s.name for s in conflicts],
    }
    notes = tuple(
        f"left out {len(names)} file{'s' * (len(names) > 1)} ({what}): {name_some(names)}"
        for what, names in left_out.items()
        if names
    )
    if len(readable) < 2:
        raise DatasetError(
            "; ".join((f"expected at least 2 usable labelled images, got {len(readable)}", *notes))
        )
    kept = tuple(s for s, _ in readable)
    if len({s.label for s in kept}) == 1:
        raise DatasetError(
            f"all {len(kept)} images have the one label {kept[0].label!r}: "
            "there is nothing to tell apart"
        )
    return Corpus(kept, np.stack([p for _, p in readable]), notes, tuple(conflicts))


def choose_newest(samples: list[Sample], count: int) -> list[Sample]:
    """The holdout, and of all other images those that were stored last, in the order given."""
    held = low_hashes(sample.digest for sample in samples)
    others = {sample.digest: stored_at(sample) for sample in samples if sample.digest not in held}
    late = set(sorted(others, key=lambda digest: (others[digest], digest))[-count:])
    return [sample for sample in samples if sample.digest in held or sample.digest in late]


def stored_at(sample: Sample) -> int:
    """When the file of an image was written, in nanoseconds; 0 where there is none."""
    try:
        return 0 if isinstance(sample.origin, bytes) else sample.origin.stat().st_mtime_ns
    except OSError:
        return 0


def fold(samples: Iterable[Sample], case: str) -> list[Sample]:
    """Fold the labels to lower case, if that is the case of the bundle."""
    return [replace(s, label=fold_case(s.label, case)) for s in samples]


def fold_case(text: str, case: str) -> str:
    """A text in the case of a bundle: "lower", or "as-is"."""
    return text.lower() if case == "lower" else text


def sort_out(samples: Iterable[Sample]) -> tuple[list[Sample], list[str], list[Sample]]:
    """Keep each image once, and none that stands under two labels.

    Returns:
        The samples kept, the names of second copies, the samples in conflict.
    """
    by_digest: dict[str, list[Sample]] = {}
    for sample in samples:
        by_digest.setdefault(sample.digest, []).append(sample)
    kept: list[Sample] = []
    duplicates: list[str] = []
    conflicts: list[Sample] = []
    for same in by_digest.values():
        if len({s.label for s in same}) > 1:
            conflicts += same
        else:
            kept.append(same[0])
            duplicates += [s.name for s in same[1:]]
    return kept, duplicates, conflicts


def prepare_all(
    samples: Sequence[Sample], known: MutableMapping[str, NDArray[np.float16]] | None = None
) -> list[NDArray[np.float16] | None]:
    """The images of samples as the networks want them, ``None`` for those that do not decode.

    Args:
        samples: to be decoded.
        known: images that are prepared already, by their sha256; new ones are added.
    """
    known = {} if known is None else known
    new = [sample for sample in samples if sample.digest not in known]
    with ThreadPoolExecutor() as pool:
        for sample, pixels in zip(new, pool.map(_prepare, new), strict=True):
            if pixels is not None:
                known[sample.digest] = pixels
    return [known.get(sample.digest) for sample in samples]


def _prepare(sample: Sample) -> NDArray[np.float16] | None:
    try:
        return prepare(sample.data).astype(np.float16)
    except ImageError:
        return None


def check_labels(samples: Sequence[Sample], task: Task) -> None:
    """Make sure that every label can be read by a model for the task.

    Raises:
        DatasetError: naming the files whose labels have the wrong length or unknown characters.
    """
    problems = []
    known = set(task.charset)
    if strange := [s for s in samples if set(s.label) - known]:
        outside = shown("".join(sorted(set("".join(s.label for s in strange)) - known)))
        problems.append(
            f"{len(strange)} of {len(samples)} labels have characters ({outside}) outside the "
            f"charset {task.charset}: {name_some([s.name for s in strange])} (see --charset)"
        )
    if odd := [s for s in samples if not task.min_length <= len(s.label) <= task.length]:
        problems.append(
            f"{len(odd)} of {len(samples)} labels are not {task.lengths} characters long: "
            f"{name_some([s.name for s in odd])} (see --length)"
        )
    if problems:
        raise DatasetError("; ".join(problems))


def doubt(conflicts: Sequence[Sample], task: Task) -> list[str]:
    """A line on images under two labels, one of which cannot be right, if there are any."""
    names = [sample.name for sample in conflicts if not task.reads(sample.label)]
    if not names:
        return []
    return [
        f"of those under two labels, these are not {task.lengths} of the characters that are read; "
        f"without them the images could be learnt from: {name_some(names)}"
    ]


def encode(labels: Sequence[str], task: Task) -> NDArray[np.int32]:
    """Labels -> classes, int32 of shape (labels, heads), blanks behind shorter texts."""
    index = {character: i for i, character in enumerate(task.charset)}
    blank = len(task.charset)
    rows = [[index[c] for c in label] + [blank] * (task.length - len(label)) for label in labels]
    return np.array(rows, np.int32).reshape(len(labels), task.length)
