"""A service that is told to stop."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

import pytest
from serving import PATIENCE, Answer, answered, ask

if TYPE_CHECKING:
    from collections.abc import Callable

    from serving import Served

HEAD = b"POST /captcha HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
TEXT = {"Content-Type": "text/plain"}


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_it_is_not_ready_at_once_still_answers_and_asks_clients_to_leave(
    serve: Callable[..., Served], sign: int
) -> None:
    service = serve({}, drain=PATIENCE)
    connection = service.connection()
    before = ask(connection, "POST", "/captcha", b"AAAA", TEXT)

    service.process.send_signal(sign)
    ready = _first_not_ready(service)
    after = ask(connection, "POST", "/captcha", b"AAAA", TEXT)
    new = service.ask("POST", "/captcha", b"AAAA", TEXT)
    live = service.ask("GET", "/live")

    assert (before.status, after.status, new.status, live.status) == (200, 200, 200, 200)
    assert "connection" not in before.headers
    assert {after.headers["connection"], new.headers["connection"]} == {"close"}
    assert "stopping" in ready.refusal
    connection.close()


def test_what_has_begun_is_finished_before_it_ends(serve: Callable[..., Served]) -> None:
    service = serve({"held": True}, drain=0, body_timeout=PATIENCE)
    with service.connect() as half_sent, service.connect() as being_read, service.connect() as idle:
        half_sent.sendall(HEAD + b"Content-Length: 8\r\n\r\nAAAA")
        idle.sendall(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert answered(idle).startswith(b"HTTP/1.1 200 ")
        being_read.sendall(HEAD + b"Content-Length: 4\r\n\r\nAAAA")
        assert service.line() == "reading"

        service.process.send_signal(signal.SIGTERM)
        assert idle.recv(1000) == b""  # nothing is under way there, and no one listens any more
        with pytest.raises(OSError):  # noqa: PT011 - refused, or reset, as it comes
            service.ask("GET", "/live")
        service.say("read it")
        first = answered(being_read)
        half_sent.sendall(b"AAAA")
        assert service.line() == "reading"
        service.say("read it")
        second = answered(half_sent)

    assert first.startswith(b"HTTP/1.1 200 ")
    assert second.startswith(b"HTTP/1.1 200 ")
    assert service.line() == "stopped"
    assert service.wait() == 0


def test_a_second_signal_ends_it_at_once(serve: Callable[..., Served]) -> None:
    service = serve({"held": True}, drain=PATIENCE)
    with service.connect() as peer:
        peer.sendall(HEAD + b"Content-Length: 4\r\n\r\nAAAA")
        assert service.line() == "reading"

        service.process.send_signal(signal.SIGTERM)
        _first_not_ready(service)
        service.process.send_signal(signal.SIGTERM)

        assert service.wait() == 0


def test_under_load_every_request_is_answered(serve: Callable[..., Served]) -> None:
    service = serve({}, drain=1)
    answers: list[list[Answer]] = [[] for _ in range(8)]
    enough = threading.Barrier(9, timeout=PATIENCE)
    clients = [
        threading.Thread(target=_ask_until_told_to_leave, args=(service, mine, enough))
        for mine in answers
    ]
    for client in clients:
        client.start()

    enough.wait()
    code = service.stop()
    for client in clients:
        client.join()

    assert code == 0
    for mine in answers:
        # a request that got no answer would have ended the client before it was told to leave
        assert {answer.status for answer in mine} == {200}
        assert mine[-1].headers["connection"] == "close"


def _ask_until_told_to_leave(
    service: Served, answers: list[Answer], enough: threading.Barrier
) -> None:
    connection = service.connection()
    while not answers or "connection" not in answers[-1].headers:
        answers.append(ask(connection, "POST", "/captcha", b"AAAA", TEXT))
        if len(answers) == 20:
            enough.wait()
    connection.close()


def _first_not_ready(service: Served) -> Answer:
    """What ``/ready`` says as soon as the signal has come."""
    while (answer := service.ask("GET", "/ready")).status == 200:
        pass
    assert answer.status == 503
    return answer
