"""Processes that write to a dataset at once or are killed at it; prints JSON lines for the tests.

    python dataset_processes.py kills DATASET KILLS WRITERS SEED
    python dataset_processes.py cuts DISK CUTS WRITERS SEED
    python dataset_processes.py calls FOLDER
    python dataset_processes.py same DATASET PROCESSES IMAGES

A fork takes milliseconds, so thousands of kills take seconds; it is done here and not in pytest,
which has threads. ``cuts`` wants root, and a file with an ext4 file system in it: its power is cut.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import random
import select
import signal
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from scrapy_captcha.dataset import Dataset
from scrapy_captcha.errors import DatasetError
from scrapy_captcha.verify import verify

SITE = "127.0.0.1:8000"
CALLS = ("open", "write", "fsync", "link", "unlink", "mkdir", "close")
#: What tells an ext4 file system to take no more writes, and not to save those that wait.
EXT4_IOC_SHUTDOWN, NOLOGFLUSH = 0x8004587D, 2
#: One image in so many is stored under two labels.
CONFLICT_EVERY = 5


def png(seed: int, size: int = 300) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + random.Random(seed).randbytes(size)


def fork(work, *arguments) -> tuple[int, int]:
    """Run ``work(pipe, *arguments)`` in a child; its pid and the end of the pipe to read."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reader)
            work(writer, *arguments)
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    return pid, reader


def drain(reader: int) -> bytes:
    with os.fdopen(reader, "rb") as f:
        return f.read()


def store_for_ever(pipe: int, root: str, seed: int) -> None:
    """Store images, some of which the other writers store too, and acknowledge each."""
    site = Dataset(Path(root)).site(SITE)
    chance = random.Random(seed)
    while True:
        number = chance.randrange(10**6) if chance.random() < 0.8 else chance.randrange(50)
        image = png(number, size=chance.choice((200, 3000, 20_000)))
        digest = hashlib.sha256(image).hexdigest()
        verdict = chance.choice(("accepted", "rejected"))
        guess = digest[-4:] if verdict == "accepted" else "zzzz"
        path = site.store(image, guess, 0.5, "m", verdict).path
        os.write(pipe, (json.dumps([str(path), digest, guess, verdict]) + "\n").encode())


def verify_for_ever(pipe: int, root: str) -> None:
    """Check and mend meanwhile; what living writers are at is none of its business."""
    while True:
        if Path(root).exists():
            verify(Path(root))


def read_some(children: list[tuple[int, int]], lines: int) -> bytes:
    """What comes of children until there are so many lines."""
    seen = b""
    while seen.count(b"\n") < lines:
        for reader in select.select([reader for _, reader in children], [], [])[0]:
            seen += os.read(reader, 65536)
    return seen


def kills(root: str, kills: int, writers: int, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(kills):
        children = [fork(store_for_ever, root, chance.randrange(10**9)) for _ in range(writers)]
        seen = read_some(children, chance.randrange(8 * writers))
        children.append(fork(verify_for_ever, root))
        seen += read_some(children[:-1], chance.randrange(2 * writers))
        for pid, _ in children:
            os.kill(pid, signal.SIGKILL)
        for pid, reader in children:
            os.waitpid(pid, 0)
            seen += drain(reader)
        sys.stdout.write(seen.decode())


def store_until_the_disk_fails(pipe: int, root: str, seed: int) -> None:
    with suppress(DatasetError):
        store_for_ever(pipe, root, seed)


def cuts(disk: str, cuts: int, writers: int, seed: int) -> None:
    """Cut the power of a disk that is written to, again and again."""
    chance = random.Random(seed)
    folder = Path(disk).with_suffix(".mounted")
    folder.mkdir(exist_ok=True)
    for _ in range(cuts):
        subprocess.run(["mount", "-o", "loop", disk, folder], check=True)
        try:
            seeds = [chance.randrange(10**9) for _ in range(writers)]
            children = [
                fork(store_until_the_disk_fails, str(folder / "captchas"), seed) for seed in seeds
            ]
            seen = read_some(children, chance.randrange(1, 10 * writers))
            descriptor = os.open(folder, os.O_RDONLY)
            fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, struct.pack("I", NOLOGFLUSH))
            os.close(descriptor)
            for pid, reader in children:
                seen += drain(reader)
                assert os.waitpid(pid, 0)[1] == 0
        finally:
            subprocess.run(["umount", folder], check=True)
        sys.stdout.write(seen.decode())


def store_until(pipe: int, root: str, call: int) -> None:
    """Store a first image, then a second, and be killed at a given system call of that."""
    site = Dataset(Path(root)).site(SITE)
    if call % 2:  # every other time the folders and the attempts file are there already
        site.store(png(1), "first", 0.5, "m", "accepted")
    left = call // 2

    def killed_at(name: str):
        real = getattr(os, name)

        def wrapper(*arguments, **keywords):
            nonlocal left
            left -= 1
            if left == -1:
                if name == "write":
                    real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **keywords)

        return wrapper

    originals = {name: getattr(os, name) for name in CALLS}
    for name in CALLS:
        setattr(os, name, killed_at(name))
    site.store(png(2), "second", 0.5, "m", "accepted")
    for name, real in originals.items():
        setattr(os, name, real)
    os.write(pipe, b"stored")


def calls(folder: str) -> None:
    done = set()
    call = 0
    while len(done) < 2:
        root = str(Path(folder) / str(call))
        pid, reader = fork(store_until, root, call)
        stored = drain(reader) == b"stored"
        killed = os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        assert stored != killed
        if stored:
            done.add(call % 2)
        print(json.dumps([root, bool(call % 2), stored]))
        call += 1


def store_same(pipe: int, site, images: int, gate: int, number: int) -> None:
    os.read(gate, 1)  # until the parent closes its end, for all at once
    new, told = 0, []
    for n in range(images):
        label = "xy9z" if n % CONFLICT_EVERY == 0 and number % 2 else "ab3d"
        result = site.store(png(n), label, 0.5, "m", "accepted")
        new += result.new
        if result.conflict:
            told.append(n)
    os.write(pipe, json.dumps([os.getpid(), new, told]).encode() + b"\n")


def same(root: str, processes: int, images: int) -> None:
    site = Dataset(Path(root)).site(SITE)
    site.store(png(images), "parent", 0.5, "m", "accepted")  # its open file must not be shared
    gate, opener = os.pipe()

    def work(pipe: int, number: int) -> None:
        os.close(opener)
        store_same(pipe, site, images, gate, number)

    children = [fork(work, number) for number in range(processes)]
    os.close(opener)
    for pid, reader in children:
        sys.stdout.write(drain(reader).decode())
        os.waitpid(pid, 0)


if __name__ == "__main__":
    command, target, *numbers = sys.argv[1:]
    {"kills": kills, "cuts": cuts, "calls": calls, "same": same}[command](
        target, *map(int, numbers)
    )
