"""A fast site that asks for a captcha every so many pages, knows the right answers, and can fail.

    python walled_site.py [--every 20] [--faults 0.2] [--wrong 0.1] [--redirects] [--delay 0.05]

Prints its address and serves until its standard input closes; then it prints, as one line of JSON,
what it has served. Its images are the golden images of the shipped model ``alnum4``, which that
reads right, each made unique by a number in a text chunk.

``/page/<n>`` is a page, or the wall until the session has passed it; ``/hurry`` ends ``--drip``. A
share of all requests, given by ``--faults``, whatever they are for, ends in one of :data:`FAULTS`
instead; half of these requests do what they ask for all the same, and only the answer is lost.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import socket
import struct
import subprocess
import sys
import zlib
from collections import Counter
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from scrapy_captcha.bundle import open_bundle

if TYPE_CHECKING:
    from collections.abc import Iterator

FAULTS = (
    "reset",  # the connection ends without a byte
    "broken",  # it ends within the body
    "short",  # the body is shorter than announced
    "cut",  # the body ends early, and is announced so
    "empty",  # there is none
    "hang",  # nothing ever comes
    "error",  # a status of 500 or more
    "type",  # the content type is another one
    "garbled",  # the body is not encoded as announced
)
TYPES = ("text/html; charset=utf-8", "image/png", "application/json", "text/plain", "x/y")
FILLING = '<p class="price">12.50</p>' + "<p>" + 'lorem <a href="#">ipsum</a> ' * 20 + "</p>"
PAGE = '<!doctype html><title>{0}</title><h1 class="name">page {0}</h1>' + FILLING
WALL = (
    "<!doctype html><title>Verification</title><h1>Please type the characters</h1>"
    '<form method="post" action="/verify"><input type="hidden" name="next" value="{}">'
    '<img src="/captcha.png?{}" alt="captcha"><input name="code"><button>Go on</button></form>'
)


@dataclass(slots=True)
class Visitor:
    """A session: how many pages it may still have, and the answer to its last image."""

    sid: str
    left: int = 0
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What to send."""

    body: bytes = b""
    status: int = 200
    content_type: str = TYPES[0]
    headers: str = ""

    def head(self, length: int) -> bytes:
        """Status line and headers, for a body of that length."""
        return (
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}\r\n"
            f"Content-Type: {self.content_type}\r\nContent-Length: {length}\r\n"
            f"{self.headers}\r\n"
        ).encode()


class Site:
    """What the site knows, and does.

    :param every: how many pages a session has after each captcha
    :param wrong: share of the images that ask for another text than anybody reads in them
    :param redirects: say no with a redirect to the page, and so to its wall
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.every: int = options.every
        self.redirects: bool = options.redirects
        self.drip: bool = options.drip
        self.tally: Counter[str] = Counter()
        self._faults: float = options.faults
        self._wrong: float = options.wrong
        self._random = random.Random(options.seed)
        self._visitors: dict[str, Visitor] = {}
        golden = open_bundle("alnum4").manifest.golden
        self._images = [(one.image[:-12], one.image[-12:], one.text) for one in golden]

    def fault(self) -> str | None:
        """How the request at hand fails, if it does."""
        if self._random.random() >= self._faults:
            return None
        fault = self._random.choice(FAULTS)
        self.tally[f"fault/{fault}"] += 1
        return fault

    def does_it_all_the_same(self) -> bool:
        """Whether a request that fails has its effect."""
        return self._random.random() < 0.5

    def answer(self, method: str, target: str, cookie: str, body: str) -> Answer:
        """Serve a request."""
        visitor = self._visitors.get(cookie.partition("sid=")[2].partition(";")[0])
        headers = ""
        if visitor is None:
            visitor = Visitor(f"{self._random.getrandbits(64):016x}")
            self._visitors[visitor.sid] = visitor
            headers = f"Set-Cookie: sid={visitor.sid}; Path=/\r\n"
        path = target.partition("?")[0]
        if path.startswith("/page/"):
            return self._page(visitor, path, headers)
        if path == "/captcha.png":
            return Answer(self._image(visitor), content_type="image/png", headers=headers)
        if path == "/verify" and method == "POST":
            return self._verify(visitor, dict(parse_qsl(body)), headers)
        self.tally["other"] += 1
        if path == "/hurry":
            self.drip = False
        if path in {"/", "/hurry"}:
            return Answer(b"<!doctype html><title>Welcome</title>", headers=headers)
        return Answer(b"not found", 404, "text/plain", headers)

    def _page(self, visitor: Visitor, path: str, headers: str) -> Answer:
        if self.every and visitor.left <= 0:
            return self._wall(path, headers)
        visitor.left -= 1
        self.tally["pages"] += 1
        return Answer(PAGE.format(path.removeprefix("/page/")).encode(), headers=headers)

    def _wall(self, path: str, headers: str) -> Answer:
        self.tally["walls"] += 1
        return Answer(WALL.format(path, self.tally["walls"]).encode(), headers=headers)

    def _image(self, visitor: Visitor) -> bytes:
        self.tally["images"] += 1
        number = self.tally["images"]
        # the number is never read: it makes two images of the same pixels different files
        start, end, visitor.code = self._random.choice(self._images)
        wanted = "right"
        if self._random.random() < self._wrong:
            visitor.code, wanted = "????", "wrong"
        chunk = b"tEXtNote\0" + f"{number} {wanted}".encode()
        size, check = struct.pack(">I", len(chunk) - 4), struct.pack(">I", zlib.crc32(chunk))
        return start + size + chunk + check + end

    def _verify(self, visitor: Visitor, form: dict[str, str], headers: str) -> Answer:
        right = visitor.code is not None and form.get("code", "").lower() == visitor.code
        visitor.code = None
        self.tally["accepted" if right else "rejected"] += 1
        if right:
            visitor.left = self.every
        path = form.get("next", "/")
        if right or self.redirects:
            return Answer(b"", 302, headers=f"Location: {path}\r\n{headers}")
        return self._wall(path, headers)


class Server(asyncio.Protocol):
    """One connection, which is kept open."""

    def __init__(self, site: Site, delay: float) -> None:
        self._site = site
        self._delay = delay
        self._pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Serve each whole request."""
        self._pending += data
        while (end := self._pending.find(b"\r\n\r\n")) >= 0:
            line, *lines = self._pending[:end].decode("latin-1").split("\r\n")
            headers = {}
            for header in lines:
                name, _, value = header.partition(":")
                headers[name.lower()] = value.strip()
            stop = end + 4 + int(headers.get("content-length", 0))
            if len(self._pending) < stop:
                return
            body, self._pending = self._pending[end + 4 : stop], self._pending[stop:]
            method, target, _ = line.split(" ", 2)
            if self._delay:
                wait = random.uniform(0, 2 * self._delay)
                asyncio.get_running_loop().call_later(
                    wait, self._serve, method, target, headers.get("cookie", ""), body.decode()
                )
            else:
                self._serve(method, target, headers.get("cookie", ""), body.decode())

    def _serve(self, method: str, target: str, cookie: str, body: str) -> None:
        if self._transport.is_closing():
            return
        site, write = self._site, self._transport.write
        site.tally["requests"] += 1
        fault = site.fault()
        if fault is None:
            answer = site.answer(method, target, cookie, body)
            write(answer.head(len(answer.body)))
            if site.drip and answer.content_type == "image/png":
                self._drip(answer.body)
            else:
                write(answer.body)
            return
        answer = Answer(b"<h1>Oops</h1>")
        if fault in {"type", "garbled", "cut", "broken"} or site.does_it_all_the_same():
            answer = site.answer(method, target, cookie, body)
        self._fail(fault, answer)

    def _drip(self, body: bytes) -> None:
        """Send a byte, and the rest a byte a second."""
        if body and not self._transport.is_closing():
            self._transport.write(body[:1])
            asyncio.get_running_loop().call_later(1.0, self._drip, body[1:])

    def _fail(self, fault: str, answer: Answer) -> None:
        write, body = self._transport.write, answer.body
        half, wrong = len(body) // 2, random.choice(TYPES)
        if fault == "reset":
            self._reset()
        elif fault == "broken":
            write(answer.head(len(body) + 9) + body[:half])
            self._reset()
        elif fault == "short":
            write(answer.head(len(body) + 9) + body[:half])
            self._transport.close()
        elif fault in {"cut", "empty"}:
            body = body[:half] if fault == "cut" else b""
            write(answer.head(len(body)) + body)
        elif fault == "error":
            status = random.choice((500, 502, 503, 504))
            write(Answer(body, status, headers=answer.headers).head(len(body)) + body)
        elif fault == "type":
            changed = Answer(body, answer.status, wrong, answer.headers)
            write(changed.head(len(body)) + body)
        elif fault == "garbled":
            headers = f"Content-Encoding: gzip\r\n{answer.headers}"
            changed = Answer(body, answer.status, answer.content_type, headers)
            write(changed.head(len(body)) + body)

    def _reset(self) -> None:
        """End the connection by an RST, so that the client sees an error and no orderly end."""
        raw = self._transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()


@dataclass
class Running:
    """The site in a process of its own.

    :ivar served: what it has served, once it has ended
    """

    url: str
    served: dict[str, int] = field(default_factory=dict)


@contextlib.contextmanager
def running(*options: str) -> Iterator[Running]:
    """Run the site with these options until the block ends."""
    process = subprocess.Popen(
        [sys.executable, __file__, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    site = Running(process.stdout.readline().strip())
    try:
        if not site.url:
            raise RuntimeError(f"the site did not start; it ended with code {process.wait()}")
        yield site
    finally:
        process.stdin.close()
        site.served = json.loads(process.stdout.readline() or "{}")
        process.wait()
        process.stdout.close()


async def serve(options: argparse.Namespace) -> None:
    """Serve on a free port of the loopback interface until standard input closes."""
    site = Site(options)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Server(site, options.delay), "127.0.0.1", 0, backlog=1024
    )
    host, port = server.sockets[0].getsockname()
    print(f"http://{host}:{port}", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    print(json.dumps(site.tally), flush=True)


def parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--every", type=int, default=20, help="pages after a captcha; 0: no walls")
    parser.add_argument("--faults", type=float, default=0.0, help="share of the requests")
    parser.add_argument("--wrong", type=float, default=0.0, help="share of unanswerable images")
    parser.add_argument("--redirects", action="store_true", help="reject by a redirect")
    parser.add_argument("--drip", action="store_true", help="send images a byte a second")
    parser.add_argument("--delay", type=float, default=0.0, help="mean seconds before an answer")
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    asyncio.run(serve(parser().parse_args()))
