"""Clients that send slowly, too much, or never to the end."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from typing import TYPE_CHECKING

import pytest
from serving import answered, ask, everything

if TYPE_CHECKING:
    from collections.abc import Callable

    from serving import Served

HEAD = b"POST /captcha HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
QUICK = {"head_timeout": 0.3, "body_timeout": 0.3}


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\r\n",
        b"P",
        b"POST /captcha HTTP/1.1\r\nHost: localhost\r\n",
        HEAD + b"Content-Length: 4\r\n\r\nAAAAPOST /captcha HTTP/1.1\r\n",
    ],
)
def test_a_connection_on_which_no_head_comes_to_its_end_is_closed(
    shared: Callable[..., Served], sent: bytes
) -> None:
    service = shared({}, **QUICK)

    with service.connect() as peer:
        peer.sendall(sent)
        answer = everything(peer)

    assert answer.count(b"HTTP/1.1 ") == sent.count(b"AAAA")


def test_a_head_that_comes_byte_by_byte_is_not_waited_for_longer(
    shared: Callable[..., Served],
) -> None:
    service = shared({}, **QUICK)

    with service.connect() as peer, contextlib.suppress(OSError):
        peer.sendall(b"GET /")
        peer.settimeout(0.05)
        while True:  # until the service has closed it
            peer.sendall(b"a")
            with contextlib.suppress(TimeoutError):
                assert peer.recv(1) == b""
                break


@pytest.mark.parametrize(
    "begun",
    [
        HEAD + b"Content-Length: 400\r\n\r\nAAAA",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nAAAA\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n4",
    ],
)
def test_408_comes_when_the_body_does_not(shared: Callable[..., Served], begun: bytes) -> None:
    service = shared({}, **QUICK)

    with service.connect() as peer:
        peer.sendall(begun)
        answer = everything(peer)

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close\r\n" in answer
    assert b"expected the whole body within 0.3 s" in answer


def test_a_body_that_nobody_wants_any_more_is_not_read_for_ever(
    shared: Callable[..., Served],
) -> None:
    service = shared({"refuses": [429, "busy", 1]}, **QUICK)

    with service.connect() as peer, contextlib.suppress(OSError):
        peer.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        assert answered(peer).startswith(b"HTTP/1.1 429 ")
        peer.settimeout(0.05)
        while True:  # until the service has closed it
            peer.sendall(b"4\r\nAAAA\r\n")
            with contextlib.suppress(TimeoutError):
                assert peer.recv(1) == b""
                break


def test_a_head_without_an_end_is_refused_for_its_size(shared: Callable[..., Served]) -> None:
    service = shared({})

    with service.connect() as peer:
        sender = threading.Thread(target=_send_headers, args=(peer,))
        sender.start()
        answer = everything(peer)
        sender.join()

    assert answer == b"" or answer.startswith(b"HTTP/1.1 431 ")  # a reset may overtake it
    assert service.ask("GET", "/live").status == 200


def test_413_reaches_a_client_that_sends_all_before_it_reads(
    shared: Callable[..., Served],
) -> None:
    service = shared({}, max_body=100_000)

    with service.connect() as peer:
        peer.sendall(HEAD + b"Content-Length: 30000000\r\n\r\n")
        for _ in range(300):
            peer.sendall(bytes(100_000))
        answer = everything(peer)

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.endswith(b'{"status": "NO", "msg": "expected a body of at most 100000 bytes"}')


def test_bodies_that_do_not_end_take_only_so_much_memory(shared: Callable[..., Served]) -> None:
    service = shared({}, max_body=100_000, max_held=1_000_000, body_timeout=60)
    begun = HEAD + b"Content-Length: 100000\r\n\r\n" + b"A" * 90_000

    with contextlib.ExitStack() as peers:
        waiting = [peers.enter_context(service.connect()) for _ in range(30)]
        for peer in waiting:
            peer.sendall(begun)
        while len(waiting) > 11:  # eleven are within the limit
            for peer in select.select(waiting, [], [], 60)[0]:
                assert answered(peer).startswith(b"HTTP/1.1 429 ")
                waiting.remove(peer)
        text = service.ask("GET", "/metrics").body.decode()
    assert 'captcha_refused_total{reason="memory"} 19.0' in text
    assert service.ask("POST", "/captcha", b"AAAA", {"Content-Type": "text/plain"}).status == 200


def test_a_client_that_asks_before_it_sends_too_much_need_not_send(
    shared: Callable[..., Served],
) -> None:
    service = shared({}, max_body=100_000)

    with service.connect() as peer:
        peer.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 100001\r\n\r\n")
        assert answered(peer).startswith(b"HTTP/1.1 413 ")
    with service.connect() as peer:
        peer.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        assert peer.recv(1000).startswith(b"HTTP/1.1 100 ")
        peer.sendall(b"AAAA")
        assert answered(peer).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_goes_away_leaves_no_trace(serve: Callable[..., Served]) -> None:
    service = serve({})

    for begun in (
        HEAD + b"Content-Length: 400\r\n\r\nAAAA",
        HEAD + b"Content-Length: 4\r\n\r\nAAAA",
    ):
        with service.connect() as peer:
            peer.sendall(begun)
    assert service.ask("GET", "/live").status == 200

    assert service.stop() == 0
    assert "Traceback" not in service.log.read_text()


@pytest.mark.parametrize("connections", [50, pytest.param(500, marks=pytest.mark.slow)])
def test_others_are_served_while_many_dribble(
    serve: Callable[..., Served], connections: int
) -> None:
    service = serve({}, head_timeout=2, drain=0)
    stop = threading.Event()
    with contextlib.ExitStack() as open_sockets:
        slow = [open_sockets.enter_context(service.connect()) for _ in range(connections)]
        dribbling = threading.Thread(target=_dribble, args=(slow, stop))
        dribbling.start()
        open_sockets.callback(dribbling.join)
        open_sockets.callback(stop.set)
        healthy = open_sockets.enter_context(contextlib.closing(service.connection()))

        for _ in range(300):
            answer = ask(healthy, "POST", "/captcha", b"AAAA", {"Content-Type": "text/plain"})
            assert answer.status == 200
        for peer in slow:  # none of them is kept
            assert everything(peer) == b""

    assert service.stop() == 0


def _send_headers(peer: socket.socket) -> None:
    with contextlib.suppress(OSError):
        peer.sendall(b"GET / HTTP/1.1\r\n")
        while True:
            peer.sendall(b"A: " + b"a" * 1000 + b"\r\n")


def _dribble(peers: list[socket.socket], stop: threading.Event) -> None:
    word = b"GET /"
    while not stop.wait(0.05):
        for peer in peers:
            with contextlib.suppress(OSError):
                peer.send(word, socket.MSG_DONTWAIT)
        word = b"a"
