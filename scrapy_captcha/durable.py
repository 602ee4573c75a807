"""Files that survive a crash: complete under their final name, or not there at all.

A file is written under a temporary name beside its final one, synced, given its final name in one
step, and the folder is synced. Temporary names say which process of which machine made them, so
that what a killed one leaves behind can be told from work in progress.
"""

from __future__ import annotations

import errno
import os
import platform
import re
import stat
import time
import uuid
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from io import BufferedReader
    from pathlib import Path

TEMPORARY = ".tmp-"
STALE_SECONDS = 3600.0
_OWNED = re.compile(r"(?:\.tmp-)?(?P<host>.+)-(?P<pid>[0-9]{1,10})-[0-9a-f]{32}(?:\.jsonl)?")
_NO_HARD_LINKS = {
    errno.EPERM,
    errno.EACCES,
    errno.EMLINK,
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
}
#: The namespace of all processes; from within another one only its own can be seen.
_OUTERMOST = "pid:[4026531836]"
_BINARY = getattr(os, "O_BINARY", 0)
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _BINARY


@cache
def host() -> str:
    """The machine's name, reduced to letters, digits, dots and hyphens.

    In a container its own number of processes follows: containers may share their machine's name,
    but what runs in one looks dead to the others.
    """
    name = re.sub(r"[^A-Za-z0-9.-]", "-", platform.node())[:64].strip(".-") or "localhost"
    namespace = _pid_namespace()
    return name if namespace == _OUTERMOST else f"{name}-{re.sub('[^0-9]', '', namespace)}"


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115  # no path of a file
    except OSError:
        return _OUTERMOST


def unique_name() -> str:
    """A name that nobody else uses, and that says who made it: ``<host>-<pid>-<uuid>``."""
    return f"{host()}-{os.getpid()}-{uuid.uuid4().hex}"


def writer_gone(name: str) -> bool:
    """Whether a file named by :func:`unique_name` was made here by a process that has ended."""
    owner = _OWNED.fullmatch(name)
    return owner is not None and owner["host"] == host() and not _runs(int(owner["pid"]))


def in_use(path: Path) -> bool:
    """Whether a file named by :func:`unique_name` may still be written to.

    Not when its process is known to be gone, nor when nothing was written for an hour: the
    writes that this is about take milliseconds.
    """
    if _OWNED.fullmatch(path.name) is None or writer_gone(path.name):
        return False
    return time.time() - path.stat().st_mtime <= STALE_SECONDS


def _runs(pid: int) -> bool:
    if os.name == "nt":  # os.kill would end the process there
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def create(path: Path, flags: int = 0) -> int:
    """Open a new file for writing; the descriptor."""
    return os.open(path, _CREATE | flags, 0o666)


def open_file(path: Path) -> BufferedReader:
    """Open an ordinary file for reading; a named pipe would block, a device never end.

    :raises OSError: when it cannot be read, or is something else
    """
    descriptor = os.open(path, _READ)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not an ordinary file", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_file(path: Path, limit: int) -> bytes:
    """The bytes of an ordinary file.

    :raises OSError: when it cannot be read, is something else, or has more than ``limit`` bytes
    """
    with open_file(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit} bytes", str(path))
    return data


def names_in(folder: Path) -> list[str]:
    """The names in a folder, sorted, without hidden ones; none when there is no such folder."""
    try:
        names = os.listdir(folder)  # noqa: PTH208  # names alone, for folders of 40,000 files
    except FileNotFoundError:
        return []
    return sorted(name for name in names if not name.startswith("."))


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system has a way to."""
    if os.name == "nt":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a parent that we may write to but not list
        return
    try:
        os.fsync(descriptor)
    except OSError as e:
        if e.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and the parents it lacks, durably."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def write_once(path: Path, data: bytes) -> bool:
    """Have ``path`` hold ``data``, durably; whether it was this call that put it there.

    Of several writers of one file exactly one is told True. A file with other content is taken
    for damaged and replaced. After an error the file is whole or not there.
    """
    there = _content(path)
    if there == data:
        sync_folder(path.parent)  # the writer who made it may not have come to that yet
        return False
    temporary = path.with_name(TEMPORARY + unique_name())
    try:
        _write(temporary, data)
        if there is not None:
            temporary.replace(path)
            new = True
        else:
            new = _give_name(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    return new


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _write(path: Path, data: bytes) -> None:
    descriptor = create(path)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _give_name(temporary: Path, path: Path) -> bool:
    try:
        if os.name == "nt":
            temporary.rename(path)  # refuses to replace a file there
        else:
            path.hardlink_to(temporary)  # so does this, here
    except FileExistsError:
        return False
    except OSError as e:
        if e.errno not in _NO_HARD_LINKS:
            raise
        new = not path.exists()
        temporary.replace(path)
        return new
    return True
