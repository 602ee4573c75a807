from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from serving import Served, command

from scrapy_captcha.bundle import open_bundle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from scrapy_captcha.bundle import Golden


@pytest.fixture(scope="session")
def golden() -> Golden:
    """An image, and what the shipped model reads in it."""
    return open_bundle("alnum4").manifest.golden[0]


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service with a real reader, ready, for all tests that do not stop it."""
    served = Served(
        command(
            models={"alnum4": "alnum4", "any": "alnum8"},
            readers=1,
            deadline=30,
            max_body=200_000,
            origins=["https://shop.example"],
        ),
        tmp_path_factory.mktemp("service") / "log",
    )
    try:
        served.wait_until_ready()
        yield served
    finally:
        served.close()
    assert "Traceback" not in served.log.read_text()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Start a service whose readers do as the test says."""
    started: list[Served] = []

    def start(pool: dict[str, Any] | None = None, **config: Any) -> Served:
        log = tmp_path / f"log{len(started)}"
        started.append(Served(command(pool or {}, readers=1, **config), log))
        return started[-1]

    yield start
    for served in started:
        served.close()


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Served]]:
    """The same, for tests that leave it as it was: one process for all who ask alike."""
    started: dict[str, Served] = {}

    def get(pool: dict[str, Any] | None = None, **config: Any) -> Served:
        words = command(pool or {}, readers=1, **config)
        if words[-1] not in started:
            started[words[-1]] = Served(words, tmp_path_factory.mktemp("shared") / "log")
        return started[words[-1]]

    yield get
    for served in started.values():
        served.close()
