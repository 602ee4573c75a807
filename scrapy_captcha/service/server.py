"""The server of ``scrapy captcha serve``: uvicorn, with timeouts for request heads and a drain."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import math
import socket
import time
from typing import TYPE_CHECKING, Any

import httptools
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
#: Requests of a connection that may wait for the answers to those before them.
MAX_PIPELINED = 100
#: Open files, and so connections, that are asked of the system.
_MANY_FILES = 1 << 16
#: Connections that may wait to be accepted.
_BACKLOG = 2048
#: An address that a name has, but not this machine.
_NOT_HERE = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


class _TooMuch(Exception):  # noqa: N818 - ends the parsing of what a client sends
    """What a client sends is beyond a limit; the connection is closed already."""


class TimedProtocol(HttpToolsProtocol):
    """Closes connections on which no request's head comes in time, or one without an end.

    uvicorn itself waits for ever, for the first byte as for the last one of a head, and for a
    client to take its answers. A body that nobody wants any more, for its request has been
    answered, is bounded in the same way.
    """

    def __init__(self, config: _Config, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        self._patience = config.head_timeout
        self._timer: asyncio.TimerHandle | None = None
        self._in_head = False
        self._head_bytes = 0
        self._moved = False
        self._bytes_without_move = 0
        self._upgrade = self._is_again = self._has_ended = False
        self._unsent_since: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first head has to come."""
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Time what is no whole head yet, and bound what belongs to no body."""
        self._unset_keepalive_if_required()
        self._moved = False
        try:
            self._parse(data)
        except _TooMuch:
            return
        self._bytes_without_move = 0 if self._moved else self._bytes_without_move + len(data)
        if self._bytes_without_move > MAX_HEAD:
            self._refuse_head()
        elif self.cycle is None or self.cycle.response_complete:
            self._wait_for_head()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer a client that has said that it sends no more, if its request was whole."""
        self._has_ended = True
        return (
            self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body
        )

    def on_message_begin(self) -> None:
        """A head begins."""
        self._moved = True
        if not self._is_again:
            self._in_head, self._head_bytes, self._upgrade = True, 0, False
            super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of the head."""
        if not self._is_again:
            self._count_head(len(url))
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A part of the head, or of what may follow a body, which is of no use."""
        if self._in_head:
            self._count_head(len(name) + len(value))
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A head has come."""
        self._moved = True
        if self._is_again:
            return
        self._in_head = False
        self._upgrade = self.parser.should_upgrade()
        self._stop_waiting()
        super().on_headers_complete()
        if len(self.pipeline) > MAX_PIPELINED:
            self.transport.abort()
            raise _TooMuch

    def on_body(self, body: bytes) -> None:
        """A part of a body."""
        self._moved = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is whole; with an upgrade in it, its body is still to come."""
        self._moved = True
        if not self._upgrade:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Read on when all requests that have come are answered."""
        super().on_response_complete()
        if self.pipeline:
            self.flow.pause_reading()
        elif self._has_ended:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Say in the shape of all errors that this is no HTTP."""
        self._answer_and_close(400, msg)

    def look_after(self, now: float) -> None:
        """Leave a client that does not take its answers; to be called now and then."""
        if not self.transport.get_write_buffer_size():
            self._unsent_since = None
        elif self._unsent_since is None:
            self._unsent_since = now
        elif now - self._unsent_since > self._patience:
            self.transport.abort()

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as e:
            self._ignore_upgrade()
            self._parse(data[e.args[0] :])
        except httptools.HttpParserError as e:
            if not isinstance(e.__context__, _TooMuch):
                self.send_400_response("expected HTTP/1.1")
            raise _TooMuch from None

    def _ignore_upgrade(self) -> None:
        """Have the body parsed that follows a head with an ``Upgrade``, as Java's client sends.

        The parser takes what follows for another protocol. A second one gets a head of the same
        framing, and does not tell of that.
        """
        framing = (b"content-length", b"transfer-encoding")
        lines = [b"%b: %b\r\n" % header for header in self.headers if header[0] in framing]
        self.parser = httptools.HttpRequestParser(self)
        self._upgrade, self._is_again = False, True
        try:
            self.parser.feed_data(b"POST / HTTP/1.1\r\n" + b"".join(lines) + b"\r\n")
        finally:
            self._is_again = False

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD:
            self._refuse_head()
            raise _TooMuch

    def _refuse_head(self) -> None:
        self._answer_and_close(431, f"expected a head of at most {MAX_HEAD} bytes")

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
        self._looking = self._loop.create_task(self._look_after_connections())
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

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what was accepted."""
        await super().shutdown(sockets)
        self._looking.cancel()

    async def _look_after_connections(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            now = time.monotonic()
            for connection in list(self.server_state.connections):
                assert isinstance(connection, TimedProtocol)
                connection.look_after(now)

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
    problem: Exception = OSError("no address")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, address in dict.fromkeys((family, address) for family, *_, address in found):
            chosen = sockets[0].getsockname()[1] if sockets else port
            try:
                sockets.append(_listener(family, (address[0], chosen, *address[2:])))
            except OSError as e:
                if e.errno not in _NOT_HERE:
                    raise
                problem = e  # such as ::1 of localhost where there is no IPv6
    except (OSError, OverflowError, UnicodeError) as e:
        problem = e
        while sockets:
            sockets.pop().close()
    if not sockets:
        raise ConfigError(f"cannot listen on {host} port {port}: {problem}")
    return sockets


def _listener(family: int, address: tuple[Any, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


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
