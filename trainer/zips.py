"""Zips from elsewhere, read in bounded memory, whatever they say they are."""

from __future__ import annotations

import io
import struct
import zipfile
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from scrapy_captcha.errors import DatasetError
from scrapy_captcha.image import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import BinaryIO

#: Images of a zip are held in memory, those of a folder are read when they are needed.
MAX_ZIP_BYTES = 1 << 30
#: Of a zip of images, which has 60 to 100 bytes for each.
MAX_DIRECTORY_BYTES = 32 << 20
#: How members may be packed; others (bzip2, LZMA) are unpacked in pieces of any size.
PACKED = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
#: What `zipfile` raises for a file that is no zip, or a damaged one.
NO_ZIP = (zipfile.BadZipFile, ValueError, OverflowError, NotImplementedError, struct.error)


class _Bounded(io.BufferedReader):
    """A file of which at most so many bytes are read at once, if there is a bound."""

    most: int | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        """Read like any file.

        Raises:
            zipfile.BadZipFile: when more is asked for than the bound.
        """
        if self.most is not None and size is not None and size > self.most:
            raise zipfile.BadZipFile(f"its directory has {size} bytes, at most {self.most}")
        return super().read(size)


@contextmanager
def open_zip(file: BinaryIO, most: int) -> Iterator[zipfile.ZipFile]:
    """Open a zip for reading, unless its directory has more than so many bytes.

    Args:
        file: unbuffered; it is closed in the end.
        most: a directory has 46 bytes for each member, and its name.

    Raises:
        OSError: when it cannot be read.
        zipfile.BadZipFile: when the directory is larger, or this is no zip; for some damaged ones
            another one of `NO_ZIP`.
    """
    with _Bounded(file) as bounded:  # type: ignore[arg-type]
        bounded.most = most
        with zipfile.ZipFile(bounded) as archive:
            bounded.most = None
            yield archive


def members(
    path: Path, wanted: Callable[[PurePosixPath], bool]
) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Images of a zip by their names, in the order of these.

    Args:
        path: an existing file.
        wanted: whether a name is that of an image.

    Yields:
        A name and its bytes, none when they are too many or cannot be read.

    Raises:
        DatasetError: when it is no zip, a damaged one, or holds too much.
    """
    try:
        with open_zip(path.open("rb", buffering=0), MAX_DIRECTORY_BYTES) as archive:
            entries = sorted(archive.infolist(), key=lambda entry: entry.filename)
            if sum(min(entry.file_size, MAX_BYTES) for entry in entries) > MAX_ZIP_BYTES:
                raise DatasetError(
                    f"{path} holds more than {MAX_ZIP_BYTES >> 20} MB: unpack it into a folder"
                )
            for entry in entries:
                inside = PurePosixPath(entry.filename)
                if wanted(inside) and "__MACOSX" not in inside.parts:
                    yield inside, _unpacked(archive, entry, MAX_BYTES)
    except DatasetError:
        raise
    except (OSError, *NO_ZIP) as e:
        raise DatasetError(f"expected a folder or a zip, {path} does not open: {e}") from None


def _unpacked(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, most: int) -> bytes:
    """The bytes of a member; none when it has more than that, or cannot be read."""
    if entry.file_size > most or entry.compress_type not in PACKED:
        return b""
    try:
        with archive.open(entry) as file:
            # a size is asked for, as it says how much of what follows is unpacked at once
            return file.read(most) + file.read(1)
    except Exception:  # noqa: BLE001 - damaged and encrypted ones fail in many ways
        return b""
