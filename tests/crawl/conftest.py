from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from crawling import TROUBLE, Driver, Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from crawling import Crawl
    from sites import Site


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Driver]]:
    """The process that crawls for all tests; a new one when it has died."""
    stderr = tmp_path_factory.mktemp("driver") / "stderr"
    drivers: list[Driver] = []

    def running() -> Driver:
        if not drivers or not drivers[-1].alive:
            drivers.append(Driver(stderr))
        return drivers[-1]

    yield running
    for driver in drivers:
        driver.close()
    said = stderr.read_text() if drivers else ""
    for word in TROUBLE:
        assert word not in said, said


@pytest.fixture
def crawl(driver: Callable[[], Driver], tmp_path: Path) -> Callable[..., Crawl]:
    """Crawl pages of a site, with a rule; a clean log is part of every test."""

    def run(
        site: Site,
        requests: int | list[Any] = 3,
        rule: dict[str, Any] | None = None,
        *,
        trouble: bool = False,
        trainer: list[str] | None = None,
        **settings: Any,
    ) -> Crawl:
        if isinstance(requests, int):
            requests = list(site.pages(requests))
        settings = {
            "CAPTCHA_SITES": {site.netloc: rule or {}},
            "CAPTCHA_DATASET": str(tmp_path / "captchas"),
            **settings,
        }
        result = driver().run(Job(requests, settings, trainer or []))
        if not trouble:
            assert result.trouble == []
            assert result.error is None
        return result

    return run
