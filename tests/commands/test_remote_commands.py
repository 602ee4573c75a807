"""``read`` and ``check`` with a service in place of a model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from page_server import Answer, PageServer
from reading_service import ReadingService, no

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from subprocess import CompletedProcess

    from scrapy_captcha.bundle import Golden

TOKEN = "not-for-the-log"
SETTINGS = f"CAPTCHA_SERVICE_TOKEN = {TOKEN!r}\n"


@pytest.fixture
def service() -> Iterator[ReadingService]:
    with ReadingService(token=TOKEN) as service:
        yield service


def test_files_are_read_by_a_service(
    scrapy: Callable[..., CompletedProcess[str]],
    project: Callable[[str], None],
    service: ReadingService,
    tmp_path: Path,
    golden: Golden,
) -> None:
    project(SETTINGS)
    (tmp_path / "good.png").write_bytes(golden.image)
    (tmp_path / "broken.png").write_bytes(golden.image[:20])

    done = scrapy("captcha", "read", "--model", service.url, "--json", "broken.png", "good.png")

    assert done.returncode == 1
    broken, good = map(json.loads, done.stdout.splitlines())
    assert "PNG" in broken["error"]
    assert good["text"] == golden.text
    assert good["model_hash"] == service.hash_of("alnum4")


def test_the_project_s_service_is_the_default_and_checked_for_what_it_can_read(
    scrapy: Callable[..., CompletedProcess[str]],
    project: Callable[[str], None],
    service: ReadingService,
    tmp_path: Path,
    golden: Golden,
) -> None:
    project(f"{SETTINGS}CAPTCHA_MODEL = {service.url!r}\n")
    (tmp_path / "a.png").write_bytes(golden.image)

    done = scrapy("captcha", "read", "--charset", "xy", "a.png")
    refused = scrapy("captcha", "read", "--length", "7", "a.png")

    assert done.returncode == 0
    assert set(done.stdout.split("\t")[1]) <= {"x", "y"}
    assert refused.returncode == 2
    assert "reads 4 characters, not 7" in refused.stderr
    assert len(service.readings) == 1


def test_a_service_that_does_not_read_ends_the_command(
    scrapy: Callable[..., CompletedProcess[str]],
    service: ReadingService,
    tmp_path: Path,
    golden: Golden,
) -> None:
    (tmp_path / "a.png").write_bytes(golden.image)

    wrong = scrapy("captcha", "read", "--model", service.url, "a.png")
    misspelt = scrapy("captcha", "read", "--model", "http://me:secret@host", "a.png")

    assert (wrong.returncode, misspelt.returncode) == (1, 1)
    said = f"scrapy captcha read: {service.url} wants a token: CAPTCHA_SERVICE_TOKEN is missing"
    assert wrong.stderr.startswith(said)
    assert "expected a service's URL" in misspelt.stderr
    assert "secret" not in misspelt.stderr


def test_a_page_s_captcha_is_read_by_a_service(
    scrapy: Callable[..., CompletedProcess[str]],
    project: Callable[[str], None],
    service: ReadingService,
    golden: Golden,
) -> None:
    project(SETTINGS)
    wall = '<form method=post><img src="/captcha.png"><input name="code"></form>'
    answers = {"/": Answer(wall, status=403), "/captcha.png": Answer(golden.image, "image/png")}
    with PageServer(answers) as site:
        done = scrapy("captcha", "check", site.url, "--model", service.url)
        service.script.append(no(500, f"out of order, {TOKEN}"))
        broken = scrapy("captcha", "check", site.url, "--model", service.url)

    assert done.returncode == 0, done.stderr
    assert f"{golden.text} (confidence" in done.stdout
    assert "answers 500 ('out of order, ***')" in broken.stdout
    assert TOKEN not in broken.stdout + broken.stderr
