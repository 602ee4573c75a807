"""What the service says of itself, and whether it keeps to it."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from serving import Served, command

from scrapy_captcha.service.contract import EXAMPLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: Generated data meets the schema but is mostly no image, which the schema cannot tell.
NOT_CHECKED = "positive_data_acceptance"


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service with a real reader that sheds nothing, so that any 5xx is a fault."""
    served = Served(
        command(readers=1, max_waiting=100_000, deadline=60),
        tmp_path_factory.mktemp("patient") / "log",
    )
    served.wait_until_ready()
    yield served
    served.close()
    assert "Traceback" not in served.log.read_text()


@pytest.mark.parametrize(
    ("examples", "at_least"), [(20, 200), pytest.param(10_000, 20_000, marks=pytest.mark.slow)]
)
def test_whatever_is_sent_the_answer_is_one_that_is_documented(
    patient: Served, tmp_path: Path, examples: int, at_least: int
) -> None:
    words = (
        *("run", f"{patient.url}/openapi.json", "--exclude-checks", NOT_CHECKED),
        *("--phases", "examples,coverage,fuzzing", "--max-examples", str(examples)),
        *("--seed", "1", "--continue-on-failure", "--generation-database", "none"),
        *("--suppress-health-check", "all", "--no-color"),
    )

    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    generated = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert generated is not None, done.stdout
    assert int(generated[2]) == int(generated[1]) >= at_least


def test_the_documents_example_is_read(service: Served) -> None:
    document = service.ask("GET", "/openapi.json").json
    bodies = document["paths"]["/captcha"]["post"]["requestBody"]["content"]
    (example,) = bodies["application/json"]["schema"]["properties"]["pic"]["examples"]

    assert example == EXAMPLE
    assert service.post({"pic": example}).status == 200


def test_the_document_names_the_models_and_every_status(service: Served) -> None:
    operation = service.ask("GET", "/openapi.json").json["paths"]["/captcha"]["post"]

    models = [part for part in operation["parameters"] if part["name"] == "model"]
    assert models[0]["schema"]["enum"] == ["alnum4", "any"]
    assert set(operation["responses"]) == {
        *("200", "400", "403", "408", "413", "415", "422", "429", "503")
    }
    assert "Retry-After" in operation["responses"]["429"]["headers"]


def test_a_token_is_part_of_the_document(shared: Callable[..., Served]) -> None:
    service = shared({}, token="s3cret")

    document = service.ask("GET", "/openapi.json", headers={"Authorization": "Bearer s3cret"}).json

    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert document["security"] == [{"token": []}]
    assert document["paths"]["/live"]["get"]["security"] == []
    assert "401" in document["paths"]["/captcha"]["post"]["responses"]


def test_docs_is_a_page_that_shows_the_document(service: Served) -> None:
    answer = service.ask("GET", "/docs")

    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert b"/openapi.json" in answer.body
