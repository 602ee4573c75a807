"""A small bookshop that asks for captchas: ``python captcha_site.py [--port 8000]``.

- ``/books`` and ``/book/N`` answer with a captcha page until the session has passed one.
- ``/search`` is a form that asks for a captcha each time, and carries a token that works once.

A session is a cookie. It has one code, that of the last image shown to it, and each submission uses
the code up, right or wrong. Case does not matter. The images are made by the ``captcha`` package.
"""

from __future__ import annotations

import argparse
import contextlib
import http.cookies
import http.server
import secrets
import string
import threading
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote

from captcha.image import ImageCaptcha

if TYPE_CHECKING:
    from collections.abc import Callable

ALPHABET = string.ascii_lowercase + string.digits
PAGE_SIZE = 10
PRICES = {
    "Amber Harbour": "12.50",
    "A Field of Lanterns": "9.90",
    "Birds of the Estuary": "24.00",
    "Clockmaker's Yard": "14.25",
    "The Copper Road": "11.80",
    "Downstream": "8.75",
    "Eleven Bridges": "16.40",
    "The Fig Tree Letters": "13.10",
    "Glass and Gravel": "10.60",
    "Hill Farm": "7.95",
    "An Inland Sea": "18.30",
    "Juniper Street": "12.20",
    "Kites over Town": "9.45",
    "The Long Orchard": "15.75",
    "Moss": "6.80",
    "Night Ferry": "13.65",
    "One Hundred Stairs": "17.90",
    "Paper Weather": "8.40",
    "Salt and Cedar": "11.15",
    "Winter Almanac": "21.00",
}
NAMES = tuple(PRICES)
NUMBERS = tuple(str(number) for number in range(1, len(NAMES) + 1))


def random_code() -> str:
    """Four characters a-z0-9."""
    return "".join(secrets.choice(ALPHABET) for _ in range(4))


@dataclass
class Session:
    """What the shop remembers of one visitor."""

    id: str = field(default_factory=lambda: secrets.token_hex(16))
    passed: bool = False
    code: str | None = None
    tokens: set[str] = field(default_factory=set)

    def answer(self, given: str) -> bool:
        """Whether `given` is the code of the last image; the code is used up either way."""
        code, self.code = self.code, None
        return code is not None and secrets.compare_digest(
            code.lower().encode(), given.strip().lower().encode()
        )


class Shop(http.server.ThreadingHTTPServer):
    """The shop on a loopback port; port 0 takes a free one.

    `new_code` makes the text of each image.
    """

    daemon_threads = True

    def __init__(self, port: int = 0, new_code: Callable[[], str] = random_code) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.new_code = new_code
        self.images = ImageCaptcha(160, 60)
        self.sessions: dict[str, Session] = {}
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """The home page."""
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(http.server.BaseHTTPRequestHandler):
    """One request to the shop."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes
    server: Shop

    def do_GET(self) -> None:
        """Show a page, the captcha page in its place, or an image."""
        session = self._find_session()
        path, _, query = self.path.partition("?")
        match path.strip("/").split("/"):
            case [""]:
                links = '<a class="catalogue" href="/books">Books</a> <a href="/search">Search</a>'
                self._send_page("Bookshop", links)
            case ["captcha.png"]:
                self._send_image(session)
            case ["books"] | ["book", _] if not session.passed:
                self._send_wall(self.path)
            case ["books"]:
                self._send_books(2 if query == "page=2" else 1)
            case ["book", number] if number in NUMBERS:
                self._send_book(NAMES[NUMBERS.index(number)])
            case ["search"]:
                self._send_search(session)
            case _:
                self._send_page("Not found", "", status=404)

    def do_POST(self) -> None:
        """Judge an answer."""
        session = self._find_session()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        form = {name: values[0] for name, values in parse_qs(body).items()}
        with self.server.lock:
            fresh = form.get("token") in session.tokens
            session.tokens.discard(form.get("token", ""))
            right = session.answer(form.get("code", ""))
        match self.path:
            case "/check" if right:
                session.passed = True
                self._redirect(form.get("next", "/"))
            case "/check":
                self._send_wall(form.get("next", "/"), "Those were not the characters.")
            case "/search" if not fresh:
                self._send_page("Expired", "<p>This form was used before.</p>", status=409)
            case "/search" if not right:
                self._send_search(session, "Those were not the characters.")
            case "/search" if form.get("name") in PRICES:
                self._send_book(form["name"])
            case "/search":
                self._send_page("Nothing found", "<p>No book of this name.</p>")
            case _:
                self._send_page("Not found", "", status=404)

    def _find_session(self) -> Session:
        """The session that the cookie names, or a new one."""
        cookie = http.cookies.SimpleCookie(self.headers.get("Cookie", "")).get("session")
        with self.server.lock:
            session = self.server.sessions.get(cookie.value if cookie else "")
            if session is None:
                session = Session()
                self.server.sessions[session.id] = session
        self.session_id = session.id
        return session

    def _send_wall(self, wanted: str, message: str = "") -> None:
        self._send_page(
            "One moment",
            f"<p>{message}</p>"
            '<form method="post" action="/check">'
            f'<input type="hidden" name="next" value="{escape(wanted)}">'
            '<img src="/captcha.png" alt="captcha"> <input name="code" autocomplete="off">'
            "<button>Continue</button></form>",
        )

    def _send_search(self, session: Session, message: str = "") -> None:
        token = secrets.token_hex(8)
        session.tokens.add(token)
        self._send_page(
            "Search",
            f"<p>{message}</p>"
            '<form method="post" action="/search">'
            f'<input type="hidden" name="token" value="{token}">'
            '<label>Book <input name="name"></label>'
            '<img src="/captcha.png" alt="captcha"> <input name="code" autocomplete="off">'
            "<button>Search</button></form>",
        )

    def _send_books(self, page: int) -> None:
        first = (page - 1) * PAGE_SIZE
        books = "".join(
            f'<li><a class="book" href="/book/{number}">{escape(name)}</a></li>'
            for number, name in enumerate(NAMES[first : first + PAGE_SIZE], first + 1)
        )
        more = first + PAGE_SIZE < len(NAMES)
        link = f'<a class="next" href="/books?page={page + 1}">More</a>' if more else ""
        self._send_page("Books", f"<ul>{books}</ul>{link}")

    def _send_book(self, name: str) -> None:
        body = f'<h1 class="name">{escape(name)}</h1><p class="price">{PRICES[name]} EUR</p>'
        self._send_page(name, body)

    def _send_image(self, session: Session) -> None:
        code = self.server.new_code()
        image = self.server.images.generate(code).getvalue()
        with self.server.lock:
            session.code = code
        self._send(200, image, ("Content-Type", "image/png"), ("Cache-Control", "no-store"))

    def _send_page(self, title: str, body: str, status: int = 200) -> None:
        page = f"<!doctype html><html lang=en><title>{escape(title)}</title>{body}</html>"
        self._send(status, page.encode(), ("Content-Type", "text/html; charset=utf-8"))

    def _redirect(self, wanted: str) -> None:
        """Answer 303 to a path of this shop."""
        self._send(303, b"", ("Location", "/" + quote(wanted.lstrip("/"), safe="/?=")))

    def _send(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Set-Cookie", f"session={self.session_id}; Path=/; HttpOnly")
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing: the crawl is what is watched."""


def main() -> None:
    """Serve the shop until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free port")
    with Shop(parser.parse_args().port) as shop:
        print(shop.url, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            shop.serve_forever()


if __name__ == "__main__":
    main()
