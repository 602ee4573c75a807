"""What a client may do with its connection beside asking one thing after the other."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any

import pytest
from serving import answered, everything

from scrapy_captcha.service import server
from scrapy_captcha.service.guard import _check_local
from scrapy_captcha.service.wire import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from serving import Served

HEAD = b"POST /captcha HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
#: As Java's own client sends it with every request, unless it is told not to.
UPGRADE = (
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"
)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
FIXED = b"Content-Length: 4\r\n"
LIVE = b"GET /live HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    ("framing", "body"), [(FIXED, b"AAAA"), (CHUNKED, b"2\r\nAA\r\n2\r\nAA\r\n0\r\n\r\n")]
)
def test_an_upgrade_is_ignored(shared: Callable[..., Served], framing: bytes, body: bytes) -> None:
    service = shared({})
    plain = HEAD + framing + b"\r\n" + body

    with service.connect() as peer:
        peer.sendall(HEAD + UPGRADE + framing + b"\r\n")
        peer.sendall(body)
        assert answered(peer).startswith(b"HTTP/1.1 200 ")
        for whole in (HEAD + UPGRADE + framing + b"\r\n" + body, plain):
            peer.sendall(whole)
            assert answered(peer).startswith(b"HTTP/1.1 200 ")
        for more in (UPGRADE, b"Connection: upgrade\r\nUpgrade: websocket\r\n"):
            peer.sendall(LIVE + more + b"\r\n")
            assert answered(peer).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("filling", [b"a: b\r\n", b"a"])
def test_what_follows_a_body_without_an_end_is_not_kept(
    shared: Callable[..., Served], filling: bytes
) -> None:
    service = shared({}, head_timeout=60)

    with service.connect() as peer:
        peer.sendall(HEAD + CHUNKED + b"\r\n4\r\nAAAA\r\n0\r\n")
        with contextlib.suppress(ConnectionError):
            while True:  # until the service has closed it
                peer.sendall(filling * 20_000)


class Transport:
    """Counts, and never gets rid of what it has."""

    def __init__(self) -> None:
        self.unsent = 0
        self.aborted = False

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def abort(self) -> None:
        self.aborted = True


def test_a_client_that_does_not_take_its_answers_is_left() -> None:
    protocol = server.TimedProtocol.__new__(server.TimedProtocol)
    protocol._patience, protocol._unsent_since = 5.0, None
    transport = Transport()
    protocol.transport = transport  # type: ignore[assignment]

    for now, unsent, left in [(1, 9, False), (5, 9, False), (6, 0, False), (7, 9, False)]:
        transport.unsent = unsent
        protocol.look_after(now)
        assert transport.aborted is left
    protocol.look_after(12)
    assert not transport.aborted
    protocol.look_after(12.1)
    assert transport.aborted


def test_no_more_than_so_many_requests_wait_for_those_before_them(
    shared: Callable[..., Served],
) -> None:
    service = shared({})

    with service.connect() as peer:
        peer.sendall((LIVE + b"\r\n") * server.MAX_PIPELINED)
        answers = b""
        while answers.count(b"HTTP/1.1 200 ") < server.MAX_PIPELINED:
            answers += answered(peer)
        with contextlib.suppress(ConnectionError):
            peer.sendall((LIVE + b"\r\n") * 2000)
            assert everything(peer).count(b"HTTP/1.1 200 ") < 2000


def test_the_beginning_of_the_next_head_is_not_taken_for_a_long_one(
    shared: Callable[..., Served],
) -> None:
    service = shared({}, max_body=1 << 20)
    body = b"A" * (512 << 10)

    with service.connect() as peer:
        for _ in range(10):
            peer.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body + LIVE)
            answer = answered(peer)
            assert not answer.startswith(b"HTTP/1.1 431 "), answer
            peer.sendall(b"\r\n")
            assert answered(peer).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_says_that_it_sends_no_more_gets_its_answer(
    shared: Callable[..., Served],
) -> None:
    service = shared({})

    with service.connect() as peer:
        peer.sendall(HEAD + FIXED + b"\r\nAAAA")
        peer.shutdown(socket.SHUT_WR)
        answer = everything(peer)  # and the connection ends
    assert answer.startswith(b"HTTP/1.1 200 ")
    with service.connect() as peer:
        peer.sendall(HEAD + FIXED + b"\r\nAA")
        peer.shutdown(socket.SHUT_WR)
        assert everything(peer) == b""


def test_an_address_that_this_machine_does_not_have_leaves_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def found(*_: Any, **__: Any) -> list[Any]:
        stream = (socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        return [(socket.AF_INET, *stream, (host, 0)) for host in ("192.0.2.1", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    (listener,) = server.listen("localhost", 0)
    with listener:
        assert server.url(listener).startswith("http://127.0.0.1:")


def test_without_a_token_a_host_that_tells_nothing_of_its_address_is_refused() -> None:
    headers = {b"host": b"localhost"}
    with pytest.raises(Refused, match="no token"):
        _check_local({"server": None}, headers, frozenset())
    _check_local({"server": ("/run/captcha.sock", None)}, headers, frozenset())
