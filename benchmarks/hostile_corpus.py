"""Images that were made to harm whoever decodes them.

``bombs()`` gives each by its name.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from typing import TYPE_CHECKING, Any

from ordinary_images import bmp, chunk, drawn, inserted, noise, originals, saved
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGEST = (2000, 1000)
MIB = 1 << 20


def cut(data: bytes) -> bytes:
    """The part that is not refused for its length alone."""
    return data[: MIB - 1]


# -- PNG


def png(
    size: tuple[int, int],
    *,
    bits: int = 8,
    colour: int = 2,
    before: bytes = b"",
    after: bytes = b"",
    row: bytes | None = None,
    rows: int | None = None,
    interlace: int = 0,
) -> bytes:
    """A PNG of equal rows.

    :param row: its filter's number, then its bytes
    :param rows: how many there are, whatever the header says
    """
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row = row or bytes(1 + (size[0] * bits * channels + 7) // 8)
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(row) for _ in range(size[1] if rows is None else rows))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, interlace))
    pixels = chunk(b"IDAT", packed + packer.flush())
    return b"\x89PNG\r\n\x1a\n" + header + before + pixels + after + chunk(b"IEND", b"")


def _png_bombs() -> Iterator[tuple[str, bytes]]:
    small, megabyte = saved(drawn(), "PNG"), zlib.compress(bytes(MIB - 100), 9)
    texts = {
        name: b"".join(chunk(name.encode(), b"k%d" % i + between + megabyte) for i in range(60))
        for name, between in (("zTXt", b"\0\0"), ("iTXt", b"\0\1\0\0\0"))
    }
    yield "PNG 9400x9400", png((9400, 9400))
    yield "PNG 50000x50000", png((50_000, 50_000), rows=20)
    yield "PNG 2^31 wide", png((2**31 - 1, 1), row=b"\0")
    yield "PNG 0x0", png((0, 0), row=b"\0")
    for name, text in texts.items():
        yield f"PNG 60 MB of {name}", inserted(small, text)
        yield f"PNG 60 MB of {name} at the end", small[:-12] + text + small[-12:]
    yield "PNG iCCP", inserted(small, chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(9 * MIB), 9)))
    yield (
        "PNG 60,000 texts",
        cut(inserted(small, b"".join(chunk(b"tEXt", b"k%d\0v" % i) for i in range(50_000)))),
    )
    for key in (b"transparency", b"bbox", b"interlace", b"exif", b"gamma"):
        yield (
            f"PNG text that is called {key.decode()}",
            inserted(small, chunk(b"tEXt", key + b"\0" + b"\xff" * 9)),
        )
    yield (
        "PNG 80,000 chunks of pixels",
        (
            small[:33]
            + b"".join(chunk(b"IDAT", bytes((b,))) for b in small[41:20_000])
            + small[-12:]
        ),
    )
    yield "PNG empty chunks of pixels", small[:33] + chunk(b"IDAT", b"") * 80_000 + small[33:]
    across, down = LARGEST
    for bits, colour, channels in ((16, 6, 4), (8, 6, 4), (8, 4, 2), (16, 0, 1), (16, 2, 3)):
        row = b"\4" + bytes(range(251)) * (across * channels * bits // 8 // 251 + 1)
        row = row[: 1 + across * channels * bits // 8]
        yield f"PNG 2 MP, colour {colour}, {bits} bits", png(LARGEST, bits=bits, colour=colour)
        yield (
            f"PNG 2 MP, colour {colour}, {bits} bits, Paeth",
            png(LARGEST, bits=bits, colour=colour, row=row),
        )
    yield "PNG 2 MP, interlaced", png(LARGEST, bits=16, colour=6, interlace=1, rows=2 * down)
    yield "PNG 2 MP, 1 bit", png(LARGEST, bits=1, colour=0)
    palette = chunk(b"PLTE", bytes(range(256)) * 3) + chunk(b"tRNS", bytes(range(256)))
    yield "PNG 2 MP, palette with alpha", png(LARGEST, colour=3, before=palette)
    yield "PNG 4096x488", png((4096, 488), colour=6)
    yield "PNG palette too short", png((90, 32), colour=3, row=b"\0" + b"\xff" * 90)
    yield (
        "PNG palette of 4 bytes",
        png((90, 32), colour=3, before=chunk(b"PLTE", b"abcd"), row=b"\0" + b"\xff" * 90),
    )
    yield "PNG tRNS of one byte", inserted(small, chunk(b"tRNS", b"a"))
    yield "PNG transparent black", saved(Image.new("RGBA", (120, 40)), "PNG")
    yield "PNG 16 bit grey", saved(drawn("I;16"), "PNG")
    yield "PNG pixels that never end", png((90, 32), rows=200_000)
    yield "PNG no pixels", small[:33] + small[-12:]
    yield "PNG wrong checksum", small[:29] + b"oops" + small[33:]
    control = struct.pack(">IIIIIHHBB", 0, 90, 32, 0, 0, 1, 0, 2, 1)
    yield "APNG no frames", inserted(small, chunk(b"acTL", bytes(8)))
    yield "APNG 2^31 frames", inserted(small, chunk(b"acTL", b"\xff" * 8) * 3)
    yield (
        "APNG frame elsewhere",
        inserted(small, chunk(b"acTL", b"\0\0\0\2\0\0\0\0") + chunk(b"fcTL", b"\xff" * 26)),
    )
    yield (
        "APNG 10,000 frames",
        small[:33]
        + chunk(b"acTL", struct.pack(">II", 10_000, 0))
        + chunk(b"fcTL", control)
        + small[33:-12]
        + b"".join(
            chunk(b"fcTL", struct.pack(">I", 2 * i + 1) + control[4:])
            + chunk(b"fdAT", struct.pack(">I", 2 * i + 2) + bytes(9))
            for i in range(10_000)
        )
        + small[-12:],
    )


# -- JPEG


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def scans(size: tuple[int, int], count: int, *, refining: bool = False) -> bytes:
    """A grey progressive JPEG with scans that change nothing, 32,767 blocks in two bytes."""
    blocks = -(-size[0] // 8) * -(-size[1] // 8)
    zeros = bytes((1,) + 15 * (0,))  # one code, of one bit
    # the run's length in 14 bits behind the code; a byte of ones is stuffed
    run, steps = b"\x7f\xff\x00", b"\x10" if refining else b"\0"
    return b"".join(
        (
            b"\xff\xd8",
            segment(0xDB, bytes((0,) + 64 * (1,))),
            segment(0xC2, struct.pack(">BHHB", 8, size[1], size[0], 1) + b"\1\x11\0"),
            segment(0xC4, b"\0" + zeros + b"\0"),
            segment(0xC4, b"\x10" + zeros + b"\xe0"),
            segment(0xDA, b"\1\1\0\0\0\1") + bytes(blocks // 8 + 1),
            segment(0xDA, b"\1\1\0\1\x3f\1") + run,
            (segment(0xDA, b"\1\1\0\1\x3f" + steps) + run) * count,
            b"\xff\xd9",
        )
    )


def _jpeg_bombs() -> Iterator[tuple[str, bytes]]:
    small = saved(drawn(), "JPEG")
    tables = small[small.index(b"\xff\xdb") :]  # without JFIF, whose absence has EXIF parsed
    for what, refining in (("", False), (", refining", True)):
        yield f"JPEG 60,000 scans{what}", cut(scans(LARGEST, 60_000, refining=refining))
        yield f"JPEG small, 60,000 scans{what}", cut(scans((90, 32), 60_000, refining=refining))
        yield f"JPEG 29 scans{what}", scans(LARGEST, 29, refining=refining)
        yield f"JPEG small, 900 scans{what}", scans((90, 32), 900, refining=refining)
    yield "JPEG 65500x65500", saved(drawn(), "JPEG").replace(b"\0\x28\0\x78", b"\xff\xdc\xff\xdc")
    yield "JPEG 0 lines", saved(drawn(), "JPEG").replace(b"\0\x28\0\x78", b"\0\0\0\x78")
    for count in (200, 5000):
        ifd = b"".join(struct.pack("<HHII", i, 2, 10**5, 0x7FFFFF) for i in range(count))
        exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", count) + ifd
        yield f"JPEG EXIF of {count} wrong tags", b"\xff\xd8" + segment(0xE1, exif) + tables
    loop = b"Exif\0\0II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 0x8769, 4, 1, 8) + bytes(4)
    yield "JPEG EXIF that contains itself", b"\xff\xd8" + segment(0xE1, loop) + tables
    index = b"MPF\0II*\0\x08\0\0\0\2\0" + struct.pack("<HHII", 0xB000, 7, 4, 0x30303130)
    index += struct.pack("<HHII", 45057, 4, 1, 5) + bytes(4)
    yield "JPEG that says it is an MPO", b"\xff\xd8" + segment(0xE2, index) + tables
    yield "JPEG 200,000 empty segments", cut(b"\xff\xd8" + segment(0xE5, b"") * 250_000 + tables)
    yield "JPEG 800 tables", small[:20] + small[20:600] * 800 + small[20:]
    yield "JPEG a million fill bytes", cut(b"\xff\xd8" + b"\xff" * 1_000_000 + tables)
    yield "JPEG two frames", small.replace(b"\xff\xc0", small[small.index(b"\xff\xc0") :][:19] * 2)
    yield "JPEG no end", small[:-2]
    yield (
        "JPEG restarts everywhere",
        (
            small.replace(b"\xff\xda", segment(0xDD, b"\0\1") + b"\xff\xda")[:-2]
            + b"".join(bytes((0xFF, 0xD0 + i % 8)) for i in range(200_000))
            + b"\xff\xd9"
        ),
    )
    yield "JPEG arithmetic coded", small.replace(b"\xff\xc0", b"\xff\xc9")
    yield "JPEG CMYK", saved(drawn("CMYK"), "JPEG")
    ycck = saved(drawn("CMYK"), "JPEG")
    yield "JPEG YCCK", ycck.replace(b"Adobe\0\x64\0\0\0\0\0", b"Adobe\0\x64\0\0\0\0\2")
    for progressive in (False, True):
        for mode in ("L", "RGB", "CMYK"):
            options: dict[str, Any] = {} if mode == "L" else {"subsampling": 0}
            yield (
                f"JPEG 2 MP, {mode}{', progressive' * progressive}",
                saved(noise(mode, LARGEST), "JPEG", quality=3, progressive=progressive, **options),
            )


# -- GIF


def _gif_bombs() -> Iterator[tuple[str, bytes]]:
    small = saved(drawn("P"), "GIF")
    at = 13 + (3 << (small[10] & 7) + 1)
    head, image = small[:at], small[at:]

    def screen(width: int, height: int) -> bytes:
        return head[:6] + struct.pack("<HH", width, height) + head[10:]

    block = b"\xff" + b"c" * 255
    yield "GIF screen 65535x65535", screen(65535, 65535) + image
    yield "GIF screen 4096x488", screen(4096, 488) + image
    yield "GIF screen 1x1", screen(1, 1) + image
    where = image.index(b",")
    moved = image[: where + 1] + b"\xff\xff\xff\xff" + image[where + 5 :]
    yield "GIF frame far away", head + moved
    yield "GIF 2 MP", saved(Image.new("P", LARGEST), "GIF", transparency=0)
    yield "GIF 2 MP noise", cut(saved(noise("P", LARGEST), "GIF"))
    yield "GIF 2 MP interlaced", saved(noise("L", (2000, 400)), "GIF", interlace=1)
    yield "GIF 30,000 frames", cut(head + image[:-1] * 30_000)
    yield "GIF a long comment", head + b"!\xfe" + block * 3900 + b"\0" + image
    yield "GIF 200,000 comments", head + b"!\xfe\1a\0" * 200_000 + image
    yield "GIF 200,000 applications", head + b"!\xff\1a\0" * 200_000 + image
    yield "GIF 200,000 controls", cut(head + b"!\xf9\4\1\0\0\0\0" * 200_000 + image)
    yield "GIF blocks of one byte", head + b"!\1" + b"\1a" * 500_000 + b"\0" + image
    yield "GIF a million bytes of nothing", head + b"x" * 1_000_000 + image
    pixels = screen(*LARGEST) + b"," + struct.pack("<HHHHB", 0, 0, *LARGEST, 0)
    yield "GIF codes that clear", pixels + b"\x08" + (b"\xfe" + b"\0\1" * 127) * 4000
    yield "GIF pixels in blocks of one byte", pixels + b"\x02" + b"\1\x84" * 500_000 + b"\0;"
    yield "GIF code size 12", pixels + b"\x0c" + (b"\xff" + b"\x55" * 255) * 3000 + b"\0;"


# -- WEBP


def _webp(chunks: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def _animation(size: tuple[int, int], frames: int) -> bytes:
    """A WEBP whose small frames lie on a canvas of any size."""
    inner = saved(Image.new("RGBA", (9, 9), (1, 2, 3, 4)), "WEBP", lossless=True)[12:]
    three = [struct.pack("<I", side - 1)[:3] for side in (*size, 9, 9)]
    frame = bytes(6) + three[2] + three[3] + bytes(4) + inner
    canvas = b"VP8X" + struct.pack("<I", 10) + b"\x12\0\0\0" + three[0] + three[1]
    one = b"ANMF" + struct.pack("<I", len(frame)) + frame + b"\0" * (len(frame) & 1)
    return _webp(canvas + b"ANIM" + struct.pack("<I", 6) + bytes(6) + one * frames)


def _webp_bombs() -> Iterator[tuple[str, bytes]]:
    yield "WEBP canvas 16384x16384", _animation((16384, 16384), 1)
    yield "WEBP canvas 16777216x200", _animation((1 << 24, 200), 1)
    yield "WEBP canvas 2 MP, 15,000 frames", _animation(LARGEST, 15_000)
    yield "WEBP 15,000 frames", _animation((90, 32), 15_000)
    yield "WEBP 130,000 chunks", cut(_webp(b"XXXX\0\0\0\0" * 130_000))
    colours = [Image.new("RGBA", LARGEST, (i, 2, 3, 4)) for i in range(8)]
    yield (
        "WEBP animation of 2 MP",
        saved(colours[0], "WEBP", save_all=True, append_images=colours[1:], lossless=True),
    )
    soft = noise("RGBA", (250, 250)).resize(LARGEST, Image.Resampling.NEAREST)
    yield "WEBP 2 MP, lossless", saved(soft, "WEBP", lossless=True, method=0)
    yield "WEBP 2 MP, lossy with alpha", saved(soft, "WEBP", quality=1, method=0)
    yield "WEBP 2 MP, lossy", saved(soft.convert("RGB"), "WEBP", quality=90, method=0)
    tags = b"II*\0\x08\0\0\0\1\0" + b"\xff" * 40
    yield "WEBP EXIF", saved(drawn(), "WEBP", exif=b"Exif\0\0" + tags, xmp=b"<" * 9000)


# -- BMP


def _bmp_bombs() -> Iterator[tuple[str, bytes]]:
    yield "BMP RLE lines that are filled up", bmp((4096, 480), b"\1\1\0\0" * 480, compression=1)
    yield "BMP RLE that stays where it is", bmp((4, 4000), b"\xff\x12" * 500_000, compression=1)
    yield "BMP RLE single pixels", bmp((4096, 480), b"\1\2" * 500_000, compression=1)
    yield (
        "BMP RLE of 4 bits",
        bmp((2000, 1000), (b"\0\xfe" + b"\x12" * 127 + b"\0") * 8000, bits=4, compression=2),
    )
    yield (
        "BMP RLE, the largest",
        bmp((500, 500), (b"\1\1" * 60 + b"\0\0") * 500, compression=1),
    )
    yield "BMP RLE that jumps", bmp((500, 500), b"\0\2\0\1" * 25_000, compression=1)
    yield "BMP 50000x50000", bmp((50_000, 50_000), bytes(99), bits=24)
    yield "BMP upside down", bmp((90, -32), bytes(92 * 32))
    yield "BMP -2^31 lines", bmp((90, -(1 << 31)), bytes(92 * 32))
    yield "BMP -90 wide", bmp((-90, 32), bytes(92 * 32))
    yield "BMP that is a JPEG", bmp((90, 32), saved(drawn(), "JPEG"), bits=24, compression=4)
    yield "BMP 2 MP, 1 bit", bmp(LARGEST, bytes(252 * 1000), bits=1)
    yield (
        "BMP 65,536 colours",
        bmp((90, 32), bytes(MIB // 2)).replace(
            struct.pack("<II", 256, 0), struct.pack("<II", 65536, 0), 1
        ),
    )
    yield "BMP ends early", bmp((90, 32), b"")


# -- what is no image of these formats


def _other_files() -> Iterator[tuple[str, bytes]]:
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="90" height="32"><text>%s</text></svg>'
    laughs = b"".join(b'<!ENTITY l%d "%s">' % (i + 1, b"&l%d;" % i * 10) for i in range(9))
    yield "nothing", b""
    yield "one byte", b"\x89"
    yield "HTML", b"<!doctype html><title>Not found</title>" * 9
    yield "SVG", svg % b"1a8m"
    yield "SVG of a billion laughs", b"<!DOCTYPE x [" + laughs + b"]>" + svg % b"&l9;"
    yield "gzip of 100 MB", gzip.compress(bytes(100 * MIB), 1)
    for kind in ("TIFF", "ICO", "EPS", "PDF", "PPM", "TGA", "JPEG2000", "AVIF", "PCX", "ICNS"):
        try:
            yield kind, saved(drawn(), kind)
        except (KeyError, OSError):
            continue  # not in this build of Pillow
    yield "TIFF that says it is a PNG", b"\x89PNG\r\n\x1a\n" + saved(drawn(), "TIFF")
    yield "EPS that runs code", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) deletefile"
    yield "XPM", b'/* XPM */ static char *x[] = {"9 9 1 1", "a c red"};'
    yield "JPEG 2000 codestream", b"\xff\x4f\xff\x51" + bytes(60)
    yield "RIFF that is a WAVE", b"RIFF\x24\0\0\0WAVEfmt " + bytes(40)
    yield "more than a mebibyte", saved(drawn(), "PNG") + bytes(MIB)


def bombs() -> dict[str, bytes]:
    """Every hostile file by its name."""
    parts = (_png_bombs, _jpeg_bombs, _gif_bombs, _webp_bombs, _bmp_bombs, _other_files)
    found = {name: data for part in parts for name, data in part()}
    for name, data in originals().items():
        found[f"half of {name}"] = data[: len(data) // 2]
        found[f"{name}, the last byte missing"] = data[:-1]
    return found
