"""The service under servers that are not its own."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from serving import REPOSITORY, Served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scrapy_captcha.bundle import Golden

UVICORN = (
    sys.executable,
    "-m",
    "uvicorn",
    "--factory",
    "scrapy_captcha.service:app",
    "--port",
    "0",
)
TOKEN = "of-the-environment"


@pytest.fixture(scope="module")
def hosted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(
        [*UVICORN, "--root-path", "/reader", "--no-access-log"],
        tmp_path_factory.mktemp("hosted") / "log",
        r"running on http://127\.0\.0\.1:(\d+)",
        CAPTCHA_SERVICE_TOKEN=TOKEN,
        CAPTCHA_SERVICE_READERS="1",
        CAPTCHA_SERVICE_DEADLINE="30",
        CAPTCHA_SERVICE_MODELS="alnum8,four=alnum4",
    )
    yield served
    served.close()


def test_plain_uvicorn_hosts_it_as_the_environment_says(hosted: Served, golden: Golden) -> None:
    hosted.wait_until_ready()
    headers = {"Content-Type": "image/png", "Authorization": f"Bearer {TOKEN}"}

    read = hosted.ask("POST", "/captcha?model=four", golden.image, headers)
    default = hosted.ask("POST", "/captcha", golden.image, headers)
    refused = hosted.ask("POST", "/captcha", golden.image, {"Content-Type": "image/png"})

    assert (read.json["result"], read.json["model"]) == (golden.text, "four")
    assert default.json["model"] == "alnum8"
    assert refused.status == 401
    assert hosted.stop() in {0, -15}  # uvicorn ends by the signal that it was sent
    assert "Traceback" not in hosted.log.read_text()


def test_what_is_wrong_in_the_environment_ends_the_server_and_is_named() -> None:
    done = subprocess.run(
        UVICORN,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=REPOSITORY,
        env={"PYTHONPATH": str(REPOSITORY), "CAPTCHA_SERVICE_READERS": "none"},
    )

    assert done.returncode != 0
    assert "CAPTCHA_SERVICE_READERS: expected a whole number from 1 to 256, got 'none'" in (
        done.stderr
    )


@pytest.mark.parametrize("missing", ["fastapi", "prometheus_client"])
def test_without_the_extra_the_error_says_what_to_install(missing: str) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from scrapy_captcha.service import ServiceConfig, create_app\n"
        "create_app(ServiceConfig())"
    )

    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=REPOSITORY,
    )

    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: the service needs ")
    assert last.endswith("pip install 'scrapy-captcha[serve]'")


def test_the_plugin_and_the_configuration_import_nothing_of_the_extra() -> None:
    code = (
        "import sys, scrapy_captcha, scrapy_captcha.service.config\n"
        "print(*{'fastapi', 'uvicorn', 'starlette', 'prometheus_client'} & sys.modules.keys())"
    )

    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=REPOSITORY,
    )

    assert done.stdout.split() == []
