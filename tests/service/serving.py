"""Services in processes of their own, and plain HTTP to talk to them."""

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent
#: Longer than anything takes; a test that waits so long has failed.
PATIENCE = 60.0


@dataclass(frozen=True)
class Answer:
    """What a service answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def refusal(self) -> str:
        """The message of an error, whose shape is checked."""
        assert self.headers["content-type"] == "application/json"
        body = self.json
        assert set(body) == {"status", "msg"}
        assert body["status"] == "NO"
        assert body["msg"]
        return str(body["msg"])


class Served:
    """A service that runs in another process.

    :param command: prints the port as its first line
    :param log: gets its standard error
    :param announced: a pattern for the port in the log, of a command that prints none
    """

    def __init__(
        self, command: list[str], log: Path, announced: str | None = None, **environment: str
    ) -> None:
        self.log = log
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("CAPTCHA_SERVICE_")
        }
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                cwd=REPOSITORY,
                env={**inherited, "PYTHONPATH": str(REPOSITORY), **environment},
            )
        line = self.line() if announced is None else self._find(announced)
        if not line.isdigit():
            self.close()
            raise AssertionError(log.read_text())
        self.port = int(line)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def line(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def _find(self, pattern: str) -> str:
        while not (found := re.search(pattern, self.log.read_text())):
            if self.process.poll() is not None:
                return ""
            time.sleep(0.05)
        return found[1]

    def say(self, word: str) -> None:
        """Write a line to its input."""
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """One request, on a connection of its own."""
        connection = self.connection()
        try:
            return ask(connection, method, path, body, headers)
        finally:
            connection.close()

    def post(self, fields: Any, path: str = "/captcha", **headers: str) -> Answer:
        return self.ask("POST", path, json.dumps(fields).encode(), {**JSON, **headers})

    def wait_until_ready(self) -> None:
        while self.ask("GET", "/ready").status != 200:
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)

    def stop(self, sign: int = signal.SIGTERM) -> int:
        """Tell it to end, and wait until it has.

        :return: its exit code
        """
        self.process.send_signal(sign)
        return self.wait()

    def wait(self) -> int:
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        """Whatever the test did, nothing of it stays."""
        self.process.kill()
        self.process.communicate()


JSON = {"Content-Type": "application/json"}


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    found = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, found, response.read())


def answered(peer: socket.socket) -> bytes:
    """An answer whose body is a JSON object, however many pieces it comes in."""
    answer = b""
    while not answer.endswith(b"}"):
        part = peer.recv(1 << 16)
        assert part, answer
        answer += part
    return answer


def everything(peer: socket.socket) -> bytes:
    """What comes until the service closes the connection."""
    parts = []
    while True:
        try:
            part = peer.recv(1 << 16)
        except ConnectionResetError:
            return b"".join(parts)
        if not part:
            return b"".join(parts)
        parts.append(part)


def command(pool: dict[str, Any] | None = None, **config: Any) -> list[str]:
    """What starts a service with the project's own server.

    :param pool: what a stand-in for the readers does; without it they are real
    """
    given = json.dumps({"config": config, "pool": pool})
    return [sys.executable, str(HERE / "service_process.py"), given]
