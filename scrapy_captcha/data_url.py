"""What a ``data:`` URL holds, read in a few milliseconds whatever it looks like."""

from __future__ import annotations

import base64

import numpy as np

from scrapy_captcha.errors import AttemptFailed
from scrapy_captcha.image import MAX_BYTES

_NO_DIGIT = 16
_DIGITS = np.array(
    [
        int(chr(byte), 16) if chr(byte) in "0123456789abcdefABCDEF" else _NO_DIGIT
        for byte in range(256)
    ],
    dtype=np.uint8,
)


def content(url: str) -> bytes:
    """The bytes that a ``data:`` URL holds; what it says of their type is left aside.

    :raises AttemptFailed: ``image_invalid``
    """
    if len(url) > 2 * MAX_BYTES:
        raise AttemptFailed("image_invalid", f"a data: URL of {len(url)} characters", final=True)
    head, _, data = url.partition(",")
    held = unescaped("".join(data.split()).encode())
    if head.rstrip()[-7:].lower() != ";base64":
        return held
    try:
        return base64.b64decode(held + b"=" * (-len(held) % 4))
    except ValueError as e:
        raise AttemptFailed("image_invalid", f"a malformed data: URL: {e}") from None


def unescaped(text: bytes) -> bytes:
    """``%XX`` -> a byte, as ``unquote_to_bytes``, which takes a second for a megabyte of them."""
    if b"%" not in text:
        return text
    given = np.frombuffer(text + b"..", dtype=np.uint8)
    at = np.flatnonzero(given == ord("%"))
    high, low = _DIGITS[given[at + 1]], _DIGITS[given[at + 2]]
    escapes = (high < _NO_DIGIT) & (low < _NO_DIGIT)
    at = at[escapes]
    read = given.copy()
    read[at] = high[escapes] << 4 | low[escapes]
    kept = np.ones(len(read), dtype=bool)
    kept[at + 1] = kept[at + 2] = kept[-2:] = False
    return read[kept].tobytes()
