"""The versions of a bundle: written, made current, taken back, and the old ones deleted.

``CURRENT`` names the version that is read, ``PREVIOUS`` those that were current before it, the
latest first, ``DROPPED`` those that were gone back from. A version that none of them names is a
challenger, or what is left of one. Each step is one rename, so a process that is killed leaves a
bundle that can be read and written to.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from scrapy_captcha.bundle import CURRENT, MANIFEST, MODEL, described, open_bundle
from scrapy_captcha.durable import STALE_SECONDS, read_file, sync_folder, unique_name, writer_gone
from scrapy_captcha.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from scrapy_captcha.bundle import Manifest

PREVIOUS = "PREVIOUS"
DROPPED = "DROPPED"
#: The page on a fit, which is kept beside the versions.
REPORT = "report.html"
#: How many versions that were ever current are kept, the current one included.
KEPT = 3
#: Of a file that names versions, thousands at most.
MAX_POINTER_BYTES = 1 << 16
_UNFINISHED = re.compile(r"\.(?:unfinished|CURRENT|PREVIOUS|DROPPED)-(?P<writer>.+)")
_VERSION = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")


def check_place(out: Path) -> None:
    """Make sure that a folder is a bundle of versions, or can become one.

    One that holds nothing but what a killed write or removed versions left behind can.

    :raises BundleError: when something else is there
    """
    if not out.exists() or (out.is_dir() and (out / CURRENT).is_file()):
        return
    if not out.is_dir() or any(not _of_a_bundle(path.name) for path in out.iterdir()):
        raise BundleError(f"{out} exists and is not a bundle of versions; choose another folder")


def current(out: Path) -> str | None:
    """The name of the current version, or ``None`` when there is none."""
    return next(_names(out / CURRENT), None)


def previous(out: Path) -> list[str]:
    """The versions that can be gone back to, the latest first."""
    now = current(out)
    return [name for name in _names(out / PREVIOUS) if name != now and _is_version(out / name)]


def challengers(out: Path) -> list[str]:
    """The versions that may still be judged, the oldest first.

    They are younger than an hour and later than the current one, and nobody went back from them.
    """
    gone = {*_listed(out), *_names(out / DROPPED)}
    names = [name for name in stored(out) if name > (current(out) or "") and name not in gone]
    return [name for name in names if not _old(out / name)]


def stored(out: Path) -> list[str]:
    """All versions that are there, the oldest first."""
    if not out.is_dir():
        return []
    paths = [path for path in out.iterdir() if _VERSION.fullmatch(path.name)]
    return sorted(path.name for path in paths if _is_version(path))


def write_version(
    out: Path, manifest: Manifest, files: Mapping[str, bytes], *, promoted: bool = True
) -> Path:
    """Add a version to the bundle at ``out``, durably.

    :param manifest: its ``files`` are filled in here
    :param promoted: make it the current one; else it is a challenger, which no reader sees before
        :func:`promote`
    :return: the folder of the new version
    :raises BundleError: when ``out`` is something else than a bundle or cannot be written
    """
    manifest = described(manifest, files)
    check_place(out)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    version = out / f"{stamp}-{manifest.files[MODEL].sha256[:8]}"
    unfinished = out / f".unfinished-{unique_name()}"
    try:
        unfinished.mkdir(parents=True)
        sweep(out)
        for name, data in {**files, MANIFEST: manifest.to_json().encode()}.items():
            _write(unfinished / name, data)
        sync_folder(unfinished)
        if version.exists():
            _delete(version)
        unfinished.rename(version)
        if promoted:
            _make_current(out, version.name)
        else:
            sync_folder(out)
    except OSError as e:
        raise BundleError(f"cannot write the bundle {out}: {e}") from e
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    prune(out)
    return version


def promote(out: Path, version: str) -> Path:
    """Make a version the current one, in one step; the one before can be gone back to.

    :param version: the name of its folder
    :return: its folder
    :raises BundleError: when there is no such version, or the disk refuses
    """
    folder = out / version
    if not _VERSION.fullmatch(version) or not _is_version(folder):
        raise BundleError(f"{out} has no version {version!r}")
    open_bundle(folder)
    try:
        _make_current(out, version)
    except OSError as e:
        raise BundleError(f"cannot write the bundle {out}: {e}") from e
    prune(out)
    return folder


def roll_back(out: Path, *, to_none: bool = False) -> Path | None:
    """Go back to the version that was current before; the present one stays as a folder.

    It is no challenger from then on, for it has been judged.

    :param to_none: if there was none before, have no current version: whoever uses the bundle then
        uses whatever reads without it
    :return: the folder of the version that is current now
    :raises BundleError: when there is none to go back to, or the disk refuses
    """
    now, before = current(out), previous(out)
    if now is None:
        raise BundleError(f"{out} has no current version to go back from")
    if not before and not to_none:
        raise BundleError(f"{out} has no version before {now}")
    dropped = [name for name in _names(out / DROPPED) if name != now and _is_version(out / name)]
    try:
        _point(out / DROPPED, [now, *dropped])
        if before:
            _point(out / CURRENT, before[:1])
        else:
            (out / CURRENT).unlink()
        _point(out / PREVIOUS, before[1:])
    except OSError as e:
        raise BundleError(f"cannot write the bundle {out}: {e}") from e
    return out / before[0] if before else None


def withdraw(out: Path, names: Collection[str]) -> None:
    """Go back for as long as one of these versions is the current one.

    :raises BundleError: when the disk refuses
    """
    while current(out) in names:
        roll_back(out, to_none=True)


def discard(out: Path, version: str) -> None:
    """Delete a version that is neither the current one nor could be gone back to.

    :raises BundleError: when it is, or the disk refuses
    """
    if not _VERSION.fullmatch(version) or version in _listed(out):
        raise BundleError(f"{version!r} is not a challenger of {out}")
    try:
        _delete(out / version)
    except FileNotFoundError:
        return
    except OSError as e:
        raise BundleError(f"cannot delete {out / version}: {e}") from e


def sweep(out: Path) -> list[Path]:
    """Delete what killed writes left behind, but nothing that may still be written to.

    :return: what was deleted
    """
    gone = []
    for path in list(out.iterdir()) if out.is_dir() else ():
        found = _UNFINISHED.fullmatch(path.name)
        if found is None:
            continue
        with suppress(OSError):
            age = time.time() - path.stat().st_mtime
            if not writer_gone(found["writer"]) and age <= STALE_SECONDS:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
            gone.append(path)
    return gone


def prune(out: Path) -> None:
    """Delete all but the last versions that were current, and challengers that nobody came for.

    A challenger may still be on trial for an hour. What cannot be deleted now is left for later.
    """
    listed = _listed(out)
    with suppress(OSError):
        for path in [path for path in out.iterdir() if _VERSION.fullmatch(path.name)]:
            with suppress(OSError):
                if path.name in listed[KEPT:] or (path.name not in listed and _old(path)):
                    _delete(path)
        if len(listed) > KEPT:
            _point(out / PREVIOUS, listed[1:KEPT])


def _listed(out: Path) -> list[str]:
    """The current version and those before it."""
    return list(dict.fromkeys([*_names(out / CURRENT), *_names(out / PREVIOUS)]))


def _names(path: Path) -> Iterator[str]:
    try:
        text = read_file(path, MAX_POINTER_BYTES).decode()
    except (OSError, UnicodeDecodeError):
        return
    yield from (name for name in text.split() if _VERSION.fullmatch(name))


def _old(folder: Path) -> bool:
    return time.time() - folder.stat().st_mtime > STALE_SECONDS


def _is_version(folder: Path) -> bool:
    return (folder / MANIFEST).is_file()


def _make_current(out: Path, version: str) -> None:
    """Have ``PREVIOUS`` name what was current, then ``CURRENT`` the version.

    Between the two a kill leaves the current version in both, which readers of ``PREVIOUS`` skip.
    """
    before = [name for name in _listed(out) if name != version]
    if before:
        _point(out / PREVIOUS, before)
    _point(out / CURRENT, [version])


def _point(path: Path, names: list[str]) -> None:
    """Replace a file of names in one step."""
    pointer = path.with_name(f".{path.name}-{unique_name()}")
    try:
        _write(pointer, "".join(f"{name}\n" for name in names).encode())
        pointer.replace(path)
        sync_folder(path.parent)
    finally:
        with suppress(OSError):
            pointer.unlink(missing_ok=True)


def _delete(version: Path) -> None:
    """Delete a version; at no moment is there half of it under its name."""
    going = version.with_name(f".unfinished-{unique_name()}")
    version.rename(going)
    shutil.rmtree(going, ignore_errors=True)


def _of_a_bundle(name: str) -> bool:
    known = (REPORT, PREVIOUS, DROPPED)
    return name in known or bool(_VERSION.fullmatch(name) or _UNFINISHED.fullmatch(name))


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())
