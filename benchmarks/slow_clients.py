"""What clients that never finish their requests cost one that does.

    python benchmarks/slow_clients.py [--sockets 500] [--rounds 6] [--requests 1000] [--json]

`scrapy captcha serve` with one reader. A healthy client sends an image at a time over a kept-alive
connection, a pause of 2 ms between; in every other round that many sockets hold open requests,
each of which gets a byte of its head twice a second, and is opened anew as soon as the service
closes it. The figures are medians of the rounds. The exit code is 1 when the healthy client's p99
rises by 20 % or more, or when it is refused anything.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from scrapy_captcha.bundle import open_bundle

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST = 1.2
PAUSE = 0.002
HEADERS = {"Content-Type": "image/png"}


@contextlib.contextmanager
def serving() -> Iterator[int]:
    """Run the service; yields its port when it is ready."""
    repository = str(Path(__file__).parent.parent)
    path = os.pathsep.join((repository, os.environ.get("PYTHONPATH", "")))
    command = [sys.executable, "-m", "scrapy", "captcha", "serve", "--port", "0", "--readers", "1"]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    try:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if found := re.search(r" on http://127\.0\.0\.1:(\d+)/captcha", line):
                break
        else:
            sys.exit(f"the service does not start:\n{said}")
        port = int(found[1])
        while status(port, "/ready") != 200:
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.communicate()


def status(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", path)
        return connection.getresponse().status


def measure(port: int, requests: int) -> tuple[list[float], int]:
    """Latencies in seconds, and how many requests got no reading."""
    image = open_bundle("alnum4").manifest.golden[0].image
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    seconds, refused = [], 0
    for _ in range(requests):
        begin = time.perf_counter()
        connection.request("POST", "/captcha", image, HEADERS)
        response = connection.getresponse()
        response.read()
        seconds.append(time.perf_counter() - begin)
        refused += response.status != 200
        time.sleep(PAUSE)
    connection.close()
    return seconds, refused


def opened(port: int) -> socket.socket:
    peer = socket.create_connection(("127.0.0.1", port))
    peer.setblocking(False)
    peer.send(b"GET /")
    return peer


def dribble(port: int, sockets: int) -> None:
    """What this program does as the slow clients; a line says that they are all there."""
    peers = [opened(port) for _ in range(sockets)]
    print("open", flush=True)
    while True:
        for number, peer in enumerate(peers):
            try:
                peer.send(b"a")
                closed = peer.recv(1) == b""
            except BlockingIOError:
                continue
            except OSError:
                closed = True
            if closed:
                peer.close()
                peers[number] = opened(port)
        time.sleep(0.5)


@contextlib.contextmanager
def slow_clients(port: int, sockets: int) -> Iterator[None]:
    command = [sys.executable, __file__, "--dribble", str(port), "--sockets", str(sockets)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield
    finally:
        process.kill()
        process.communicate()


def percentile(seconds: list[float], share: float) -> float:
    return sorted(seconds)[int(len(seconds) * share)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sockets", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=6, help="of each kind")
    parser.add_argument("--requests", type=int, default=1000, help="of a round")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--dribble", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.dribble is not None:
        dribble(options.dribble, options.sockets)
    refused = 0
    p99: dict[str, list[float]] = {"alone": [], "beside": []}
    with serving() as port:
        measure(port, options.requests // 5)  # to warm up
        for _ in range(options.rounds):  # in turn, so that what else the machine does meets both
            for kind, rounds in p99.items():
                around = contextlib.nullcontext()
                with slow_clients(port, options.sockets) if kind == "beside" else around:
                    seconds, refused_now = measure(port, options.requests)
                refused += refused_now
                rounds.append(1000 * percentile(seconds, 0.99))
    alone, beside = median(p99["alone"]), median(p99["beside"])
    found = {
        "p99_ms_alone": alone,
        "p99_ms_beside": beside,
        "ratio": beside / alone,
        "refused": refused,
        "rounds": p99,
    }
    if options.json:
        print(json.dumps(found))
    else:
        print(
            f"p99 {alone:.2f} ms alone, {beside:.2f} ms beside {options.sockets} slow sockets: ",
            end="",
        )
        print(f"{beside / alone:.2f}; {refused} refused")
    return int(beside >= MOST * alone or refused > 0)


if __name__ == "__main__":
    sys.exit(main())
