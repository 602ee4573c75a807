"""A service's URL in place of a model's name, and the token that goes with it."""

from __future__ import annotations

import shutil
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from reading_service import ReadingService
from scrapy.settings import Settings as ScrapySettings

from scrapy_captcha.bundle import open_bundle, resolve
from scrapy_captcha.config import TOKEN, Settings
from scrapy_captcha.endpoint import Endpoint, is_service
from scrapy_captcha.errors import ConfigError
from scrapy_captcha.models import Readers
from scrapy_captcha.naming import site_folder
from scrapy_captcha.remote import RemoteReader

if TYPE_CHECKING:
    from pathlib import Path

SITE = "shop.example:8000"
IMAGE = open_bundle("alnum4").manifest.golden[0].image


@pytest.fixture(autouse=True)
def _no_token_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN, raising=False)


def read(rule: dict[str, Any] | None = None, **settings: Any) -> Settings:
    given = {"CAPTCHA_SITES": {SITE: rule or {}}, "CAPTCHA_DATASET": None, **settings}
    return Settings.from_settings(ScrapySettings(given))


# -- the URL


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://127.0.0.1:8090", Endpoint(False, "127.0.0.1", 8090)),
        ("http://[::1]:8090/", Endpoint(False, "::1", 8090)),
        ("HTTPS://Reader.Example", Endpoint(True, "reader.example", 443)),
        ("http://reader/", Endpoint(False, "reader", 80)),
        ("https://h/a/b-c/?model=shop_1", Endpoint(True, "h", 443, "/a/b-c", "shop_1")),
    ],
)
def test_a_url_says_where_a_service_is(url: str, endpoint: Endpoint) -> None:
    assert is_service(url)
    assert Endpoint.parse(url) == endpoint
    assert read({"model": url}, CAPTCHA_MODEL=url).model == url


def test_its_text_is_for_messages() -> None:
    assert str(Endpoint.parse("https://h/a?model=b")) == "https://h:443/a"
    assert str(Endpoint.parse("http://[::1]")) == "http://[::1]:80"


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http://:8090",
        "http://h:0",
        "http://h:port",
        "http://h:70000",
        "http://h i",
        "http://höst",
        "http://h/a b",
        "http://h//a",
        "http://h/#model",
        "http://h/?model",
        "http://h/?model=",
        "http://h/?length=4",
        "http://h/?model=a&model=b",
        "http://[::1",
    ],
)
def test_a_url_that_is_none_of_a_service_stops_the_crawl_at_its_start(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^CAPTCHA_MODEL: expected a service's URL .*, got 'htt"):
        read(CAPTCHA_MODEL=url)
    with pytest.raises(ConfigError, match=r"\['model'\]: expected a service's URL"):
        read({"model": url})


def test_a_secret_in_a_url_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError, match="CAPTCHA_SERVICE_TOKEN") as raised:
        read(CAPTCHA_MODEL="http://user:secret@host")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("name", ["auto", "alnum4", "models/http", "httpd", "/http://x", "ftp://h"])
def test_other_names_are_those_of_models(name: str) -> None:
    assert not is_service(name)
    assert read(CAPTCHA_MODEL=name).model == name


def test_a_crawl_cannot_train_what_is_not_here() -> None:
    with pytest.raises(ConfigError, match=r"^CAPTCHA_RETRAIN_AFTER: the model of a service is not"):
        read(CAPTCHA_MODEL="http://h", CAPTCHA_DATASET="captchas", CAPTCHA_RETRAIN_AFTER=25)
    rule = {"model": "http://h"}  # which is not retrained
    assert read(rule, CAPTCHA_DATASET="captchas", CAPTCHA_RETRAIN_AFTER=25).retrain_after == 25


# -- the token


def test_the_setting_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read().service_token is None
    assert read(CAPTCHA_SERVICE_TOKEN="abc").service_token == "abc"
    monkeypatch.setenv(TOKEN, "def\n")
    assert read().service_token == "def"
    assert read(CAPTCHA_SERVICE_TOKEN="").service_token == "def"
    assert read(CAPTCHA_SERVICE_TOKEN="abc").service_token == "abc"


@pytest.mark.parametrize("token", ["two words", "line\r\nX: y", "schlüssel", 7, ["abc"], b"abc"])
def test_a_token_that_no_header_can_hold_is_refused_and_not_shown(token: Any) -> None:
    with pytest.raises(ConfigError) as raised:
        read(CAPTCHA_SERVICE_TOKEN=token)
    message = "CAPTCHA_SERVICE_TOKEN: expected visible ASCII characters without spaces"
    assert str(raised.value) == message


def test_the_token_is_not_in_the_text_of_the_settings() -> None:
    assert "abcdef" not in repr(read(CAPTCHA_SERVICE_TOKEN="abcdef"))


# -- which reader a site has


def test_the_service_reads_what_has_no_model_of_its_own(tmp_path: Path) -> None:
    own = shutil.copytree(resolve("alnum4"), tmp_path / site_folder("own.example") / "model")
    with ReadingService(token="abc") as service, ReadingService() as other:
        sites: dict[str, Any] = {
            "one.example": {},
            "two.example": {"length": 4},
            "own.example": {},
            "rule.example": {"model": "alnum8"},
            "other.example": {"model": other.url},
        }
        settings = read(
            CAPTCHA_SITES=sites,
            CAPTCHA_MODEL=service.url,
            CAPTCHA_DATASET=str(tmp_path),
            CAPTCHA_SERVICE_TOKEN="abc",
        )
        with closing(Readers(settings)) as readers:
            arms = {name: readers.arm(settings.sites[name]) for name in sites}
            hashes = {name: arm.reader.read(IMAGE).model_hash for name, arm in arms.items()}
    assert arms["one.example"].reader is arms["two.example"].reader
    assert isinstance(arms["one.example"].reader, RemoteReader)
    assert isinstance(arms["other.example"].reader, RemoteReader)
    assert arms["one.example"].alphabet == open_bundle("alnum4").manifest.charset
    assert hashes["own.example"] == open_bundle(str(own)).hash
    assert hashes["rule.example"] == open_bundle("alnum8").hash
    assert len(service.readings) == 2
    assert len(other.readings) == 1


def test_where_all_sites_have_their_own_models_the_service_is_not_asked(tmp_path: Path) -> None:
    shutil.copytree(resolve("alnum4"), tmp_path / site_folder(SITE) / "model")
    with ReadingService() as service:
        settings = read(CAPTCHA_MODEL=service.url, CAPTCHA_DATASET=str(tmp_path))
        Readers(settings).arm(settings.sites[SITE])
    assert service.asked == []


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ({"length": 5}, "reads 4 characters, not 5"),
        ({"charset": "0123é"}, "it does not know 'é'"),
    ],
)
def test_what_the_service_s_model_cannot_read_is_said_at_the_start(
    rule: dict[str, Any], why: str
) -> None:
    with ReadingService() as service:
        settings = read(rule, CAPTCHA_MODEL=service.url)
        with closing(Readers(settings)) as readers, pytest.raises(ConfigError) as raised:
            readers.for_rule(settings.sites[SITE])
    assert str(raised.value).startswith(f"CAPTCHA_SITES['{SITE}']: ")
    assert why in str(raised.value)


def test_who_named_a_service_that_does_not_let_us_in_is_said() -> None:
    with ReadingService(token="abc") as service:
        settings = read(CAPTCHA_MODEL=service.url)
        with pytest.raises(ConfigError, match=r"^CAPTCHA_MODEL: http.* wants a token"):
            Readers(settings).for_rule(settings.sites[SITE])
        settings = read({"model": service.url})
        with pytest.raises(ConfigError, match=r"^CAPTCHA_SITES\[.*\]\['model'\]: http.* wants a"):
            Readers(settings).for_rule(settings.sites[SITE])
