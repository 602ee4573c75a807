"""What images that were made to harm do to the reader: errors, time, memory.

    python benchmarks/hostile_images.py bombs [--only WORD] [--limit-ms 250] [--limit-mb 50]
    python benchmarks/hostile_images.py mutations [--count 100000] [--seed 0]

``bombs`` reads each file of ``hostile_corpus`` in a process of its own, forked from one that has
loaded the model and read ordinary images; one JSON line each. ``mutations`` damages ordinary images
of all formats at random and reads them in one process; a process that dies is noted and followed by
another. Both end with a line of what was worst. The exit code is 1 when something else than a
reading or an ``ImageError`` came, when anything was warned about or printed, or above a limit.

Milliseconds are of the processor, so that they do not depend on what else runs, and of the clock.
Megabytes are how far the resident memory rose above where it was before the image. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import IO, Any

from hostile_corpus import bombs
from ordinary_images import chunk, originals

from scrapy_captcha import Recognizer
from scrapy_captcha.errors import ImageError
from scrapy_captcha.image import MAX_BYTES

#: An image that takes longer is taken for one that never ends.
HANGS = 60.0
WARMING = 500
PNG = b"\x89PNG\r\n\x1a\n"
#: Numbers at which programs are wrong, as they stand in files.
EDGES = [
    value.to_bytes(width, order)
    for order in ("big", "little")
    for width in (1, 2, 4)
    for value in {v % (1 << 8 * width) for v in (0, 1, 2, 127, 128, 255, 4096, -1, -2, 1 << 15)}
]


# -- damage


def mutated(chance: random.Random, images: list[bytes]) -> bytes:
    """An image with one to eight things wrong; half of the PNGs get right checksums again."""
    data = bytearray(chance.choice(images))
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        _damage(chance, data, images)
    if data[:8] == PNG and chance.random() < 0.7:
        return repaired(bytes(data))
    return bytes(data[: MAX_BYTES + 1])


def _damage(chance: random.Random, data: bytearray, images: list[bytes]) -> None:
    # headers are short and decide most
    near = chance.random() < 0.5
    at = chance.randrange(max(min(len(data), 64 if near else len(data)), 1))
    length = int(2 ** chance.uniform(0, 9))
    match chance.randrange(8):
        case 0 if data:
            data[at % len(data)] ^= 1 << chance.randrange(8)
        case 1:
            data[at : at + 1] = chance.randbytes(1)
        case 2:
            edge = chance.choice(EDGES)
            data[at : at + len(edge)] = edge
        case 3:
            del data[at : at + length]
        case 4:
            data[at:at] = chance.randbytes(length)
        case 5:
            data[at:at] = data[at : at + length] * chance.choice((1, 2, 50))
        case 6:
            other = chance.choice(images)
            begin = chance.randrange(len(other))
            data[at : at + length] = other[begin : begin + length]
        case _:
            del data[at + length :]


def repaired(data: bytes) -> bytes:
    """A PNG with the checksums that its chunks should have."""
    parts, at = [data[:8]], 8
    while at + 8 <= len(data):
        length, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        parts.append(chunk(name, data[at + 8 : at + 8 + length]))
        at += 12 + length
    return b"".join(parts)


# -- one process that reads


class Judge:
    """Reads images and notes what came of it, and all that is warned about."""

    def __init__(self, model: str) -> None:
        self._reader = Recognizer.load(model)
        self._warned: list[str] = []
        warnings.simplefilter("always")
        warnings.showwarning = lambda text, kind, *_, **__: self._warned.append(
            f"{kind.__name__}: {text}"
        )

    def read(self, data: bytes) -> dict[str, Any]:
        """Read one image."""
        self._warned.clear()
        wall, processor = time.perf_counter(), time.thread_time()
        try:
            text = self._reader.read(data).text
        except ImageError as e:
            outcome, said = "refused", str(e)
        except BaseException as e:  # noqa: BLE001 - that is what is looked for
            outcome, said = "error", f"{type(e).__name__}: {e}"
        else:
            outcome, said = "read", text
        return {
            "outcome": outcome,
            "said": said[:120],
            "cpu_ms": round((time.thread_time() - processor) * 1000, 2),
            "wall_ms": round((time.perf_counter() - wall) * 1000, 2),
            "warned": self._warned[:3],
        }


def memory(field: str) -> float:
    """Megabytes of this process: ``VmRSS`` now, ``VmHWM`` at its peak."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise OSError(f"no {field} in /proc/self/status")


def forget_peak() -> None:
    """Have the peak begin where the memory is now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def read_forked(judge: Judge, data: bytes) -> dict[str, Any]:
    """Read one image in a child, and say what its memory grew by."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        forget_peak()
        before = memory("VmRSS")
        found = judge.read(data)
        found["mb"] = round(memory("VmHWM") - before, 2)
        os.write(theirs, json.dumps(found).encode())
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as answer:
        text = answer.read()
    _, status = os.waitpid(child, 0)
    return json.loads(text) if text else {"outcome": "died", "said": f"status {status}"}


def serve_bombs(model: str) -> None:
    """Read images from standard input, each behind its length, and print a line for each."""
    judge = Judge(model)
    for data in originals().values():
        judge.read(data)
    while head := sys.stdin.buffer.read(4):
        print(json.dumps(read_forked(judge, sys.stdin.buffer.read(int.from_bytes(head, "big")))))
        sys.stdout.flush()


def serve_mutations(model: str, seed: int, begin: int, end: int, at: IO[bytes]) -> None:
    """Read mutations, say in a file which one it is at, and print what was worst."""
    judge, images = Judge(model), list(originals().values())
    for data in images:
        judge.read(data)
    worst: dict[str, Any] = {"read": 0, "refused": 0, "wrong": [], "cpu_ms": 0.0, "wall_ms": 0.0}
    base = 0.0
    for number in range(begin, end):
        os.pwrite(at.fileno(), number.to_bytes(8, "big"), 0)
        if number == min(begin + WARMING, end - 1):
            forget_peak()
            base = memory("VmRSS")
        found = judge.read(mutated(random.Random(f"{seed} {number}"), images))
        if found["outcome"] == "error" or found["warned"]:
            worst["wrong"].append({"number": number, **found})
        else:
            worst[found["outcome"]] += 1
        for key in ("cpu_ms", "wall_ms"):
            if found[key] > worst[key]:
                worst |= {key: found[key], f"{key}_number": number}
    worst["peak_mb"] = round(memory("VmHWM") - base, 2)
    worst["kept_mb"] = round(memory("VmRSS") - base, 2)
    print(json.dumps(worst))


# -- the process that measures


def worker(options: argparse.Namespace, *words: str, **more: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__, *words, "--model", options.model]
    return subprocess.Popen(command, stdout=subprocess.PIPE, **more)


def measure_bombs(options: argparse.Namespace) -> int:
    """Read all bombs, print a line for each and one for all."""
    failed, results = [], []
    with tempfile.TemporaryFile() as errors:
        process = worker(options, "serve-bombs", stdin=subprocess.PIPE, stderr=errors)
        assert process.stdin is not None
        assert process.stdout is not None
        for name, data in bombs().items():
            if options.only not in name:
                continue
            process.stdin.write(len(data).to_bytes(4, "big") + data)
            process.stdin.flush()
            found = json.loads(process.stdout.readline())
            results.append({"name": name, "bytes": len(data)} | found)
            print(json.dumps(results[-1]), flush=True)
            if wrong(found, options):
                failed.append(name)
        process.communicate()
        printed = noise_in(errors)
    print(
        json.dumps(
            {
                "images": len(results),
                "read": sum(found["outcome"] == "read" for found in results),
                "refused": sum(found["outcome"] == "refused" for found in results),
                "failed": failed,
                "printed": printed[:200],
                "worst": {
                    key: max(results, key=lambda found: found.get(key, 0.0))
                    for key in ("cpu_ms", "wall_ms", "mb")
                },
            }
        )
    )
    return int(bool(failed or printed or not results))


def wrong(found: dict[str, Any], options: argparse.Namespace) -> bool:
    """Whether an image did what no image may."""
    return (
        found["outcome"] not in ("read", "refused")
        or bool(found["warned"])
        or found["mb"] > options.limit_mb
        or found["cpu_ms"] > options.limit_ms
    )


def noise_in(errors: IO[bytes]) -> str:
    """What was printed to standard error, but for LiteRT's greeting."""
    errors.seek(0)
    lines = errors.read().decode(errors="replace").splitlines()
    return "\n".join(line for line in lines if "XNNPACK delegate" not in line)


def measure_mutations(options: argparse.Namespace) -> int:
    """Read many mutations and print what was worst of them."""
    total: dict[str, Any] = {"count": 0, "read": 0, "refused": 0, "wrong": [], "died": []}
    worst: dict[str, float] = {"cpu_ms": 0, "wall_ms": 0, "peak_mb": 0, "kept_mb": 0}
    begin, printed = 0, ""
    while begin < options.count:
        with tempfile.TemporaryFile() as errors, tempfile.NamedTemporaryFile() as at:
            words = [str(number) for number in (options.seed, begin, options.count)]
            process = worker(options, "serve-mutations", *words, "--at", at.name, stderr=errors)
            watch(process, at)
            output, _ = process.communicate()
            done = int.from_bytes(os.pread(at.fileno(), 8, 0), "big")
            printed += noise_in(errors)
        if process.returncode:
            total["died"].append({"number": done, "status": process.returncode})
        else:
            found = json.loads(output)
            for key in ("read", "refused", "wrong"):
                total[key] += found[key]
            worst = {key: max(value, found[key]) for key, value in worst.items()}
            total |= {key: value for key, value in found.items() if key.endswith("_number")}
        begin = done + 1
    total["count"] = options.count
    print(json.dumps({**total, **worst, "printed": printed[:200]}))
    above = worst["cpu_ms"] > options.limit_ms or worst["peak_mb"] > options.limit_mb
    return int(bool(total["wrong"] or total["died"] or printed or above))


def watch(process: subprocess.Popen[bytes], at: IO[bytes]) -> None:
    """Kill a process that stays at one image."""
    seen, since = b"", time.monotonic()
    while process.poll() is None:
        now = os.pread(at.fileno(), 8, 0)
        if now != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since > HANGS:
            process.kill()
        time.sleep(0.05)


def main() -> int:
    """Parse the options and do what they say."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    both = argparse.ArgumentParser(add_help=False)
    both.add_argument("--model", default="alnum4")
    both.add_argument("--limit-ms", type=float, default=250, help="of the processor, each")
    both.add_argument("--limit-mb", type=float, default=50)
    one = commands.add_parser("bombs", parents=[both])
    one.add_argument("--only", default="", help="a part of the names of those to read")
    many = commands.add_parser("mutations", parents=[both])
    many.add_argument("--count", type=int, default=100_000)
    many.add_argument("--seed", type=int, default=0)
    commands.add_parser("serve-bombs", parents=[both])
    hidden = commands.add_parser("serve-mutations", parents=[both])
    hidden.add_argument("numbers", type=int, nargs=3)
    hidden.add_argument("--at", type=Path)
    options = parser.parse_args()
    if options.command == "serve-bombs":
        serve_bombs(options.model)
        return 0
    if options.command == "serve-mutations":
        with options.at.open("r+b", buffering=0) as at:
            serve_mutations(options.model, *options.numbers, at)
        return 0
    return (measure_bombs if options.command == "bombs" else measure_mutations)(options)


if __name__ == "__main__":
    sys.exit(main())
