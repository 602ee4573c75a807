"""A fast site without captchas: a page of links, and the pages behind them, all made at the start.

    python ordinary_site.py [--pages 400] [--kb 50] [--forms]

Prints its address and serves until its standard input closes, so that it ends with the benchmark.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

FORM = (
    '<form action="/search" class="search"><img src="/static/logo.png" alt="Shop">'
    '<input type="text" name="q" placeholder="Search"><button>Search</button></form>'
)
PARAGRAPH = "<p>" + 'lorem <a href="#">ipsum</a> ' * 40 + "</p>\n"
PICTURE = '<img src="/static/%d.jpg" alt="product">'


def index(pages: int) -> str:
    """The page that links to all others."""
    links = "".join(f'<li><a href="/page/{n}">Page {n}</a></li>' for n in range(1, pages + 1))
    return f"<!doctype html><title>Index</title><ul>{links}</ul>"


def page(number: int, size: int, forms: bool) -> str:
    """An ordinary page of about ``size`` bytes; with ``forms``, a search form and pictures."""
    head = (
        f'<!doctype html><title>Page {number}</title><h1 class="name">Page {number}</h1>'
        f'<p class="price">{number * 3}.50</p>'
    )
    if forms:
        head += FORM + "".join(PICTURE % n for n in range(20))
    return head + PARAGRAPH * max(1, (size - len(head)) // len(PARAGRAPH))


def answer(status: str, html: str) -> bytes:
    """A whole HTTP answer."""
    body = html.encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Server(asyncio.Protocol):
    """Answers from a dict of ready-made answers, keeping connections open."""

    def __init__(self, answers: dict[bytes, bytes]) -> None:
        self._answers = answers
        self._pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each whole request."""
        *requests, self._pending = (self._pending + data).split(b"\r\n\r\n")
        for request in requests:
            path = request.split(b" ", 2)[1]
            self._transport.write(self._answers.get(path, self._answers[b""]))


async def serve(answers: dict[bytes, bytes]) -> None:
    """Serve on a free port of the loopback interface until standard input closes."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Server(answers), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    print(f"http://{host}:{port}/", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


def main() -> None:
    """Parse the options and serve."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pages", type=int, default=400)
    parser.add_argument("--kb", type=int, default=50)
    parser.add_argument("--forms", action="store_true")
    options = parser.parse_args()
    answers = {
        b"": answer("404 Not Found", "not found"),
        b"/": answer("200 OK", index(options.pages)),
    }
    for number in range(1, options.pages + 1):
        html = page(number, options.kb * 1024, options.forms)
        answers[f"/page/{number}".encode()] = answer("200 OK", html)
    asyncio.run(serve(answers))


if __name__ == "__main__":
    main()
