"""HTTP requests to one host over connections that are kept alive, each answered in time or not.

Nothing but the host itself is asked: no redirect is followed, and no proxy of the environment used.
"""

from __future__ import annotations

import io
import socket
import ssl
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scrapy_captcha.endpoint import Endpoint

#: Most bytes of an answer.
LIMIT = 1 << 18
#: A connection that was idle for so many seconds is not used again: what lies between may have
#: forgotten it, and would answer with silence.
IDLE_SECONDS = 30.0


class TooLarge(HTTPException):
    """An answer of more than :data:`LIMIT` bytes."""


@dataclass(frozen=True)
class Call:
    """What is asked.

    :param target: path and query
    """

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes | None = None


@dataclass(frozen=True)
class Reply:
    """What a service answered.

    :param retry_after: the header, as it came
    """

    status: int
    body: bytes
    retry_after: str | None = None


class Exchange:
    """Sends requests to a service; thread-safe."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._tls = ssl.create_default_context() if endpoint.secure else None
        self._idle: deque[tuple[float, HTTPConnection]] = deque()
        self._busy: set[HTTPConnection] = set()
        self._ended = False

    def ask(self, call: Call, deadline: float) -> Reply:
        """Send one request.

        When a kept-alive connection turns out to be closed, it is sent again over a new one: so
        only what may be done twice is to be sent.

        :param deadline: :func:`time.monotonic` when the whole answer has to be there
        :raises TimeoutError: when it is not
        :raises OSError: when the service is not reached, or the connection ends before the answer
        :raises HTTPException: when the answer is none, or too large
        """
        kept = self._kept_alive()
        if kept is not None:
            try:
                return self._over(kept, call, deadline)
            except (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
                self.close()  # the others are no better
        return self._over(self._connect(deadline), call, deadline)

    def close(self) -> None:
        """Close the connections that are idle; the others when their answers are there."""
        with suppress(IndexError):
            while True:
                self._idle.pop()[1].close()

    def end(self) -> None:
        """Close all connections; what waits for an answer fails, and nothing is sent any more."""
        self._ended = True
        for connection in list(self._busy):
            with suppress(OSError, AttributeError):  # it is being closed
                timed: Any = connection.sock
                timed.shut()
        self.close()

    def _kept_alive(self) -> HTTPConnection | None:
        try:
            since, connection = self._idle.pop()
        except IndexError:
            return None
        if monotonic() - since < IDLE_SECONDS:
            return connection
        connection.close()
        self.close()  # they were idle for longer still
        return None

    def _connect(self, deadline: float) -> HTTPConnection:
        to, seconds = self._endpoint, _left(deadline)
        connection = (
            HTTPConnection(to.host, to.port, timeout=seconds)
            if self._tls is None
            else HTTPSConnection(to.host, to.port, timeout=seconds, context=self._tls)
        )
        connection.auto_open = 0  # it would go on without the deadline
        connection.connect()
        connection.sock = _Timed(connection.sock)
        return connection

    def _over(self, connection: HTTPConnection, call: Call, deadline: float) -> Reply:
        try:
            timed: Any = connection.sock
            timed.deadline = deadline
            self._busy.add(connection)
            if self._ended:
                raise ConnectionAbortedError("the connection was closed")
            connection.request(call.method, call.target, call.body, dict(call.headers))
            response = connection.getresponse()
            content = response.read(LIMIT + 1)
            if len(content) > LIMIT:
                raise TooLarge(f"an answer of more than {LIMIT} bytes")
            if response.length:
                raise ConnectionResetError("the connection ended within the answer")
        except BaseException:
            connection.close()
            raise
        finally:
            self._busy.discard(connection)
        if response.isclosed() and not response.will_close and not self._ended:
            self._idle.append((monotonic(), connection))
        else:
            response.close()
            connection.close()
        return Reply(response.status, content, response.getheader("Retry-After"))


def _left(deadline: float) -> float:
    left = deadline - monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


class _Timed:
    """As much of a socket as a connection needs, with one deadline for all that is sent and read.

    A timeout of the socket's own would begin anew with every byte.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.deadline = 0.0

    def sendall(self, data: bytes) -> None:
        self._socket.settimeout(_left(self.deadline))
        self._socket.sendall(data)

    def shut(self) -> None:
        """End it from another thread, for the one that waits for it."""
        # not the one of TLS, which would go on in plain
        socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def makefile(self, mode: str) -> io.BufferedReader:
        assert mode == "rb"
        return io.BufferedReader(_Incoming(self, self._socket))

    def close(self) -> None:
        self._socket.close()


class _Incoming(io.RawIOBase):
    """What comes from a socket, until a deadline."""

    def __init__(self, timed: _Timed, sock: socket.socket) -> None:
        self._timed, self._socket = timed, sock
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._socket.settimeout(_left(self._timed.deadline))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()
