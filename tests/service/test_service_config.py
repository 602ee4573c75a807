from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from scrapy_captcha.errors import ConfigError
from scrapy_captcha.service import ServiceConfig


def test_the_shipped_model_reads_on_as_many_readers_as_cores_by_default() -> None:
    config = ServiceConfig()

    assert dict(config.models) == {"alnum4": "alnum4"}
    assert config.default_model == "alnum4"
    assert config.token is None
    assert config.readers >= 1


def test_every_field_can_be_given_by_the_environment() -> None:
    environment = {
        "CAPTCHA_SERVICE_MODELS": "alnum8, mine=models/alnum4,either=auto",
        "CAPTCHA_SERVICE_TOKEN": "s3cret",
        "CAPTCHA_SERVICE_READERS": " 3 ",
        "CAPTCHA_SERVICE_MAX_WAITING": "32",
        "CAPTCHA_SERVICE_DEADLINE": "0.5",
        "CAPTCHA_SERVICE_BATCH": "8",
        "CAPTCHA_SERVICE_STUCK": "3",
        "CAPTCHA_SERVICE_MAX_BODY": "65536",
        "CAPTCHA_SERVICE_MAX_HELD": "131072",
        "CAPTCHA_SERVICE_HEAD_TIMEOUT": "1",
        "CAPTCHA_SERVICE_BODY_TIMEOUT": "2.5",
        "CAPTCHA_SERVICE_ORIGINS": "https://Shop.example/, http://localhost:3000",
        "CAPTCHA_SERVICE_DRAIN": "0",
    }

    config = ServiceConfig.from_environment(environment)

    models = {"alnum8": "alnum8", "mine": "models/alnum4", "either": "auto"}
    origins = ("https://shop.example", "http://localhost:3000")
    assert config == ServiceConfig(
        models, "s3cret", 3, 32, 0.5, 8, 3.0, 65536, 131072, 1.0, 2.5, origins, 0.0
    )
    assert len(environment) == len(dataclasses.fields(ServiceConfig))


def test_what_is_given_outranks_the_environment_and_what_is_empty_counts_as_missing() -> None:
    environment = {"CAPTCHA_SERVICE_READERS": "many", "CAPTCHA_SERVICE_TOKEN": ""}

    config = ServiceConfig.from_environment(environment, readers="2")

    assert (config.readers, config.token) == (2, None)


def test_a_misspelt_variable_is_named_and_what_kubernetes_sets_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ServiceConfig.from_environment(
        {"CAPTCHA_SERVICE_READER": "3", "CAPTCHA_SERVICE_HOST": "10.0.0.1", "READER": "2"}
    )

    assert caplog.messages == [
        "Unknown environment variable CAPTCHA_SERVICE_READER; did you mean CAPTCHA_SERVICE_READERS?"
    ]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("models", "nope", "no model 'nope': expected one of alnum4, alnum8"),
        ("models", "alnum4,alnum4", "names that differ"),
        ("models", "a b=alnum4", "NAME=FOLDER"),
        ("models", "=alnum4", "NAME=FOLDER"),
        ("readers", "0", "a whole number from 1 to 256, got '0'"),
        ("readers", "1.5", "a whole number from 1 to 256, got '1.5'"),
        ("deadline", "nan", "a number of seconds from 0.01 to 3600, got 'nan'"),
        ("deadline", "1s", "a number of seconds from 0.01 to 3600, got '1s'"),
        ("max_body", "10", "a whole number from 1024 to"),
        ("origins", "*", "origins such as https://shop.example"),
        ("origins", "https://shop.example/page", "origins such as https://shop.example"),
        ("origins", "shop.example", "origins such as https://shop.example"),
        ("origins", "http://[::1", "origins such as https://shop.example"),
    ],
)
def test_what_makes_no_sense_is_named(name: str, value: str, says: str) -> None:
    variable = f"CAPTCHA_SERVICE_{name.upper()}"

    with pytest.raises(ConfigError) as error:
        ServiceConfig.from_environment({variable: value})

    assert str(error.value).startswith(f"{variable}: expected ")
    assert says in str(error.value)


@pytest.mark.parametrize(
    "given", [{"readers": True}, {"models": {}}, {"drain": -1}, {"batch": None}]
)
def test_values_are_checked_as_well(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"^{next(iter(given))}: expected "):
        ServiceConfig(**given)


@pytest.mark.parametrize("token", ["two words", "nächste", "line\nbreak", ""])
def test_a_token_that_no_header_can_bear_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(ConfigError, match="token: expected letters") as error:
        ServiceConfig(token=token)

    assert not token or token not in str(error.value)


def test_the_token_shows_in_no_description() -> None:
    assert "s3cret" not in repr(ServiceConfig(token="s3cret"))
