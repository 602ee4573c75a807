"""A disk that fails at a given system call."""

from __future__ import annotations

import io
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Self

#: What changes the disk, by what it is given first, and what only looks at it.
BY_PATH = ("open", "mkdir", "link", "rename", "replace", "unlink")
BY_DESCRIPTOR = ("write", "fsync", "ftruncate")
READS = ("stat", "listdir", "scandir")
#: Nothing has to be said when these fail: they only tidy up.
TIDYING = frozenset({"unlink", "ftruncate"})


def _absolute(path: str | os.PathLike[str]) -> str:
    return os.path.abspath(path)  # noqa: PTH100  # Path.resolve() looks at the disk


class FailingDisk:
    """Has system calls on files in a folder fail, in this process.

    :param folder: the calls that concern anything else stay as they are
    :param code: the error number
    :param call: which call is the first to fail, from 0
    :param lasts: whether all later calls fail, too
    :param reads: whether calls that only read are counted, and fail, as well

    :ivar calls: names of the calls so far
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        code: int,
        call: int,
        *,
        lasts: bool = False,
        reads: bool = False,
    ) -> None:
        self.calls: list[str] = []
        self._folder = _absolute(folder)
        self._code = code
        self._call = call
        self._lasts = lasts
        self._descriptors = set(self._open_descriptors())
        self._real: list[tuple[Any, str, Any]] = []
        for name in (*BY_PATH, *(READS if reads else ())):
            self._replace(os, name, self._by_path(name, getattr(os, name)))
        for name in BY_DESCRIPTOR:
            self._replace(os, name, self._by_descriptor(name, getattr(os, name)))
        self._replace(os, "close", self._close(os.close))
        if reads:
            self._replace(io, "open", self._by_path("read", io.open))

    def _open_descriptors(self) -> Iterator[int]:
        """Those of files in the folder that are open already, where the system tells."""
        with suppress(FileNotFoundError):
            for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  # Path is slower
                with suppress(OSError):
                    if self._is_inside(os.readlink(f"/proc/self/fd/{name}")):  # noqa: PTH115
                        yield int(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.repair()

    @property
    def failed(self) -> list[str]:
        """Which calls have failed."""
        return self.calls[self._call :][: None if self._lasts else 1]

    def repair(self) -> None:
        """Put the real calls back."""
        for module, name, real in self._real:
            setattr(module, name, real)

    def _replace(self, module: Any, name: str, wrapper: Callable[..., Any]) -> None:
        self._real.append((module, name, getattr(module, name)))
        setattr(module, name, wrapper)

    def _fails(self, name: str) -> bool:
        self.calls.append(name)
        number = len(self.calls) - 1
        return number >= self._call if self._lasts else number == self._call

    def _error(self) -> OSError:
        return OSError(self._code, os.strerror(self._code))

    def _is_inside(self, path: Any) -> bool:
        if not isinstance(path, str | os.PathLike):
            return False
        path = _absolute(path)
        return path == self._folder or path.startswith(self._folder + os.sep)

    def _by_path(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(path: Any, *arguments: Any, **keywords: Any) -> Any:
            if not self._is_inside(path):
                return real(path, *arguments, **keywords)
            if self._fails(name):
                raise self._error()
            result = real(path, *arguments, **keywords)
            if name == "open":
                self._descriptors.add(result)
            return result

        return wrapper

    def _by_descriptor(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(descriptor: int, *arguments: Any) -> Any:
            if descriptor in self._descriptors and self._fails(name):
                if name == "write":  # half of it comes through
                    real(descriptor, bytes(arguments[0])[: len(arguments[0]) // 2])
                raise self._error()
            return real(descriptor, *arguments)

        return wrapper

    def _close(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def wrapper(descriptor: int) -> None:
            self._descriptors.discard(descriptor)
            real(descriptor)

        return wrapper
