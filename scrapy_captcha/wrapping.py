"""Image files as far as they matter: which kind, how large, and the bytes of the first picture.

Decoders do a lot with what surrounds a picture: they inflate texts, parse EXIF, count frames, and
warn about all of it. None of it changes what is seen. So only what the first picture is made of is
kept, and what its decoding costs is known and bounded before a decoder sees a byte.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scrapy_captcha.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Extensions, segments or chunks of a file; real ones have dozens.
MAX_PARTS = 1000
#: Blocks of 8x8 pixels that all scans of a JPEG go through; those of the largest pictures, stored
#: progressively, go through 750,000. A scan that changes nothing takes 14 bytes and as long as one
#: that does.
MAX_SCANNED_BLOCKS = 1_000_000
#: A run-length encoded BMP is decoded in Python.
MAX_RLE_PIXELS, MAX_RLE_BYTES = 250_000, 1 << 17

_PNG = b"\x89PNG\r\n\x1a\n"
_PALETTES = (b"PLTE", b"tRNS")
#: A JPEG's markers, but for those that stand alone; what is in between is skipped.
_SEGMENT = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
#: What says how colours are stored, in APP0 and APP14.
_COLOURS = ((0xE0, b"JFIF"), (0xEE, b"Adob"))
_END, _SCAN = 0xD9, 0xDA
#: Baseline, extended and progressive, Huffman coded: what browsers show.
_FRAMES = (0xC0, 0xC1, 0xC2)
_OTHER_FRAMES = (*range(0xC3, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
#: Huffman and quantisation tables, the restart interval, the end.
_TABLES = (0xC4, 0xDB, 0xDD, _END)
#: An extension, an image, the end; what is in between is skipped.
_GIF_BLOCK = re.compile(rb"[!,;]")
_RLE = (1, 2)


@dataclass(frozen=True)
class Picture:
    """The first picture of an image file.

    :param format: "PNG", "JPEG", "GIF", "WEBP" or "BMP", as Pillow names them
    :param size: width and height in pixels, as the decoder will find them
    :param data: a file of that format with nothing else in it
    """

    format: str
    size: tuple[int, int]
    data: bytes


def unwrap(data: bytes) -> Picture:
    """Find the first picture of an image file; nothing is decompressed.

    :raises ImageError: for other formats, for files that end too early, and for pictures that take
        much longer to decode than their size explains
    """
    kind = next((kind for magic, kind in _KINDS if magic.match(data)), None)
    if kind is None:
        raise ImageError(
            f"expected {', '.join(FORMATS)}, got {len(data)} bytes that begin with {data[:12]!r}"
        )
    try:
        return FORMATS[kind](data)
    except (IndexError, struct.error):
        raise ImageError(f"the {kind} of {len(data)} bytes ends too early") from None


def _png(data: bytes) -> Picture:
    """The header, the palette, and the first run of IDAT chunks as one."""
    head, at = b"", len(_PNG)
    palettes: dict[bytes, bytes] = {}
    pixels: list[bytes] = []
    size = (0, 0)
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if not head:
            if name != b"IHDR" or length < 13:
                raise ImageError("the PNG does not begin with its header")
            size = struct.unpack_from(">II", data, at + 8)
            head = data[at:end]
        elif name == b"IDAT":
            pixels.append(data[at + 8 : end - 4])
        elif pixels or name == b"IEND":
            break
        elif name in _PALETTES:
            palettes[name] = data[at:end]
        at = end
    if not pixels:
        raise ImageError("the PNG has no pixels")
    body = b"IDAT" + b"".join(pixels)
    parts = (
        _PNG,
        head,
        *palettes.values(),
        struct.pack(">I", len(body) - 4),
        body,
        struct.pack(">I", zlib.crc32(body)),
        b"\0\0\0\0IEND\xaeB`\x82",
    )
    return Picture("PNG", size, b"".join(parts))


def _jpeg(data: bytes) -> Picture:
    """The frame's header, its tables, its scans, and what says how colours are stored."""
    parts = [b"\xff\xd8"]
    size, blocks, scanned = (0, 0), 0, 0
    for marker, segment, coded in _segments(data):
        if marker in _FRAMES:
            if blocks:
                raise ImageError("the JPEG has two frames")
            height, width = struct.unpack_from(">HH", segment, 5)
            size = width, height
            blocks = -(-width // 8) * -(-height // 8)
        elif marker in _OTHER_FRAMES:
            raise ImageError(f"the JPEG is of a kind that browsers do not show, 0x{marker:X}")
        elif marker == _SCAN:
            scanned += blocks * segment[4]  # so many components
            if scanned > MAX_SCANNED_BLOCKS:
                raise ImageError(f"the JPEG of {size[0]}x{size[1]} pixels has too many scans")
            parts += segment, coded
            continue
        elif marker not in _TABLES and (marker, segment[4:8]) not in _COLOURS:
            continue
        parts.append(segment)
    if not blocks:
        raise ImageError("the JPEG has no frame")
    return Picture("JPEG", size, b"".join(parts))


def _segments(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Each segment's marker, the segment with it, and the coded data of a scan."""
    at = 2
    for _ in range(MAX_PARTS):
        found = _SEGMENT.search(data, at)
        if found is None:
            return
        begin, at = found.span()
        marker = data[at - 1]
        if marker == _END:
            yield marker, b"\xff\xd9", b""
            return
        at += max(int.from_bytes(data[at : at + 2], "big"), 2)
        if at > len(data):
            return  # what there is may be all of the picture
        segment, coded = data[begin:at], b""
        if marker == _SCAN:
            after = _SCAN_END.search(data, at)
            end = after.start() if after else len(data)
            coded, at = data[at:end], end
        yield marker, segment, coded
    raise ImageError(f"the JPEG has more than {MAX_PARTS} segments")


def _gif(data: bytes) -> Picture:
    """The screen, the palette, the first image, and which colour of it is transparent."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    head, control = data[:at], b""
    for _ in range(MAX_PARTS):
        found = _GIF_BLOCK.search(data, at)
        if found is None or found[0] == b";":
            raise ImageError("the GIF has no image")
        at = found.start()
        if found[0] == b",":
            break
        if data[at + 1 : at + 3] == b"\xf9\x04":
            control = data[at : at + 7] + b"\0"
        at = _blocks_end(data, at + 2)
    else:
        raise ImageError(f"the GIF has no image among its first {MAX_PARTS} parts")
    left, top, across, down, flags = struct.unpack_from("<HHHHB", data, at + 1)
    pixels = at + 11 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    size = max(width, left + across), max(height, top + down)
    return Picture("GIF", size, head + control + data[at : _blocks_end(data, pixels)])


def _blocks_end(data: bytes, at: int) -> int:
    """Where a row of blocks, each behind its length, ends: behind the 0, or at the file's end."""
    end = len(data)
    while at < end:
        length = data[at]
        at += 1 + length
        if not length:
            break
    return min(at, end)


def _webp(data: bytes) -> Picture:
    """The picture, its alpha, or the first frame of an animation."""
    parts: dict[bytes, bytes] = {}
    size, at = (0, 0), 12
    for _ in range(MAX_PARTS):
        if at + 8 > len(data):
            break
        name, length = struct.unpack_from("<4sI", data, at)
        end = at + 8 + length
        body = data[at + 8 : end]
        if name in parts or (name not in (b"ALPH", b"ANIM") and name not in _WEBP_SIZES):
            at = end + (length & 1)
            continue
        if len(body) < length:
            raise ImageError("the WEBP ends too early")
        if not parts:
            size = _WEBP_SIZES.get(name, _no_size)(body)
        if name == b"VP8X":
            body = bytes((body[0] & _ALPHA_OR_ANIMATION,)) + body[1:]
        parts[name] = struct.pack("<4sI", name, length) + body + b"\0" * (length & 1)
        if name in (b"VP8 ", b"VP8L", b"ANMF"):
            break
        at = end + (length & 1)
    joined = b"WEBP" + b"".join(parts.values())
    return Picture("WEBP", size, b"RIFF" + struct.pack("<I", len(joined)) + joined)


_ALPHA_OR_ANIMATION = 0x12


def _canvas(body: bytes) -> tuple[int, int]:
    across, down = body[4:7], body[7:10]
    return int.from_bytes(across, "little") + 1, int.from_bytes(down, "little") + 1


def _lossy(body: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", body, 6)
    return width & 0x3FFF, height & 0x3FFF


def _lossless(body: bytes) -> tuple[int, int]:
    (bits,) = struct.unpack_from("<I", body, 1)
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1


def _no_size(body: bytes) -> tuple[int, int]:  # noqa: ARG001
    raise ImageError("the WEBP does not begin with its header")


_WEBP_SIZES: dict[bytes, Callable[[bytes], tuple[int, int]]] = {
    b"VP8X": _canvas,
    b"VP8 ": _lossy,
    b"VP8L": _lossless,
    b"ANMF": _no_size,
}


def _bmp(data: bytes) -> Picture:
    """All of it: there is nothing around the picture of a BMP."""
    (header,) = struct.unpack_from("<I", data, 14)
    if header == 12:
        width, height = struct.unpack_from("<HH", data, 18)
        return Picture("BMP", (width, height), data)
    width, height, _, _, compression = struct.unpack_from("<iiHHI", data, 18)
    height = abs(height)
    large = width * height > MAX_RLE_PIXELS or len(data) > MAX_RLE_BYTES
    if compression in _RLE and large:
        raise ImageError(
            f"expected a run-length encoded BMP of at most {MAX_RLE_PIXELS} pixels and "
            f"{MAX_RLE_BYTES} bytes, got {width}x{height} in {len(data)}"
        )
    return Picture("BMP", (width, height), data)


#: The formats that are read, by Pillow's names.
FORMATS: dict[str, Callable[[bytes], Picture]] = {
    "PNG": _png,
    "JPEG": _jpeg,
    "GIF": _gif,
    "WEBP": _webp,
    "BMP": _bmp,
}
_KINDS = (
    (re.compile(re.escape(_PNG)), "PNG"),
    (re.compile(rb"\xff\xd8\xff"), "JPEG"),
    (re.compile(rb"GIF8[79]a"), "GIF"),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), "WEBP"),
    (re.compile(rb"BM"), "BMP"),
)
