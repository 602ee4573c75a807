"""What a request costs the service's front process, and what it would cost by other ways.

    python benchmarks/front.py [--requests 2000] [--rounds 15] [--json]

Nothing is read: a stand-in for the readers answers at once. The first rows are calls of the
applications in this process, without HTTP; the last ones are CPU seconds of a server process, with
uvicorn's and the system's work for it, by requests over 16 kept-alive connections. Each figure is
the median of the rounds, in microseconds of CPU time, for an image of 3.7 KB as base64 in JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import binascii
import http.client
import json
import socket
import subprocess
import sys
import time
from statistics import median
from typing import Any

import psutil
from fastapi import FastAPI, Request
from pydantic import BaseModel
from starlette.responses import Response
from starlette.routing import Route

from scrapy_captcha.bundle import open_bundle
from scrapy_captcha.recognizer import Recognition
from scrapy_captcha.service import ServiceConfig
from scrapy_captcha.service.api import assemble
from scrapy_captcha.service.metrics import Metrics
from scrapy_captcha.service.pool import Reading, Refusal
from scrapy_captcha.service.server import Server
from scrapy_captcha.service.state import Service

CONNECTIONS = 16
READ = Recognition("1a8m", 0.98, tuple((character, 0.995) for character in "1a8m"), "5eed")
ANSWER = {"status": "OK", "result": READ.text, "confidence": READ.confidence, "model": "alnum4"}


class Readers:
    """Stands for the pool."""

    ready = True

    def __init__(self, *, busy: bool) -> None:
        self._refusal = Refusal(429, "256 images wait; try again later", 1) if busy else None

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def refuses(self, images: int = 1) -> Refusal | None:  # noqa: ARG002
        return self._refusal

    async def read(self, images: list[bytes], **_: Any) -> list[Reading]:
        return [Reading(READ, "alnum4") for _ in images]


class Body(BaseModel):
    pic: str
    charset: str | None = None
    length: int | None = None
    model: str | None = None


def image_body() -> bytes:
    return json.dumps(
        {"pic": base64.b64encode(open_bundle("alnum4").manifest.golden[0].image).decode()}
    ).encode()


def ours(*, busy: bool) -> Any:
    service: Any = Service(ServiceConfig(), Metrics(), Readers(busy=busy))  # type: ignore[arg-type]
    return assemble(service)


def by_fastapi() -> FastAPI:
    """The same work as a route's ordinary function."""
    app = FastAPI()

    @app.post("/captcha")
    async def read(body: Body) -> dict[str, Any]:
        binascii.a2b_base64(body.pic, strict_mode=True)
        return ANSWER

    return app


async def raw(request: Request) -> Response:
    fields = json.loads(await request.body())
    binascii.a2b_base64(fields["pic"], strict_mode=True)
    return Response(json.dumps(ANSWER), media_type="application/json")


def by_fastapi_raw() -> FastAPI:
    app = FastAPI()
    app.add_api_route("/captcha", raw, methods=["POST"], response_class=Response)
    return app


def by_starlette() -> FastAPI:
    app = FastAPI()
    app.router.routes.append(Route("/captcha", raw, methods=["POST"]))
    return app


async def seconds_by_calls(app: Any, body: bytes, requests: int) -> float:
    """CPU seconds of one request."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None: ...

    headers = [
        (b"host", b"127.0.0.1:8090"),
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
    ]
    begin = time.process_time()
    for _ in range(requests):
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/captcha",
            "raw_path": b"/captcha",
            "query_string": b"",
            "root_path": "",
            "headers": headers,
            "server": ("127.0.0.1", 8090),
            "client": ("127.0.0.1", 50000),
            "state": {},
        }
        await app(scope, receive, send)
    return (time.process_time() - begin) / requests


def seconds_by_http(process: psutil.Process, port: int, body: bytes, requests: int) -> float:
    connections = [http.client.HTTPConnection("127.0.0.1", port) for _ in range(CONNECTIONS)]
    for connection in connections:
        connection.connect()
    begin = process.cpu_times()
    for _ in range(requests // CONNECTIONS):
        for connection in connections:
            connection.request("POST", "/captcha", body, {"Content-Type": "application/json"})
        for connection in connections:
            connection.getresponse().read()
    end = process.cpu_times()
    for connection in connections:
        connection.close()
    return (end.user + end.system - begin.user - begin.system) / (
        requests // CONNECTIONS * CONNECTIONS
    )


def serve(fd: int, *, busy: bool) -> None:
    """What this program does as the server process."""
    Server(ours(busy=busy), ServiceConfig()).run([socket.socket(fileno=fd)])


def measure_http(*, busy: bool, body: bytes, requests: int, rounds: int) -> list[float]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        words = ["--serve", str(listener.fileno()), *(["--busy"] if busy else [])]
        server = subprocess.Popen([sys.executable, __file__, *words], pass_fds=[listener.fileno()])
        port = listener.getsockname()[1]
        process = psutil.Process(server.pid)
        try:
            seconds_by_http(process, port, body, requests)  # to warm up
            return [seconds_by_http(process, port, body, requests) for _ in range(rounds)]
        finally:
            server.kill()
            server.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=2000, help="of a round")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", type=int, metavar="FD", help=argparse.SUPPRESS)
    parser.add_argument("--busy", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        serve(options.serve, busy=options.busy)
        return
    body = image_body()
    apps = {
        "FastAPI, a model for the body": by_fastapi(),
        "FastAPI, the request as it is": by_fastapi_raw(),
        "a Starlette route in FastAPI": by_starlette(),
        "the service": ours(busy=False),
        "the service, refusing with 429": ours(busy=True),
    }
    found: dict[str, list[float]] = {name: [] for name in apps}
    for app in apps.values():
        asyncio.run(seconds_by_calls(app, body, 100))  # to warm up
    for _ in range(options.rounds):  # in turn, so that what else the machine does meets all of them
        for name, app in apps.items():
            found[name].append(asyncio.run(seconds_by_calls(app, body, options.requests)))
    for name, busy in (("the service over HTTP", False), ("429 over HTTP", True)):
        found[name] = measure_http(
            busy=busy, body=body, requests=options.requests, rounds=options.rounds
        )
    figures = {name: median(seconds) * 1e6 for name, seconds in found.items()}
    if options.json:
        print(json.dumps(figures))
    else:
        for name, figure in figures.items():
            print(f"{name:32} {figure:6.1f} us")


if __name__ == "__main__":
    main()
