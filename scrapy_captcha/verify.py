"""Check a dataset, and repair what a killed crawl or a damaged disk left behind.

It is safe to run while crawls write: what a living process may still be writing is left alone.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from scrapy_captcha.attempts import (
    ACCEPTED,
    ATTEMPTS_FOLDER,
    REJECTED,
    AttemptLog,
    attempt_files,
    complete_lines,
    explained,
    parse_attempt,
)
from scrapy_captcha.dataset import confirmed_pairs
from scrapy_captcha.durable import (
    TEMPORARY,
    in_use,
    make_folder,
    open_file,
    read_file,
    sync_folder,
    write_once,
)
from scrapy_captcha.errors import DatasetError
from scrapy_captcha.image import MAX_BYTES
from scrapy_captcha.naming import (
    CONFIRMED_FOLDER,
    DIGEST,
    QUARANTINED_FOLDER,
    REJECTED_FOLDER,
    image_files,
    split_name,
)
from scrapy_captcha.quarantine import settle
from scrapy_captcha.versions import sweep

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader
    from pathlib import Path

DAMAGED_FOLDER = "damaged"
MODEL_FOLDER = "model"
_SHOWN = 5
_BLOCK = 1 << 16


@dataclass
class Report:
    """What :func:`verify` found and did.

    :param sites: site folders checked
    :param attempts: attempts in their files
    :param confirmed: labelled images, each counted once, without conflicts
    :param rejected: rejected images
    :param torn: torn last lines that were dropped
    :param unreadable: other lines that are no attempts; they were left as they are
    :param damaged: files moved to ``damaged/``, because their bytes belie the hash in their name
    :param leftovers: temporary and empty files, and unfinished models, that were removed
    :param conflicts: images with more than one label; training leaves them out
    :param quarantined: confirmed images that were moved to ``quarantined/``, because of a canary
        that was accepted before a crawl was killed
    :param missing: attempted images that are not there any more
    :param failed: files and folders that could not be read or mended
    :param notes: what it did and found, a line each; none for a dataset in order
    """

    sites: int = 0
    attempts: int = 0
    confirmed: int = 0
    rejected: int = 0
    torn: int = 0
    unreadable: int = 0
    damaged: int = 0
    leftovers: int = 0
    conflicts: int = 0
    quarantined: int = 0
    missing: int = 0
    failed: int = 0
    notes: list[str] = field(default_factory=list)


def verify(root: Path) -> Report:
    """Check and repair a dataset, or one site's folder of it.

    Torn last lines are dropped, files whose bytes belie their name are moved to ``damaged/``,
    leftover temporaries are removed, an interrupted quarantine is completed; conflicts, missing
    images, and whatever cannot be read or mended are reported.

    :raises DatasetError: when there is no such folder, or it cannot be listed
    """
    if not root.is_dir():
        raise DatasetError(f"no such dataset folder: {root}")
    report = Report()
    with explained(root):
        for site_dir in [root] if is_site(root) else sorted(filter(is_site, root.iterdir())):
            report.sites += 1
            _check_site(site_dir, report)
    if not report.sites:
        report.notes.append(f"{root}: holds no site's folder")
    return report


def is_site(folder: Path) -> bool:
    """Whether a folder is one site's part of a dataset."""
    names = (CONFIRMED_FOLDER, REJECTED_FOLDER, ATTEMPTS_FOLDER)
    return any((folder / name).is_dir() for name in names)


def _check_site(site_dir: Path, report: Report) -> None:
    for path in attempt_files(site_dir):
        with _noted(path, report):
            _drop_torn_line(path, report)
    with _noted(site_dir / QUARANTINED_FOLDER, report):
        _settle(site_dir, report)
    for name in (CONFIRMED_FOLDER, REJECTED_FOLDER, QUARANTINED_FOLDER):
        with _noted(site_dir / name, report):
            _check_folder(site_dir / name, report)
    with _noted(site_dir / MODEL_FOLDER, report):
        for path in sweep(site_dir / MODEL_FOLDER):
            report.leftovers += 1
            report.notes.append(f"{path}: removed, a model that was not written to its end")
    # a store writes the image first and the line after it, so lines are read before images
    accepted, rejected = _read(site_dir, report)
    with _noted(site_dir, report):
        _check_presence(site_dir, accepted, rejected, report)


def _check_folder(folder: Path, report: Report) -> None:
    for path in sorted(folder.glob(f"{TEMPORARY}*")):
        with _noted(path, report):
            _remove_leftover(path, report)
    for path in image_files(folder):
        with _noted(path, report):
            _check_image(path, report)


@contextmanager
def _noted(path: Path, report: Report) -> Iterator[None]:
    """Go on when a file cannot be read or mended, or has gone meanwhile."""
    try:
        yield
    except FileNotFoundError:
        pass
    except OSError as e:
        report.failed += 1
        report.notes.append(f"{e.filename or path}: left as it is: {e.strerror or e}")


def _drop_torn_line(path: Path, report: Report) -> None:
    busy = in_use(path)
    with open_file(path) as f:
        size = os.fstat(f.fileno()).st_size
        length = _whole_lines(f, size)
    if size and length == size:
        return
    if busy:
        report.notes.append(f"{path}: its last line is not whole, its writer may be at it")
    elif not length:
        path.unlink()
        sync_folder(path.parent)
        report.torn += bool(size)
        report.leftovers += not size
        report.notes.append(f"{path}: removed, it held no whole line")
    else:
        with path.open("r+b") as f:
            f.truncate(length)
            os.fsync(f.fileno())
        report.torn += 1
        report.notes.append(f"{path}: dropped a torn last line ({size - length} bytes)")


def _whole_lines(f: BufferedReader, size: int) -> int:
    """How many of a file's first bytes are whole lines; looked for from its end."""
    while size:
        start = max(0, size - _BLOCK)
        f.seek(start)
        found = f.read(size - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        size = start
    return 0


def _settle(site_dir: Path, report: Report) -> None:
    log = AttemptLog(site_dir)
    try:
        moved, _ = settle(site_dir, log)
    finally:
        log.close()
    if moved:
        report.quarantined += moved
        report.notes.append(f"{site_dir}: moved {moved} confirmed images to {QUARANTINED_FOLDER}/")


def _remove_leftover(path: Path, report: Report) -> None:
    if in_use(path):
        report.notes.append(f"{path}: a temporary file that may be in use; left alone")
        return
    path.unlink()
    report.leftovers += 1
    report.notes.append(f"{path}: removed, a temporary file of a process that is gone")


def _check_image(path: Path, report: Report) -> None:
    with open_file(path) as f:
        if _matches(path, f):
            return
    folder = path.parent.parent / DAMAGED_FOLDER
    make_folder(folder)
    target = folder / path.name
    if target.exists():
        target = folder / f"{path.stem}.{uuid.uuid4().hex[:8]}{path.suffix}"
    path.rename(target)
    with open_file(target) as f:
        mended = _matches(path, f)
    if mended:  # by a crawl, in this very moment
        write_once(path, read_file(target, MAX_BYTES))
        target.unlink()
        return
    sync_folder(folder)
    sync_folder(path.parent)
    report.damaged += 1
    report.notes.append(f"{path}: moved to {DAMAGED_FOLDER}/, its bytes belie its name")


def _read(site_dir: Path, report: Report) -> tuple[set[str], set[str]]:
    """The images (sha256) of accepted attempts, and those of the rejected."""
    accepted: set[str] = set()
    rejected: set[str] = set()
    for path in attempt_files(site_dir):
        unreadable = 0
        with _noted(path, report):
            for line, _ in complete_lines(path):
                attempt = parse_attempt(line)
                if attempt is None:
                    unreadable += 1
                elif attempt.verdict in (ACCEPTED, REJECTED):
                    report.attempts += 1
                    (accepted if attempt.verdict == ACCEPTED else rejected).add(attempt.image)
        if unreadable:
            report.unreadable += unreadable
            report.notes.append(f"{path}: {unreadable} lines are not attempts; left as they are")
    return accepted, rejected


def _check_presence(site_dir: Path, accepted: set[str], rejected: set[str], report: Report) -> None:
    stems = {path.stem for path in image_files(site_dir / REJECTED_FOLDER)}
    pairs, conflicts = confirmed_pairs(site_dir)
    report.confirmed += len(pairs)
    report.rejected += len(stems)
    report.conflicts += len(conflicts)
    for conflict in conflicts:
        labels = ", ".join(map(repr, conflict.labels))
        names = ", ".join(path.name for path in conflict.paths)
        report.notes.append(f"{site_dir}: one image under the labels {labels}: {names}")
    confirmed = {pair.sha256 for pair in pairs} | {conflict.sha256 for conflict in conflicts}
    kept = {split_name(path)[1] for path in image_files(site_dir / QUARANTINED_FOLDER)}
    accepted = {image for image in accepted if image[:16] not in kept}
    missing = (accepted | {image for image in rejected if image[:16] not in stems}) - confirmed
    if missing:
        report.missing += len(missing)
        shown = ", ".join(image[:16] for image in sorted(missing)[:_SHOWN])
        more = ", ..." if len(missing) > _SHOWN else ""
        report.notes.append(f"{site_dir}: no file for {len(missing)} images tried: {shown}{more}")


def _matches(path: Path, file: BufferedReader) -> bool:
    """Whether an open file is the one that the name of a stored file says, if it says any."""
    digest = split_name(path)[1]
    if path.parent.name == REJECTED_FOLDER and DIGEST.fullmatch(path.stem):
        digest = path.stem
    return not digest or hashlib.file_digest(file, "sha256").hexdigest().startswith(digest)
