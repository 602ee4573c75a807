"""A stand-in for a service that reads captchas: it reads with shipped models, and does as told."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections import deque
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qsl, urlsplit

from scrapy_captcha.errors import ImageError
from scrapy_captcha.recognizer import Recognizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@cache
def recognizer(name: str) -> Recognizer:
    return Recognizer.load(name)


@dataclass(frozen=True)
class Asked:
    """A request as it reached the service; header names are in lower case.

    :param connection: which connection it came over
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    connection: int


@dataclass(frozen=True)
class Said:
    """What the service answers.

    :param hangs_up: whether the connection ends after it, without a word
    """

    content: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    hangs_up: bool = False

    @property
    def body(self) -> bytes:
        return (
            self.content if isinstance(self.content, bytes) else json.dumps(self.content).encode()
        )


def no(status: int, msg: str, **headers: str) -> Said:
    return Said({"status": "NO", "msg": msg}, status, headers)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: ReadingService

    def log_message(self, *args: object) -> None:
        pass

    def serve(self) -> None:
        parts = urlsplit(self.path)
        asked = Asked(
            self.command,
            parts.path,
            dict(parse_qsl(parts.query, keep_blank_values=True)),
            {name.lower(): value for name, value in self.headers.items()},
            self.rfile.read(int(self.headers.get("Content-Length") or 0)),
            self.client_address[1],
        )
        said = self.server.receive(asked)
        self.send_response(said.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(said.body)))
        for name, value in said.headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(said.body)
        self.close_connection = said.hangs_up or self.close_connection

    do_GET = do_POST = serve  # noqa: N815


class ReadingService(ThreadingHTTPServer):
    """Reads like ``scrapy captcha serve``.

    :param models: names of shipped models, the first one the default
    :param port: 0 for any that is free

    :ivar script: what to answer next in place of a reading; a function is asked
    :ivar asked: the requests that came
    """

    daemon_threads = True
    request_queue_size = 128
    allow_reuse_address = True

    def __init__(
        self,
        *,
        token: str | None = None,
        models: tuple[str, ...] = ("alnum4",),
        prefix: str = "",
        port: int = 0,
    ) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.token = token
        self.models = models
        self.prefix = prefix
        self.script: deque[Said | Callable[[Asked], Said]] = deque()
        self.asked: list[Asked] = []
        self.hash_suffix = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}{self.prefix}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no trouble."""

    @property
    def readings(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.method == "POST"]

    def receive(self, asked: Asked) -> Said:
        self.asked.append(asked)
        if self.token is not None and asked.headers.get("authorization") != f"Bearer {self.token}":
            return no(401, "a token is required", WWW_Authenticate="Bearer")
        if asked.path == f"{self.prefix}/models" and asked.method == "GET":
            return self.described()
        if asked.path != f"{self.prefix}/captcha" or asked.method != "POST":
            return no(404, "not found")
        if self.script:
            said = self.script.popleft()
            return said(asked) if callable(said) else said
        return self.read(asked)

    def described(self) -> Said:
        models = []
        for name in self.models:
            reader = recognizer(name)
            keys = ("name", "charset", "length", "min_length", "case")
            model = {key: getattr(reader.manifest, key) for key in keys}
            models.append({**model, "name": name, "model_hash": self.hash_of(name)})
        return Said({"status": "OK", "models": models})

    def hash_of(self, name: str) -> str:
        return recognizer(name).model_hash + self.hash_suffix

    def read(self, asked: Asked) -> Said:
        name = asked.query.get("model", self.models[0])
        length = asked.query.get("length")
        try:
            read = recognizer(name).read(
                asked.body, asked.query.get("charset"), int(length) if length else None
            )
        except ImageError as e:
            return no(422, str(e))
        answer = asdict(read)
        answer.update(status="OK", result=answer.pop("text"), model=name)
        return Said({**answer, "model_hash": self.hash_of(name)})


@contextmanager
def raw_service(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Tell what it reads as a service does, then do this with the connection of each reading."""
    with ReadingService() as service:
        said = service.described().body
    done = threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection:
            head, _, body = connection.recv(1 << 16).partition(b"\r\n\r\n")
            size = re.search(rb"(?i)content-length: *([0-9]+)", head)
            while size and len(body) < int(size[1]):
                body += connection.recv(1 << 16)
            if head.startswith(b"GET"):
                rest = f"Content-Length: {len(said)}\r\nConnection: close\r\n\r\n".encode()
                connection.sendall(b"HTTP/1.1 200 OK\r\n" + rest + said)
                return
            try:
                answer(connection)
            except OSError:
                return  # the reader has gone

    def accept() -> None:
        while not done.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        done.set()
        listener.shutdown(socket.SHUT_RDWR)
