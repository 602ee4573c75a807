"""What every request passes first, as cheaply as can be: who may ask, and how much.

It is plain ASGI, in front of the application: a request that is refused here costs neither its
body's reading nor a route.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from time import perf_counter
from typing import TYPE_CHECKING

from scrapy_captcha.service.wire import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prometheus_client import Counter
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from scrapy_captcha.service.state import Service

    Headers = Mapping[bytes, bytes]

logger = logging.getLogger(__name__)

#: What orchestrators and load balancers ask; it needs no token and tells nothing.
OPEN = frozenset({"/live", "/ready"})
#: Where images are read.
READING = frozenset({"/captcha", "/captcha/batch"})
_ROUTES = OPEN | READING | {"/models", "/metrics", "/docs", "/openapi.json"}
_CLOSE = (b"connection", b"close")


class Guard:
    """The application as any ASGI server can host it.

    :param app: what answers the requests that pass
    :param direct: method and path -> a route of the application, to which a request goes without
        the application's own routing and middleware: those would cost as much as all the rest
    """

    def __init__(
        self, app: ASGIApp, service: Service, direct: Mapping[tuple[str, str], ASGIApp]
    ) -> None:
        self._app = app
        self._direct = direct
        self._service = service
        self._token = None if service.config.token is None else service.config.token.encode()
        self._origins = frozenset(origin.encode() for origin in service.config.origins)
        self._counters: dict[tuple[str, int], Counter] = {}
        self._held = 0

    def drain(self) -> None:
        """Be no longer ready, and ask clients to connect elsewhere; requests are still answered."""
        self._service.draining = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        path = _path(scope)
        headers = dict(scope["headers"])
        closing = self._service.draining and scope["http_version"] < "2"
        answer = _Answer(send, self._added_headers(headers, closing=closing))
        try:
            await self._pass_on(path, headers, scope, receive, answer)
        except Refused as refusal:
            await self._refuse(refusal, scope, receive, answer)
        except Exception:
            logger.exception("A request for %(path)r failed", {"path": path})
            if answer.status is not None:
                raise
            await _respond(answer, 500, refusal_body("the service failed; its log says why"), [])
        finally:
            self._count(path, answer.status, perf_counter() - started)

    async def _pass_on(
        self, path: str, headers: Headers, scope: Scope, receive: Receive, answer: _Answer
    ) -> None:
        if self._origins and scope["method"] == "OPTIONS" and _PREFLIGHT in headers:
            await _respond(answer, 204, b"", self._preflight(headers))
            return
        if path not in OPEN:
            self._admit_client(scope, headers)
        app = self._direct.get((scope["method"], path), self._app)
        if path not in READING or scope["method"] != "POST":
            await app(scope, receive, answer)
            return
        self._admit_image()
        body = _Body()
        try:
            if await self._receive(body, headers, receive):
                await app(scope, _Whole(b"".join(body.parts), receive), answer)
        finally:
            self._held -= body.size

    def _admit_client(self, scope: Scope, headers: Headers) -> None:
        if self._token is None:
            _check_local(scope, headers, self._origins)
            return
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self._token):
            raise Refused(
                401,
                "expected the service's token in the header Authorization: Bearer TOKEN",
                {"www-authenticate": "Bearer"},
            )

    def _admit_image(self) -> None:
        """Refuse, before its body is read, what could not be read in time."""
        refusal = self._service.pool.refuses()
        if refusal is not None:
            self._service.metrics.refused.labels(refusal.reason).inc()
            raise Refused(
                refusal.status, refusal.message, retry_after(refusal.retry_after, refusal.status)
            )

    async def _receive(self, body: _Body, headers: Headers, receive: Receive) -> bool:
        """Receive a request's body; false when the client has gone.

        :raises Refused: when it is too large, comes too slowly, or too much is held already
        """
        config = self._service.config
        most, seconds = config.max_body, config.body_timeout
        declared = headers.get(b"content-length", b"")
        if declared.isdigit() and (len(declared) > 18 or int(declared) > most):
            raise _too_large(most)
        try:
            async with asyncio.timeout(seconds):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        return False
                    part = message.get("body", b"")
                    body.parts.append(part)
                    body.size += len(part)
                    self._held += len(part)
                    if body.size > most:
                        raise _too_large(most)
                    if self._held > max(config.max_held, most):
                        self._service.metrics.refused.labels("memory").inc()
                        raise Refused(
                            429, f"{self._held} bytes wait; try again later", retry_after(1, 429)
                        )
                    if not message.get("more_body", False):
                        return True
        except TimeoutError:
            raise Refused(
                408, f"expected the whole body within {seconds:g} s, got {body.size} bytes of it"
            ) from None

    async def _refuse(
        self, refusal: Refused, scope: Scope, receive: Receive, answer: _Answer
    ) -> None:
        headers = [(name.encode(), value.encode()) for name, value in refusal.headers.items()]
        payload = refusal_body(refusal.message)
        if refusal.status not in {408, 413}:
            await _respond(answer, refusal.status, payload, headers)
            return
        # what is left of the body is not waited for
        if scope["http_version"] < "2" and not self._service.draining:
            headers.append(_CLOSE)
        lingers = refusal.status == 413
        await _respond(answer, refusal.status, payload, headers, more=lingers)
        if lingers:
            await self._swallow(receive)
            await answer({"type": "http.response.body", "body": b""})

    async def _swallow(self, receive: Receive) -> None:
        """Let a client finish sending: on a reset connection it would not see its answer."""
        try:
            async with asyncio.timeout(self._service.config.body_timeout):
                while (await receive()).get("more_body", False):
                    pass
        except TimeoutError:
            pass

    def _added_headers(self, headers: Headers, *, closing: bool) -> list[tuple[bytes, bytes]]:
        """What goes with every answer to a request, whatever it is."""
        added = [_CLOSE] if closing else []
        if self._origins:
            added.append((b"vary", b"Origin"))
            origin = headers.get(b"origin")
            if origin in self._origins:
                added.append((b"access-control-allow-origin", origin))
                added.append((b"access-control-expose-headers", b"Retry-After"))
        return added

    def _preflight(self, headers: Headers) -> list[tuple[bytes, bytes]]:
        """The answer to a browser that asks whether a page may use the service."""
        origin = headers.get(b"origin", b"")
        if origin not in self._origins:
            raise _foreign(origin)
        allowed = [
            (b"access-control-allow-methods", b"GET, HEAD, POST"),
            (b"access-control-allow-headers", b"Authorization, Content-Type"),
            (b"access-control-max-age", b"600"),
        ]
        if b"access-control-request-private-network" in headers:
            allowed.append((b"access-control-allow-private-network", b"true"))
        return allowed

    def _count(self, path: str, status: int | None, seconds: float) -> None:
        if status is None:  # the client has gone
            return
        route = path if path in _ROUTES else "other"
        counter = self._counters.get((route, status))
        if counter is None:
            counter = self._service.metrics.requests.labels(route, str(status))
            self._counters[route, status] = counter
        counter.inc()
        if status == 200 and route in READING:
            self._service.metrics.seconds.observe(seconds)


_PREFLIGHT = b"access-control-request-method"


class _Answer:
    """Sends an answer, with headers that every answer gets, and remembers its status."""

    __slots__ = ("_added", "_send", "status")

    def __init__(self, send: Send, added: list[tuple[bytes, bytes]]) -> None:
        self._send = send
        self._added = added
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self._added:
                headers = [*message.get("headers", ()), *self._added]
                message = {**message, "headers": headers}
        await self._send(message)


class _Body:
    """What has come of a request's body."""

    __slots__ = ("parts", "size")

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0


class _Whole:
    """What the application receives: a body that has been read already."""

    __slots__ = ("_body", "_receive")

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        message = {"type": "http.request", "body": self._body, "more_body": False}
        self._body = None
        return message


def refusal_body(message: str) -> bytes:
    """What every error says."""
    return json.dumps({"status": "NO", "msg": message}).encode()


def retry_after(seconds: int | None, status: int) -> dict[str, str]:
    """The header that tells a client when to come again; 429 and 503 always have it."""
    if seconds is None and status not in {429, 503}:
        return {}
    return {"retry-after": str(max(1, seconds or 1))}


async def _respond(
    answer: _Answer,
    status: int,
    payload: bytes,
    headers: list[tuple[bytes, bytes]],
    *,
    more: bool = False,
) -> None:
    if payload:
        headers.append((b"content-type", b"application/json"))
        headers.append((b"content-length", b"%d" % len(payload)))
    await answer({"type": "http.response.start", "status": status, "headers": headers})
    await answer({"type": "http.response.body", "body": payload, "more_body": more})


def _path(scope: Scope) -> str:
    """The request's path within the application, wherever it is mounted."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path.removeprefix(root) if root else path


def _check_local(scope: Scope, headers: Headers, origins: frozenset[bytes]) -> None:
    """Without a token, take only what is sent to this machine, and by no web page's script.

    A page's own name can be made to point to a loopback address (DNS rebinding), but the Host
    header still tells it.

    :raises Refused: naming what would let the request pass
    """
    server = scope.get("server")
    if not server or (server[1] is not None and not is_loopback(server[0])):
        raise Refused(
            403,
            "this service has no token and so serves its own machine alone; to be reached from "
            "others it needs one in CAPTCHA_SERVICE_TOKEN",
        )
    host = headers.get(b"host", b"").decode("latin-1")
    if not is_loopback(_without_port(host)):
        raise Refused(
            403,
            f"expected the Host localhost or a loopback address, got {host[:100]!r}; to be reached "
            "under other names the service needs a token in CAPTCHA_SERVICE_TOKEN",
        )
    origin = headers.get(b"origin")
    if (
        origin is not None
        and origin not in origins
        and origin.partition(b"://")[2] != host.encode("latin-1")
    ):
        raise _foreign(origin)


def _foreign(origin: bytes) -> Refused:
    shown = origin[:100].decode("latin-1")
    return Refused(
        403,
        f"pages of {shown!r} may not use this service; scrapy captcha serve --allow-origin "
        "ORIGIN allows it",
    )


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


@lru_cache(maxsize=64)
def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine and no other, without asking a resolver."""
    if host.lower() == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def _too_large(most: int) -> Refused:
    return Refused(413, f"expected a body of at most {most} bytes")
