"""Each status of an error, and what it says."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest
from serving import JSON

if TYPE_CHECKING:
    from collections.abc import Callable

    from serving import Served

    from scrapy_captcha.bundle import Golden

PNG = {"Content-Type": "image/png"}


def test_400_says_what_was_expected(service: Served) -> None:
    for body, says in ((b"", "empty body"), (b"{", "not JSON"), (b'{"pic": "*"}', "base64")):
        answer = service.ask("POST", "/captcha", body, JSON)
        assert answer.status == 400
        assert says in answer.refusal
    assert service.ask("POST", "/captcha", b"", PNG).status == 400


def test_404_and_405_have_the_shape_of_all_errors(service: Served) -> None:
    missing = service.ask("GET", "/captchas")
    assert missing.status == 404
    assert "/captchas" in missing.refusal
    assert service.ask("POST", "/captcha/", b"{}", JSON).status == 404
    for method, path, allowed in (
        ("GET", "/captcha", "POST"),
        ("PUT", "/captcha/batch", "POST"),
        ("POST", "/live", "GET, HEAD"),
        ("DELETE", "/docs", "GET, HEAD"),
    ):
        answer = service.ask(method, path)
        assert answer.status == 405
        assert answer.headers["allow"] == allowed
        assert answer.refusal


def test_413_comes_for_what_is_declared_and_for_what_is_sent(service: Served) -> None:
    body = bytes(3_000_000)

    declared = service.ask("POST", "/captcha", body, PNG)
    connection = service.connection()
    chunks = (body[i : i + 50_000] for i in range(0, len(body), 50_000))
    connection.request("POST", "/captcha", chunks, PNG, encode_chunked=True)
    sent = connection.getresponse()

    assert (declared.status, sent.status) == (413, 413)
    assert declared.refusal == "expected a body of at most 200000 bytes"
    assert declared.headers["connection"] == "close"
    assert b'"status": "NO"' in sent.read()
    connection.close()


def test_415_lists_what_is_taken(service: Served) -> None:
    form = service.ask(
        "POST", "/captcha", b"pic=AAAA", {"Content-Type": "application/x-www-form-urlencoded"}
    )
    none = service.ask("POST", "/captcha", b"AAAA")
    packed = service.ask("POST", "/captcha", b"AAAA", {**JSON, "Content-Encoding": "gzip"})

    assert (form.status, none.status, packed.status) == (415, 415, 415)
    accepted = "application/json, text/plain, image/*, application/octet-stream"
    assert form.headers["accept"] == none.headers["accept"] == accepted
    assert "x-www-form-urlencoded" in form.refusal
    assert packed.headers["accept-encoding"] == "identity"
    assert "gzip" in packed.refusal


def test_422_says_what_cannot_be_read(service: Served, golden: Golden) -> None:
    pic = base64.b64encode(golden.image).decode()

    for fields, says in (
        ({"pic": base64.b64encode(b"hello").decode()}, "PNG, JPEG, GIF, WEBP, BMP"),
        ({"pic": base64.b64encode(golden.image[:60]).decode()}, ""),
        ({"pic": pic, "length": 5}, "reads 4 characters, not 5"),
        ({"pic": pic, "charset": "äö"}, "does not know"),
        ({"pic": pic, "length": 0}, "from 1 to 32"),
        ({"pic": pic, "model": "other"}, "expected one of alnum4, any as \"model\", got 'other'"),
    ):
        answer = service.post(fields)
        assert answer.status == 422
        assert says in answer.refusal


@pytest.mark.parametrize("path", ["/captcha", "/captcha/batch"])
def test_429_says_when_to_come_again(shared: Callable[..., Served], path: str) -> None:
    service = shared({"refuses": [429, "256 images wait; try again later", 3]})

    # before the body, so whatever it is
    answer = service.ask("POST", path, b"{", JSON)

    assert answer.status == 429
    assert answer.headers["retry-after"] == "3"
    assert answer.refusal == "256 images wait; try again later"
    assert "connection" not in answer.headers


def test_what_a_reader_could_not_do_is_told(shared: Callable[..., Served]) -> None:
    late = [503, "the image could not be read before its deadline", 1]
    service = shared({"outcomes": [late]})
    pic = base64.b64encode(b"image").decode()

    single = service.post({"pic": pic})
    batch = service.post({"pics": [pic]}, "/captcha/batch")
    mixed = service.post({"pics": [pic, "***"]}, "/captcha/batch")

    assert (single.status, batch.status, mixed.status) == (503, 503, 200)
    assert single.headers["retry-after"] == batch.headers["retry-after"] == "1"
    assert single.refusal == batch.refusal == late[1]
    assert [result["status"] for result in mixed.json["results"]] == ["NO", "NO"]
    assert [result["code"] for result in mixed.json["results"]] == [503, 400]


def test_503_comes_before_the_readers_are_ready(shared: Callable[..., Served]) -> None:
    service = shared({"ready": False})

    answer = service.ask("GET", "/ready")

    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"
    assert "loading" in answer.refusal
    assert service.ask("GET", "/models").status == 503
    assert service.ask("GET", "/live").json == {"status": "OK"}


def test_500_tells_the_client_nothing_and_the_log_everything(serve: Callable[..., Served]) -> None:
    service = serve({"broken": True})

    answer = service.post({"pic": base64.b64encode(b"image").decode()})

    assert answer.status == 500
    assert answer.refusal == "the service failed; its log says why"
    assert service.stop() == 0
    log = service.log.read_text()
    assert log.count("RuntimeError: the stand-in is broken") == 1
    assert "aW1hZ2U" not in log


def test_what_is_no_http_is_answered_in_the_same_shape(service: Served) -> None:
    with service.connect() as peer:
        peer.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        answer = b""
        while part := peer.recv(1000):
            answer += part

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'{"status": "NO", "msg": ' in answer


def test_head_is_answered_where_get_is(service: Served) -> None:
    for path in ("/live", "/ready", "/models", "/metrics", "/docs", "/openapi.json"):
        answer = service.ask("HEAD", path)
        assert (answer.status, answer.body) == (200, b"")


def test_requests_are_counted_by_route_and_status(serve: Callable[..., Served]) -> None:
    service = serve({})
    service.post({"pic": "AAAA"})
    service.post({"pic": "*"})
    service.ask("GET", "/a/path/that/anyone/could/make/up")

    metrics = service.ask("GET", "/metrics")

    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = metrics.body.decode().splitlines()
    for line in (
        'captcha_requests_total{route="/captcha",status="200"} 1.0',
        'captcha_requests_total{route="/captcha",status="400"} 1.0',
        'captcha_requests_total{route="other",status="404"} 1.0',
        "captcha_request_seconds_count 1.0",
    ):
        assert line in lines
