"""Who may use a service: tokens, names of the host, and pages of other sites."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING

import pytest
from serving import PATIENCE, ask

if TYPE_CHECKING:
    from collections.abc import Callable

    from serving import Served

TOKEN = "s3cret-of-the-test"
PIC = {"pic": "AAAA"}


def test_with_a_token_only_live_and_ready_are_open(shared: Callable[..., Served]) -> None:
    service = shared({}, token=TOKEN)

    reading = ("/captcha", "/captcha/batch")
    for path in (*reading, "/models", "/metrics", "/docs", "/openapi.json", "/nowhere"):
        answer = service.ask("POST" if path in reading else "GET", path)
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "Authorization: Bearer TOKEN" in answer.refusal
    assert service.ask("GET", "/live").status == 200
    assert service.ask("GET", "/ready").status == 200


def test_a_wrong_token_is_refused_and_not_logged(serve: Callable[..., Served]) -> None:
    service = serve({}, token=TOKEN)

    for header in (
        "",
        TOKEN,
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        "Bearer",
        "Bearer é",
    ):
        assert service.post(PIC, Authorization=header).status == 401

    service.stop()
    assert TOKEN[:-1] not in service.log.read_text()


def test_the_right_token_is_taken_under_any_name_of_the_host(shared: Callable[..., Served]) -> None:
    service = shared({}, token=TOKEN)

    for scheme in ("Bearer", "bearer"):
        answer = service.post(PIC, Authorization=f"{scheme} {TOKEN}", Host="captcha.example")
        assert answer.status == 200


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8090", "127.0.0.1", "127.1.2.3:80", "[::1]:8090", "[::1]"]
)
def test_without_a_token_loopback_names_are_taken(service: Served, host: str) -> None:
    assert service.ask("GET", "/metrics", headers={"Host": host}).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "shop.example",
        "localhost.shop.example",
        "127.0.0.1.shop.example:8090",
        "10.0.0.7",
        "0.0.0.0",
        "",
        "[::ffff:10.0.0.7]",
    ],
)
def test_without_a_token_other_names_are_refused_as_a_rebound_page_would_have_them(
    service: Served, host: str
) -> None:
    answer = service.ask("POST", "/captcha", b"AAAA", {"Host": host, "Content-Type": "text/plain"})

    assert answer.status == 403
    assert "CAPTCHA_SERVICE_TOKEN" in answer.refusal


def test_a_page_of_another_site_gets_nothing_read_without_a_token(service: Served) -> None:
    # such a request passes without a preflight
    for origin in ("https://evil.example", "null", "http://127.0.0.1.evil.example"):
        headers = {"Origin": origin, "Content-Type": "text/plain"}
        answer = service.ask("POST", "/captcha", b"AAAA", headers)
        assert answer.status == 403
        assert "--allow-origin" in answer.refusal
        assert "access-control-allow-origin" not in answer.headers


def test_the_services_own_page_may_use_it(service: Served) -> None:
    answer = service.ask("POST", "/captcha", b"", {"Origin": service.url})

    assert answer.status == 415


def test_an_allowed_page_may_use_it_and_see_every_answer(service: Served) -> None:
    for path, status in (("/captcha", 415), ("/nowhere", 404)):
        answer = service.ask("POST", path, b"", {"Origin": "https://shop.example"})
        assert answer.status == status
        assert answer.headers["access-control-allow-origin"] == "https://shop.example"
        assert "retry-after" in answer.headers["access-control-expose-headers"].lower()
        assert answer.headers["vary"] == "Origin"


def test_a_preflight_passes_for_allowed_pages_alone_and_needs_no_token(
    shared: Callable[..., Served],
) -> None:
    service = shared({}, token=TOKEN, origins=["https://shop.example"])
    preflight = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
        "Access-Control-Request-Private-Network": "true",
    }

    allowed = service.ask(
        "OPTIONS", "/captcha", headers={"Origin": "https://shop.example", **preflight}
    )
    foreign = service.ask(
        "OPTIONS", "/captcha", headers={"Origin": "https://evil.example", **preflight}
    )
    refused = service.ask("POST", "/captcha", b"", {"Origin": "https://shop.example"})

    assert (allowed.status, foreign.status, refused.status) == (204, 403, 401)
    assert allowed.headers["access-control-allow-origin"] == "https://shop.example"
    assert "POST" in allowed.headers["access-control-allow-methods"]
    assert allowed.headers["access-control-allow-headers"] == "Authorization, Content-Type"
    assert allowed.headers["access-control-allow-private-network"] == "true"
    assert "access-control-allow-origin" not in foreign.headers
    assert refused.headers["access-control-allow-origin"] == "https://shop.example"


def test_without_allowed_pages_there_is_no_preflight(shared: Callable[..., Served]) -> None:
    service = shared({})

    answer = service.ask(
        "OPTIONS",
        "/captcha",
        headers={"Origin": service.url, "Access-Control-Request-Method": "POST"},
    )

    assert answer.status == 405
    assert not any(name.startswith("access-control") for name in answer.headers)


def test_a_refused_body_leaves_the_connection_usable(shared: Callable[..., Served]) -> None:
    service = shared({}, token=TOKEN)
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE)

    refused = ask(connection, "POST", "/captcha", bytes(300_000), {"Content-Type": "image/png"})
    live = ask(connection, "GET", "/live")

    assert (refused.status, live.status) == (401, 200)
    connection.close()
