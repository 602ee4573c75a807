"""Loopback sites that script their verdicts and remember every request that reaches them."""

from __future__ import annotations

import html
import http.cookies
import io
import itertools
import json
import secrets
import sys
import threading
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qsl, urlsplit

from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

HOLD_SECONDS = 30.0


@cache
def png(number: int) -> bytes:
    """A small image that no other number gives."""
    image = Image.new("RGB", (90, 32), "white")
    ImageDraw.Draw(image).text((8, 8), f"{number:08d}", fill="black")
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@dataclass(frozen=True)
class Seen:
    """A request as it reached the site; header names are in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))

    @property
    def cookies(self) -> dict[str, str]:
        cookies = http.cookies.SimpleCookie(self.headers.get("cookie", ""))
        return {name: morsel.value for name, morsel in cookies.items()}


@dataclass(frozen=True)
class Answer:
    """What to send; a body in parts is sent as they come, without a length."""

    body: bytes | str | Iterable[bytes] = b""
    status: int = 200
    content_type: str = "text/html; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


def redirect(location: str, status: int = 302) -> Answer:
    return Answer(status=status, headers=(("Location", location),))


def as_json(data: object, status: int = 200) -> Answer:
    return Answer(json.dumps(data), status, "application/json")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Site

    def log_message(self, *args: object) -> None:
        pass

    def serve(self) -> None:
        parts = urlsplit(self.path)
        seen = Seen(
            self.command,
            parts.path,
            dict(parse_qsl(parts.query, keep_blank_values=True)),
            {name.lower(): value for name, value in self.headers.items()},
            self.rfile.read(int(self.headers.get("Content-Length") or 0)),
        )
        answer = self.server.receive(seen)
        body = answer.body.encode() if isinstance(answer.body, str) else answer.body
        whole = isinstance(body, bytes)
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        if whole:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.send_header("Transfer-Encoding", "chunked")
        for name, value in answer.headers:
            self.send_header(name, value)
        self.end_headers()
        if whole:
            self.wfile.write(body)
            return
        for part in itertools.chain(body, [b""]):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))

    do_GET = do_POST = do_HEAD = serve  # noqa: N815


class Site(ThreadingHTTPServer):
    """Answers 404 to everything, and remembers it."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.RLock()
        self.seen: list[Seen] = []
        self.errors: list[BaseException] = []
        self.on_request: Callable[[Seen], None] = lambda seen: None

    @property
    def netloc(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    @property
    def url(self) -> str:
        return f"http://{self.netloc}"

    def __enter__(self) -> Self:
        thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.shutdown()
        self.server_close()
        if self.errors and exc[0] is None:
            raise self.errors[0]

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, ConnectionError):
            self.errors.append(error)

    def receive(self, seen: Seen) -> Answer:
        with self.lock:
            self.seen.append(seen)
        self.on_request(seen)
        return self.answer(seen)

    def answer(self, seen: Seen) -> Answer:
        return Answer("not found", 404, "text/plain")

    def requests(self, path: str = "", method: str | None = None) -> list[Seen]:
        """The requests for a path, or for whatever begins with it when it ends in ``*``."""
        with self.lock:
            return [
                seen
                for seen in self.seen
                if (seen.path == path or (path.endswith("*") and seen.path.startswith(path[:-1])))
                and method in {None, seen.method}
            ]

    def pages(self, count: int) -> list[str]:
        return [f"{self.url}/page/{number}" for number in range(1, count + 1)]


class Plain(Site):
    """A site without captchas."""

    def answer(self, seen: Seen) -> Answer:
        if seen.path.startswith("/page/"):
            return self.page(seen)
        return super().answer(seen)

    def page(self, seen: Seen) -> Answer:
        name = html.escape(seen.path.removeprefix("/").replace("/", " "))
        sent = html.escape(f"{seen.method} {seen.headers.get('content-type', '')} {seen.body!r}")
        return Answer(f'<title>{name}</title><h1 class="name">{name}</h1><p>{sent}</p>')


@dataclass
class Session:
    """What the site knows of a visitor."""

    sid: str
    passed: bool = False
    pages: int = 0
    submissions: int = 0
    images: list[bytes] = field(default_factory=list)
    code_is_out: bool = False


class Gate(Plain):
    """``/page/...`` answers with a captcha page until the session has passed.

    A visitor without a cookie gets a new session, as on real sites. Only the last image shown is
    valid, and a submission uses it up.

    :param accept: which submission of a session is right, whatever it says; 0 for none
    :param every: ask again after so many pages; 0 for never
    :param redirects: answer 302 to ``/captcha`` in place of the captcha page itself
    """

    def __init__(
        self, *, status: int = 200, accept: int = 1, every: int = 0, redirects: bool = False
    ) -> None:
        super().__init__()
        self.status = status
        self.accept = accept
        self.every = every
        self.redirects = redirects
        self.cookie = "sid"
        self.sessions: dict[str, Session] = {}
        self.accepted: list[tuple[bytes, str]] = []
        self.rejected: list[tuple[bytes, str]] = []
        self.strangers = 0
        self.walls = 0
        self._images = 0

    # -- what tests override

    def wall_html(self, session: Session, back_to: str) -> str:
        return (
            "<title>Verification</title><h1>Please type the characters</h1>"
            '<form method="post" action="/verify">'
            f'<input type="hidden" name="next" value="{html.escape(back_to)}">'
            f'<input type="hidden" name="csrf" value="{session.sid}">'
            f'<img src="/captcha.png?{len(session.images)}" alt="captcha">'
            '<input type="text" name="code"><button>Go on</button></form>'
        )

    def is_walled(self, session: Session) -> bool:
        return not session.passed or bool(self.every and session.pages >= self.every)

    def passed(self, session: Session, seen: Seen) -> Answer:
        return redirect(self.field(seen, "next") or "/")

    def refused(self, session: Session, seen: Seen) -> Answer:
        return self.wall(session, self.field(seen, "next"))

    def image(self, session: Session, seen: Seen) -> Answer:
        return Answer(self.new_image(session), content_type="image/png")

    def field(self, seen: Seen, name: str) -> str:
        return seen.form.get(name) or seen.query.get(name, "")

    # -- the rest

    def answer(self, seen: Seen) -> Answer:
        with self.lock:
            session = self.session(seen)
            answer = self.route(session, seen)
        cookie = ("Set-Cookie", f"{self.cookie}={session.sid}; Path=/")
        return Answer(answer.body, answer.status, answer.content_type, (*answer.headers, cookie))

    def route(self, session: Session, seen: Seen) -> Answer:
        if seen.path.endswith("/captcha.png"):
            return self.image(session, seen)
        if seen.path == "/captcha":
            return self.wall(session, seen.query.get("next", "/"))
        if seen.path.endswith("/verify"):
            return self.verify(session, seen)
        if seen.path == "/":
            return Answer("<title>Welcome</title>")
        if not seen.path.startswith("/page/"):
            return Answer("not found", 404, "text/plain")
        if self.is_walled(session):
            if self.redirects:
                return redirect("/captcha")
            return self.wall(session, seen.path)
        session.pages += 1
        return self.page(seen)

    def session(self, seen: Seen) -> Session:
        sid = seen.cookies.get(self.cookie, "")
        if sid not in self.sessions:
            sid = secrets.token_hex(8)
            self.sessions[sid] = Session(sid)
        return self.sessions[sid]

    def wall(self, session: Session, back_to: str) -> Answer:
        self.walls += 1
        return Answer(self.wall_html(session, back_to), self.status)

    def new_image(self, session: Session) -> bytes:
        self._images += 1
        session.images.append(png(self._images))
        session.code_is_out = True
        return session.images[-1]

    def verify(self, session: Session, seen: Seen) -> Answer:
        if self.field(seen, "csrf") not in {"", session.sid}:
            self.strangers += 1
            return Answer("bad csrf", 400, "text/plain")
        if self.judge(session, self.field(seen, "code")):
            session.passed, session.pages = True, 0
            return self.passed(session, seen)
        return self.refused(session, seen)

    def judge(self, session: Session, answer: str) -> bool:
        """Whether the answer to the last image is right, by the script."""
        session.submissions += 1
        image = session.images[-1] if session.images else b""
        right = session.code_is_out and session.submissions == self.accept
        session.code_is_out = False
        if right:
            session.submissions = 0
        (self.accepted if right else self.rejected).append((image, answer))
        return right

    @property
    def submissions(self) -> list[Seen]:
        return [seen for seen in self.seen if seen.path.endswith("/verify")]
