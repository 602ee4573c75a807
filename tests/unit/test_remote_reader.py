"""Images read through a service: what it is asked, over which connections, and the token."""

from __future__ import annotations

import ssl
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from reading_service import Asked, ReadingService, Said, no, raw_service, recognizer

from scrapy_captcha import exchange, remote
from scrapy_captcha.bundle import open_bundle
from scrapy_captcha.errors import ConfigError, ImageError, ServiceError
from scrapy_captcha.remote import RemoteReader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOOPBACK = IPv4Address("127.0.0.1")
TOKEN = "not-for-the-log"
GOLDEN = open_bundle("alnum4").manifest.golden
IMAGE = GOLDEN[0].image


@pytest.fixture
def service() -> Iterator[ReadingService]:
    with ReadingService() as service:
        yield service


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """For how long it was waited; nobody waits really."""
    seconds: list[float] = []
    monkeypatch.setattr(remote, "sleep", lambda pause, _: seconds.append(pause))
    return seconds


def connect(url: str, token: str | None = None) -> closing[RemoteReader]:
    return closing(RemoteReader.connect(url, token))


def test_a_service_reads_as_its_model_does(service: ReadingService) -> None:
    with connect(service.url) as reader:
        for golden in GOLDEN:
            assert reader.read(golden.image) == recognizer("alnum4").read(golden.image)
    assert [asked.body for asked in service.readings] == [golden.image for golden in GOLDEN]


def test_charset_length_and_model_reach_the_service_whatever_the_characters() -> None:
    with (
        ReadingService(models=("alnum4", "alnum8"), prefix="/read") as service,
        connect(f"{service.url}/?model=alnum8") as reader,
    ):
        read = reader.read(IMAGE, "01", 5)
        service.script.append(no(500, "an error"))
        with pytest.raises(ServiceError, match=r"answers 500 \('an error'\)"):
            reader.read(IMAGE, "é&=+ 1", 12)
    assert len(read.text) == 5
    assert set(read.text) <= {"0", "1"}
    assert (reader.manifest.name, reader.manifest.length) == ("alnum8", 8)
    first, second = service.readings
    assert first.query == {"charset": "01", "length": "5", "model": "alnum8"}
    assert second.query == {"charset": "é&=+ 1", "length": "12", "model": "alnum8"}


def test_a_model_that_the_service_does_not_have_is_named(service: ReadingService) -> None:
    with pytest.raises(ServiceError, match="has no model 'alnum9', but 'alnum4'"):
        RemoteReader.connect(f"{service.url}?model=alnum9")


def test_each_reading_bears_the_hash_of_the_model_that_read_it(service: ReadingService) -> None:
    with connect(service.url) as reader:
        before = reader.read(IMAGE)
        service.hash_suffix = "-promoted"
        after = reader.read(IMAGE)
    assert before.model_hash == recognizer("alnum4").model_hash
    assert after.model_hash == reader.model_hash == f"{before.model_hash}-promoted"


def test_bytes_that_are_no_image_are_the_image_s_fault(service: ReadingService) -> None:
    with connect(service.url) as reader:
        for junk in (b"", b"GIF89a", IMAGE[:50]):
            with pytest.raises(ImageError):
                reader.read(junk)


def test_an_image_that_the_service_does_not_take_is_the_service_s(service: ReadingService) -> None:
    service.script.append(no(422, "the model reads 4 characters, not 9"))
    with (
        connect(service.url) as reader,
        pytest.raises(ServiceError, match=r"answers 422 .*4 characters, not 9"),
    ):
        reader.read(IMAGE, length=9)


# -- connections


def test_readings_share_a_connection(service: ReadingService) -> None:
    with connect(service.url) as reader:
        for _ in range(5):
            reader.read(IMAGE)
    assert len({asked.connection for asked in service.asked}) == 1


def test_a_connection_that_was_closed_meanwhile_is_replaced(
    service: ReadingService, waits: list[float]
) -> None:
    with connect(service.url) as reader:
        for _ in range(3):
            answer = service.read(Asked("POST", "/captcha", {}, {}, IMAGE, 0))
            service.script.append(Said(answer.content, hangs_up=True))
            reader.read(IMAGE)
        reader.read(IMAGE)
    assert len(service.readings) == 4
    assert len({asked.connection for asked in service.asked}) == 4
    assert waits == []


def test_a_connection_that_was_idle_for_long_is_not_trusted(
    service: ReadingService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "IDLE_SECONDS", 0.0)
    with connect(service.url) as reader:
        reader.read(IMAGE)
        reader.read(IMAGE)
    assert len({asked.connection for asked in service.asked}) == 3


def test_many_threads_read_at_once(service: ReadingService) -> None:
    images = [golden.image for golden in GOLDEN] * 20
    with connect(service.url) as reader, ThreadPoolExecutor(16) as threads:
        texts = [read.text for read in threads.map(reader.read, images)]
    assert texts == [golden.text for golden in GOLDEN] * 20
    assert len({asked.connection for asked in service.asked}) <= 16


def test_no_proxy_of_the_environment_is_used(
    service: ReadingService, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ReadingService() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        with connect(service.url) as reader:
            assert reader.read(IMAGE).text == GOLDEN[0].text
    assert proxy.asked == []


def test_no_redirect_is_followed(service: ReadingService) -> None:
    with ReadingService() as other, connect(service.url, TOKEN) as reader:
        for status in (301, 302, 307, 308):
            there = {"Location": f"{other.url}/captcha"}
            service.script.append(Said(b"", status, there))
            with pytest.raises(ServiceError, match="redirects to another address"):
                reader.read(IMAGE)
    assert other.asked == []


def test_over_https_the_service_has_to_prove_who_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with ReadingService(token=TOKEN) as service:
        service.socket = context.wrap_socket(service.socket, server_side=True)
        url = service.url.replace("http:", "https:")
        with pytest.raises(ServiceError, match="certificate verify failed"):
            RemoteReader.connect(url, TOKEN)
        assert service.asked == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with connect(url, TOKEN) as reader:
            assert reader.read(IMAGE).text == GOLDEN[0].text
            assert reader.read(IMAGE).text == GOLDEN[0].text
        assert len({asked.connection for asked in service.asked}) == 1


def self_signed(folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a captcha service")])
    today = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today - timedelta(1))
        .not_valid_after(today + timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(LOOPBACK)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "certificate.pem"
    pem = serialization.Encoding.PEM
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    file.write_bytes(key.private_bytes(pem, *private) + built.public_bytes(pem))
    return file


# -- the token


def test_the_token_is_shown_to_the_service() -> None:
    with ReadingService(token=TOKEN) as service, connect(service.url, TOKEN) as reader:
        assert reader.read(IMAGE).text == GOLDEN[0].text


@pytest.mark.parametrize(("token", "why"), [(None, "is missing"), ("another", "is wrong")])
def test_a_token_that_is_missing_or_wrong_is_said_to_be(token: str | None, why: str) -> None:
    with (
        ReadingService(token=TOKEN) as service,
        pytest.raises(ServiceError, match=f"wants a token: CAPTCHA_SERVICE_TOKEN {why}"),
    ):
        RemoteReader.connect(service.url, token)


def test_a_service_that_repeats_the_token_does_not_get_it_into_the_error() -> None:
    said = [no(401, f"what is {TOKEN}?"), no(500, TOKEN * 20), no(429, TOKEN, Retry_After="99")]
    errors = []
    with ReadingService(token=TOKEN) as service, connect(service.url, TOKEN) as reader:
        for answer in said:
            service.script.append(answer)
            with pytest.raises(ServiceError) as raised:
                reader.read(IMAGE)
            errors.append("".join(traceback.format_exception(raised.value)))
    with (
        raw_service(lambda connection: connection.sendall(f"{TOKEN}\r\n".encode())) as url,
        connect(url, TOKEN) as reader,
        pytest.raises(ServiceError) as raised,
    ):
        reader.read(IMAGE)
    errors.append("".join(traceback.format_exception(raised.value)))
    assert [TOKEN in error for error in errors] == [False] * 4
    assert "what is ***?" in errors[0]


@pytest.mark.parametrize("url", ["http://", "http://user:secret@host", "http://host/?length=4"])
def test_a_url_that_is_none_of_a_service_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="expected a service's URL") as raised:
        RemoteReader.connect(url)
    assert "secret" not in str(raised.value)
