"""Services that are busy, away or silent, and those that talk nonsense."""

from __future__ import annotations

import threading
from contextlib import ExitStack, closing
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

import pytest
from reading_service import Asked, ReadingService, Said, no, raw_service

from scrapy_captcha import exchange, remote
from scrapy_captcha.bundle import open_bundle
from scrapy_captcha.errors import ServiceError
from scrapy_captcha.remote import PAUSE, THREADS, RemoteReader

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

GOLDEN = open_bundle("alnum4").manifest.golden[0]
IMAGE = GOLDEN.image
#: Longer than anything takes.
PATIENCE = 60.0


@pytest.fixture
def service() -> Iterator[ReadingService]:
    with ReadingService() as service:
        yield service


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """For how long it was waited; nobody waits really."""
    seconds: list[float] = []
    monkeypatch.setattr(remote, "sleep", lambda pause, _: seconds.append(pause))
    return seconds


def connect(url: str, timeout: float = 30) -> closing[RemoteReader]:
    return closing(RemoteReader.connect(url, timeout=timeout))


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_service_is_asked_again_when_it_says_so(
    service: ReadingService, waits: list[float], status: int
) -> None:
    service.script += [no(status, "later", Retry_After="3"), no(status, "later", Retry_After="0")]
    service.script += [no(status, "later"), no(status, "later", Retry_After="Fri, 31 Dec 1999")]
    with connect(service.url) as reader:
        assert reader.read(IMAGE).text == GOLDEN.text
    assert waits == [3, PAUSE, PAUSE, PAUSE]
    assert len(service.readings) == 5


def test_a_service_that_is_busy_for_too_long_is_not_waited_for(
    service: ReadingService, waits: list[float]
) -> None:
    service.script.append(no(503, "draining", Retry_After="31"))
    with (
        connect(service.url) as reader,
        pytest.raises(ServiceError, match=r"503 \('draining'\): to be asked again after 31 sec"),
    ):
        reader.read(IMAGE)
    assert waits == []


def test_a_service_that_is_busy_at_first_is_waited_for(
    service: ReadingService, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [no(503, "not ready", Retry_After="1"), service.described()]
    monkeypatch.setattr(service, "described", lambda: answers.pop(0))
    with connect(service.url) as reader:
        assert reader.manifest.name == "alnum4"
    assert waits == [1]


def test_a_service_that_is_not_there_at_first_is_an_error_at_once(waits: list[float]) -> None:
    with ReadingService() as service:
        url = service.url
    with pytest.raises(ServiceError, match=f"{url} is not reached: Connection refused"):
        RemoteReader.connect(url)
    assert waits == []


def test_a_host_that_does_not_exist_is_named() -> None:
    with pytest.raises(ServiceError, match=r"http://no\.such\.invalid:80 is not reached: "):
        RemoteReader.connect("http://no.such.invalid")


def test_a_service_that_is_started_again_goes_on_reading(
    service: ReadingService, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack, connect(service.url) as reader:
        answer = service.read(Asked("POST", "/captcha", {}, {}, IMAGE, 0))
        service.script.append(Said(answer.content, hangs_up=True))
        reader.read(IMAGE)
        service.shutdown()
        service.server_close()
        waits = []

        def wait(seconds: float, _: object) -> None:
            waits.append(seconds)
            if len(waits) == 2:
                stack.enter_context(ReadingService(port=service.server_port))

        monkeypatch.setattr(remote, "sleep", wait)
        assert reader.read(IMAGE).text == GOLDEN.text
    assert waits == [PAUSE, PAUSE]


def test_a_service_that_went_away_for_good_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with ReadingService() as service:
        reader = RemoteReader.connect(service.url)
        service.script.append(Said(b"{}", 500, hangs_up=True))
        with pytest.raises(ServiceError, match="answers 500"):
            reader.read(IMAGE)
    now = [0.0]
    monkeypatch.setattr(remote, "monotonic", lambda: now[0])
    monkeypatch.setattr(exchange, "_left", lambda deadline: 30.0)
    monkeypatch.setattr(remote, "sleep", lambda seconds, _: now.__setitem__(0, now[0] + seconds))
    with closing(reader), pytest.raises(ServiceError, match="is not reached: Connection refused"):
        reader.read(IMAGE)
    assert 29 < now[0] < 30


def hold(connection: socket.socket) -> None:
    """Say nothing until the other side gives up."""
    while connection.recv(1 << 16):
        pass


def drip(text: bytes) -> Callable[[socket.socket], None]:
    """Send byte after byte, each in time, and come to no end."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(text)
        while True:
            connection.sendall(b"x")
            sleep(0.01)

    return answer


BODY = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{"
SILENT = {
    "no answer": hold,
    "a status line without an end": drip(b"HTTP/1.1 200 "),
    "a header without an end": drip(b"HTTP/1.1 200 OK\r\nContent-Type: "),
    "a body without an end": drip(BODY),
}


@pytest.mark.parametrize("answer", SILENT.values(), ids=SILENT)
def test_what_is_not_answered_in_time_is_an_error(answer: Callable[[socket.socket], None]) -> None:
    with (
        raw_service(answer) as url,
        connect(url, timeout=0.5) as reader,
        pytest.raises(ServiceError, match=f"{url} did not answer within 0.5 seconds"),
    ):
        reader.read(IMAGE)


def test_a_reading_that_nobody_waits_for_any_more_is_not_sent(service: ReadingService) -> None:
    with connect(service.url) as reader, pytest.raises(ServiceError, match="was not asked"):
        reader.read(IMAGE, deadline=monotonic())
    assert service.readings == []


def test_a_reading_waits_no_longer_than_it_is_waited_for(
    service: ReadingService, waits: list[float]
) -> None:
    service.script.append(no(503, "draining", Retry_After="3"))
    with connect(service.url) as reader, pytest.raises(ServiceError, match="503"):
        reader.read(IMAGE, deadline=monotonic() + 2)
    assert waits == []


def test_what_is_on_its_way_ends_when_the_reader_is_closed() -> None:
    """In its thread, which the process would wait for."""
    came = threading.Event()

    def answer(connection: socket.socket) -> None:
        came.set()
        hold(connection)

    with raw_service(answer) as url, connect(url, timeout=PATIENCE) as reader:
        jobs = [reader.threads.submit(reader.read, IMAGE) for _ in range(THREADS + 1)]
        came.wait()
        reader.close()
        for job in jobs[:-1]:
            assert isinstance(job.exception(), ServiceError)
        assert jobs[-1].cancelled()


def test_a_reader_that_is_closed_asks_no_more(service: ReadingService) -> None:
    with connect(service.url, timeout=PATIENCE) as reader:
        service.script += [no(503, "draining", Retry_After="30")]
        job = reader.threads.submit(reader.read, IMAGE)
        while not service.readings:
            sleep(0.01)
        reader.close()
        assert isinstance(job.exception(), ServiceError)
    assert len(service.readings) == 1


# -- services that talk nonsense

OK = "HTTP/1.1 200 OK\r\n"
NO_HTTP = {
    "another protocol": b"220 mail.example ESMTP\r\n",
    "too many headers": (OK + "X: y\r\n" * 200 + "\r\n").encode(),
    "a header too long": (OK + "X: " + "y" * 100_000).encode(),
    "a body too large": (OK + f"Content-Length: {1 << 19}\r\n\r\n").encode() + b" " * (1 << 19),
    "a body too large for its size": (OK + "\r\n").encode() + b" " * (1 << 19),
    "chunks that are none": (OK + "Transfer-Encoding: chunked\r\n\r\nxyz\r\n").encode(),
}


@pytest.mark.parametrize("said", NO_HTTP.values(), ids=NO_HTTP)
def test_what_is_no_http_answer_is_an_error(said: bytes, waits: list[float]) -> None:
    with (
        raw_service(lambda connection: connection.sendall(said)) as url,
        connect(url) as reader,
        pytest.raises(ServiceError, match="does not answer as a captcha service does"),
    ):
        reader.read(IMAGE)
    assert waits == []


def test_an_answer_that_is_cut_off_is_asked_for_again(waits: list[float]) -> None:
    with ReadingService() as service:
        whole = service.read(Asked("POST", "/captcha", {}, {}, IMAGE, 0)).body
    head = (OK + f"Content-Length: {len(whole)}\r\n\r\n").encode()
    answers = [head + whole[:-1], b"", head + whole]

    def answer(connection: socket.socket) -> None:
        connection.sendall(answers.pop(0))

    with raw_service(answer) as url, connect(url) as reader:
        assert reader.read(IMAGE).text == GOLDEN.text
    assert waits == [PAUSE, PAUSE]


GOOD: dict[str, Any] = {
    "status": "OK",
    "result": "1a",
    "confidence": 0.5,
    "characters": [["1", 0.7], ["a", 0.8]],
    "model": "alnum4",
    "model_hash": "0123",
}
NONSENSE: list[Any] = [
    b"",
    b"<html>welcome to the hotel</html>",
    b"\xff\xfe",
    b"[" * 100_000,
    [],
    "OK",
    {"status": "NO", "msg": "no"},
    *(
        {key: value for key, value in GOOD.items() if key != gone}
        for gone in GOOD
        if gone != "model"
    ),
    *({**GOOD, "result": value} for value in (None, 7, "", "1b", "1\n", "a" * 65, ["1", "a"])),
    *({**GOOD, "confidence": value} for value in (None, "1", True, -0.1, 1.1, float("nan"))),
    *({**GOOD, "model_hash": value} for value in (None, 7, "", "a b", "a\n", "x" * 201)),
    *(
        {**GOOD, "characters": value}
        for value in (
            None,
            "1a",
            [["1", 0.7]],
            ["1", "a"],
            [["1", 0.7], ["a", 1.8]],
            [["1", 0.7], [["a"], 0.8]],
            [["1", 0.7], ["a", 0.8, 0.9]],
        )
    ),
]


@pytest.mark.parametrize("said", NONSENSE, ids=lambda said: str(said)[:60])
def test_an_answer_that_is_no_reading_is_an_error(service: ReadingService, said: Any) -> None:
    service.script += [Said(GOOD), Said(said)]
    with connect(service.url) as reader:
        assert reader.read(IMAGE).text == "1a"
        with pytest.raises(ServiceError, match="does not answer as a captcha service does"):
            reader.read(IMAGE)


MODEL = {
    "name": "a",
    "charset": "01",
    "length": 4,
    "min_length": 4,
    "case": "lower",
    "model_hash": "0123",
}


@pytest.mark.parametrize(
    "models",
    [
        None,
        [],
        ["alnum4"],
        *([{**MODEL, key: []}] for key in MODEL),
        [{**MODEL, "name": "\x1b[2J"}],
        [{**MODEL, "charset": ""}],
        [{**MODEL, "length": 0}],
        [{**MODEL, "length": 65}],
        [MODEL, {}],
    ],
    ids=str,
)
def test_what_is_no_list_of_models_is_an_error(
    service: ReadingService, monkeypatch: pytest.MonkeyPatch, models: Any
) -> None:
    monkeypatch.setattr(service, "described", lambda: Said({"status": "OK", "models": models}))
    with pytest.raises(ServiceError, match="does not answer as a captcha service does"):
        RemoteReader.connect(service.url)


def test_another_server_at_that_address_is_told_from_a_service() -> None:
    with (
        ReadingService(prefix="/elsewhere") as service,
        pytest.raises(ServiceError, match=r":\d+ answers 404 \('not found'\)"),
    ):
        RemoteReader.connect(service.url.removesuffix("/elsewhere"))
