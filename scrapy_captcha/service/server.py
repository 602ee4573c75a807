"""The server of ``scrapy captcha serve``: uvicorn, with timeouts for request heads and a drain."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import socket
import time
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from scrapy_captcha.errors import ConfigError
from scrapy_captcha.service.guard import is_loopback, refusal_body

if TYPE_CHECKING:
    from types import FrameType

    from scrapy_captcha.service.config import ServiceConfig
    from scrapy_captcha.service.guard import Guard

logger = logging.getLogger(__name__)

#: Most bytes of a request's head; uvicorn's fast parser has no limit of its own.
MAX_HEAD = 64 << 10
#: Open files, and so connections, that are asked of the system.
_MANY_FILES = 1 << 16
#: Connections that may wait to be accepted.
_BACKLOG = 2048


class TimedProtocol(HttpToolsProtocol):
    """Closes connections on which no request's head comes in time, or one without an end.

    uvicorn itself waits for ever, for the first byte as for the last one of a head. A body that
    nobody wants any more, for its request has been answered, is bounded in the same way.
    """

    def __init__(self, config: _Config, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        self._patience = config.head_timeout
        self._timer: asyncio.TimerHandle | None = None
        self._in_head = False
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first head has to come."""
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Time what is no whole head yet."""
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD:
                self._answer_and_close(431, f"expected a head of at most {MAX_HEAD} bytes")
                return
        if self.cycle is None or self.cycle.response_complete:
            self._wait_for_head()

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head has come."""
        self._in_head = False
        self._stop_waiting()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Say in the shape of all errors that this is no HTTP."""
        self._answer_and_close(400, msg)

    def _wait_for_head(self) -> None:
        if self._timer is None and not self.transport.is_closing():
            self._timer = self.loop.call_later(self._patience, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _answer_and_close(self, status: int, message: str) -> None:
        payload = refusal_body(message)
        head = (
            b"content-type: application/json\r\n"
            b"content-length: %d\r\n"
            b"connection: close\r\n\r\n" % len(payload)
        )
        self.transport.write(STATUS_LINE[status] + head + payload)
        self.transport.close()


class Server(uvicorn.Server):
    """Serves a service until it is told to stop by SIGTERM or SIGINT.

    The first signal makes it not ready, and every answer asks its client to connect elsewhere;
    after :attr:`ServiceConfig.drain` seconds it takes no more connections and finishes what it has
    accepted. The second signal ends it at once.
    """

    def __init__(self, guard: Guard, config: ServiceConfig) -> None:
        super().__init__(_Config(guard, config))
        self._guard = guard
        self._drain = config.drain
        self._close_at: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        # what was imported stays; looking through it for garbage would stall requests
        gc.collect()
        gc.freeze()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Drain, or be gone."""
        if self._close_at is None:
            logger.info(
                "Told to stop; taking requests for another %(drain)g s", {"drain": self._drain}
            )
            self._guard.drain()
            self._close_at = time.monotonic() + self._drain
        else:
            self.should_exit = self.force_exit = True
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._abort)

    async def on_tick(self, counter: int) -> bool:
        """Whether to close; asked ten times a second."""
        if self._close_at is not None and time.monotonic() >= self._close_at:
            self.should_exit = True
        return await super().on_tick(counter)

    def _abort(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        for task in list(self.server_state.tasks):
            task.cancel()


class _Config(uvicorn.Config):
    def __init__(self, guard: Guard, config: ServiceConfig) -> None:
        super().__init__(
            guard,
            http=TimedProtocol,
            ws="none",
            lifespan="on",
            interface="asgi3",
            log_config=None,
            access_log=False,
            backlog=_BACKLOG,
            proxy_headers=False,
            server_header=False,
            # for what was accepted: its body, its reading, and a reader that had to be replaced
            timeout_graceful_shutdown=math.ceil(
                config.body_timeout + config.deadline + config.stuck
            ),
        )
        self.head_timeout = config.head_timeout


def check_address(host: str, config: ServiceConfig) -> None:
    """Make sure that only this machine, or who has the token, gets to use the service.

    :raises ConfigError: when others could reach it without a token
    """
    if config.token is None and not is_loopback(host):
        raise ConfigError(
            f"--host {host}: expected a token for what other machines can reach, got none; set the "
            "environment variable CAPTCHA_SERVICE_TOKEN (python -c 'import secrets; "
            "print(secrets.token_urlsafe())' makes one), or listen on 127.0.0.1"
        )


def listen(host: str, port: int) -> list[socket.socket]:
    """Sockets on every address of a name, all of the same port.

    :param port: 0 lets the system choose
    :raises ConfigError: when the name or the port cannot be had
    """
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            chosen = sockets[0].getsockname()[1] if sockets else port
            listener = socket.socket(family, kind, protocol)
            sockets.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((address[0], chosen, *address[2:]))
            listener.listen(_BACKLOG)
    except (OSError, OverflowError, UnicodeError) as e:
        for listener in sockets:
            listener.close()
        raise ConfigError(f"cannot listen on {host} port {port}: {e}") from None
    return sockets


def url(listener: socket.socket) -> str:
    """Where a listening socket is reached."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def allow_many_connections() -> None:
    """Raise this process's limit of open files as far as it may."""
    try:
        import resource  # noqa: PLC0415 - not on Windows, which has no such limit
    except ModuleNotFoundError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MANY_FILES if hard == resource.RLIM_INFINITY else min(hard, _MANY_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
