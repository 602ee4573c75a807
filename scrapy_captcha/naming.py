"""The names of what a site's dataset holds: labels and hashes as names of files, and back."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from scrapy_captcha.durable import names_in

if TYPE_CHECKING:
    from pathlib import Path

CONFIRMED_FOLDER, REJECTED_FOLDER = "confirmed", "rejected"
QUARANTINED_FOLDER = "quarantined"
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".bin"})
MAX_NAME = 100

_ALNUM = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
_SHORTENED = re.compile(r"[^~]*~[0-9a-f]{16}|~")
DIGEST = re.compile(r"[0-9a-f]{16}")
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")  # on Windows


def site_folder(site_key: str) -> str:
    """The name of a site's folder: ``:`` as ``_``, anything unusual percent-encoded.

    >>> site_folder("127.0.0.1:8000")
    '127.0.0.1_8000'
    """
    name = _encode(site_key.replace(":", "_"), keep=b"._-")
    if name.endswith("."):  # Windows drops it
        name = name[:-1] + "%2E"
    return _unreserved(name) if _RESERVED.fullmatch(name) else name


def encode_label(label: str) -> str:
    """A label as the first part of a file name, free of ``_``, separators and leading dots.

    What comes after it, ``_`` and the hash, keeps Windows from taking ``con`` for the console, but
    not from taking ``con.x`` for it.

    One that comes out longer than ``MAX_NAME`` is cut and ends in ``~`` and a hash, the empty one
    is ``~``; for these two the attempts alone know the label.
    """
    name = _encode(label, keep=b".-")
    return _unreserved(name) if "." in name and _RESERVED.fullmatch(name) else name


def decode_label(encoded: str) -> str:
    """The label behind :func:`encode_label`.

    :raises ValueError: when the name had to be shortened, or is not UTF-8
    """
    if _SHORTENED.fullmatch(encoded):
        raise ValueError(f"{encoded!r} is a shortened label")
    data = unquote_to_bytes(encoded.encode(errors="surrogateescape"))
    return data.decode(errors="surrogatepass")


def _encode(text: str, keep: bytes) -> str:
    data = text.encode(errors="surrogatepass")
    safe = _ALNUM.union(keep)
    safe_first = safe.difference(b".-")
    name = "".join(
        chr(byte) if byte in (safe if index else safe_first) else f"%{byte:02X}"
        for index, byte in enumerate(data[: MAX_NAME + 1])
    )
    if len(name) <= MAX_NAME:
        return name or "~"
    whole = re.sub("%.?$", "", name[: MAX_NAME - 17])
    return f"{whole}~{hashlib.sha256(data).hexdigest()[:16]}"


def _unreserved(name: str) -> str:
    return f"%{ord(name[0]):02X}{name[1:]}"


def shown(text: str) -> str:
    """Text without what would move a terminal's cursor, or cannot be printed at all."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def image_suffix(image: bytes) -> str:
    """The file name extension for an image, by its first bytes; ``.bin`` for none that we know."""
    if image.startswith(b"\x89PNG\r\n\x1a\n"):
        return ".png"
    if image.startswith(b"\xff\xd8\xff"):
        return ".jpg"
    if image.startswith((b"GIF87a", b"GIF89a")):
        return ".gif"
    if image.startswith(b"RIFF") and image[8:12] == b"WEBP":
        return ".webp"
    return ".bmp" if image.startswith(b"BM") else ".bin"


def split_name(path: Path) -> tuple[str, str]:
    """The encoded label of a file in ``confirmed/`` and its 16 digits of sha256, if any.

    Files of the plain format, ``LABEL.png`` and ``LABEL_x.png``, have none.
    """
    return split_stem(path.stem)


def split_stem(stem: str) -> tuple[str, str]:
    """The same of a file's name without its extension."""
    label, _, rest = stem.partition("_")
    return label, rest if DIGEST.fullmatch(rest) else ""


def image_files(folder: Path) -> list[Path]:
    """The images in a folder, by name; none when there is no such folder."""
    paths = (folder / name for name in names_in(folder))
    return [path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES]
