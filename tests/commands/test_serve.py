from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from subprocess import CompletedProcess

    from scrapy_captcha.bundle import Golden

PATIENCE = 60


class Service:
    """``scrapy captcha serve`` on a port that the system chose."""

    def __init__(self, folder: Path, words: list[str], environment: dict[str, str]) -> None:
        self.log = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "scrapy", "captcha", "serve", "--port", "0", *words],
            cwd=folder,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        self.port = int(
            self._line(r"Reading captchas with .* on http://127\.0\.0\.1:(\d+)/captcha")
        )

    def _line(self, pattern: str) -> str:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log += line
            if found := re.search(pattern, line):
                return found[1]
        self.process.communicate()
        raise AssertionError(self.log)

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, body, named)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def wait_until_ready(self) -> None:
        while self.ask("GET", "/ready")[0] != 200:
            assert self.process.poll() is None
            time.sleep(0.05)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        self.log += self.process.communicate(timeout=PATIENCE)[1]
        return self.process.returncode


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    services: list[Service] = []

    def start(*words: str, **environment: str) -> Service:
        services.append(Service(tmp_path, ["--readers", "1", *words], environment))
        return services[-1]

    yield start
    for service in services:
        service.process.kill()
        service.process.communicate()


def test_it_reads_images_until_it_is_told_to_stop(
    serve: Callable[..., Service], golden: Golden
) -> None:
    service = serve("--drain", "0", "--deadline", "30")
    service.wait_until_ready()

    status, answer = service.ask("POST", "/captcha", golden.image, Content_Type="image/png")

    assert (status, answer["result"], answer["model"]) == (200, golden.text, "alnum4")
    assert service.stop() == 0
    assert "Told to stop" in service.log
    assert "Traceback" not in service.log


def test_models_have_names_and_the_first_is_the_default(
    serve: Callable[..., Service], golden: Golden
) -> None:
    service = serve("--model", "mine=alnum8", "--model", "alnum4", "--deadline", "30")
    service.wait_until_ready()

    for query, model in (("", "mine"), ("?model=alnum4", "alnum4")):
        status, answer = service.ask(
            "POST", f"/captcha{query}", golden.image, Content_Type="image/png"
        )
        assert (status, answer["model"]) == (200, model)


def test_the_token_comes_from_the_environment_and_the_setting_outranks_it(
    serve: Callable[..., Service], project: Callable[[str], None]
) -> None:
    of_environment = serve(CAPTCHA_SERVICE_TOKEN="of-the-environment")
    project("CAPTCHA_SERVICE_TOKEN = 'of-the-setting'")
    of_setting = serve(CAPTCHA_SERVICE_TOKEN="of-the-environment")

    for service, right, wrong in (
        (of_setting, "of-the-setting", "of-the-environment"),
        (of_environment, "of-the-environment", "of-the-setting"),
    ):
        assert service.ask("GET", "/openapi.json", Authorization=f"Bearer {right}")[0] == 200
        assert service.ask("GET", "/openapi.json", Authorization=f"Bearer {wrong}")[0] == 401
        assert service.ask("GET", "/openapi.json")[0] == 401
        service.stop()
        assert "of-the-" not in service.log


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "reader.example"])
def test_what_others_can_reach_needs_a_token(
    scrapy: Callable[..., CompletedProcess[str]], host: str
) -> None:
    done = scrapy("captcha", "serve", "--host", host, "--port", "0")

    assert done.returncode == 1
    assert f"scrapy captcha serve: --host {host}: expected a token" in done.stderr
    assert "CAPTCHA_SERVICE_TOKEN" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_named(scrapy: Callable[..., CompletedProcess[str]]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = scrapy("captcha", "serve", "--port", str(port))

    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--readers", "none"], "readers: expected a whole number from 1 to 256, got 'none'"),
        (["--model", "nope"], "no model 'nope': expected one of alnum4, alnum8"),
        (["--allow-origin", "*"], "origins: expected origins such as https://shop.example"),
        (["--model", "a=alnum4", "--model", "a=alnum8"], "--model: expected names that differ"),
    ],
)
def test_what_makes_no_sense_is_named(
    scrapy: Callable[..., CompletedProcess[str]], words: list[str], says: str
) -> None:
    done = scrapy("captcha", "serve", "--port", "0", *words)

    assert done.returncode in {1, 2}
    assert says in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
