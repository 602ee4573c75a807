"""The reading client and the service itself, of which the other tests have a stand-in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from sites import Gate

from scrapy_captcha.attempts import read_attempts
from scrapy_captcha.errors import ImageError, ServiceError
from scrapy_captcha.naming import site_folder
from scrapy_captcha.recognizer import Recognizer
from scrapy_captcha.remote import RemoteReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from crawling import Crawl

TOKEN = "not-for-the-log"
SERVICE = Path(__file__).parent.parent / "service" / "service_process.py"
MODELS = {"four": "alnum4", "any": "alnum8", "auto": "auto"}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a service that is ready."""
    log = tmp_path_factory.mktemp("service") / "log"
    config = {"models": MODELS, "token": TOKEN, "readers": 1, "deadline": 30}
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("CAPTCHA_SERVICE_")
    }
    with (
        log.open("wb") as stderr,
        subprocess.Popen(
            [sys.executable, SERVICE, json.dumps({"config": config, "pool": None})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**environment, "PYTHONPATH": str(SERVICE.parents[2])},
        ) as process,
    ):
        assert process.stdout is not None
        url = f"http://127.0.0.1:{process.stdout.readline().strip()}"
        try:
            while not ready(url):
                assert process.poll() is None, log.read_text()
                sleep(0.1)
            yield url
        finally:
            process.kill()
    assert "Traceback" not in log.read_text()
    assert TOKEN not in log.read_text()


def ready(url: str) -> bool:
    try:
        urlopen(f"{url}/ready", timeout=60).close()
    except HTTPError as e:
        e.close()
        return False
    return True


@pytest.mark.parametrize("name", MODELS)
def test_each_of_its_models_reads_as_it_would_here(url: str, name: str) -> None:
    here = Recognizer.load(MODELS[name])
    with closing(RemoteReader.connect(f"{url}?model={name}", TOKEN)) as reader:
        assert reader.manifest.name == name
        for key in ("charset", "length", "min_length", "case"):
            assert getattr(reader.manifest, key) == getattr(here.manifest, key)
        for golden in here.manifest.golden:
            there = reader.read(golden.image, "abcdefgh12345678", 4)
            expected = here.read(golden.image, "abcdefgh12345678", 4)
            assert (there.text, there.model_hash) == (expected.text, expected.model_hash)
            assert there.confidence == pytest.approx(expected.confidence, abs=1e-5)
            chances = [chance for _, chance in there.characters]
            assert chances == pytest.approx([c for _, c in expected.characters], abs=1e-5)


def test_what_it_refuses_is_understood(url: str) -> None:
    with pytest.raises(ServiceError, match="CAPTCHA_SERVICE_TOKEN is wrong"):
        RemoteReader.connect(url, "another")
    with pytest.raises(ServiceError, match="CAPTCHA_SERVICE_TOKEN is missing"):
        RemoteReader.connect(url)
    with pytest.raises(ServiceError, match="has no model 'shop', but 'four', 'any', 'auto'"):
        RemoteReader.connect(f"{url}?model=shop", TOKEN)
    with pytest.raises(ServiceError, match="answers 404"):
        RemoteReader.connect(f"{url}/elsewhere", TOKEN)
    with closing(RemoteReader.connect(url, TOKEN)) as reader:
        image = Recognizer.load("alnum4").manifest.golden[0].image
        for junk in (b"", b"GIF89a", image[:50], image + bytes(2 << 20)):
            with pytest.raises(ImageError):
                reader.read(junk)
        with pytest.raises(ServiceError, match=r"answers 422 .*reads 4 characters, not 7"):
            reader.read(image, length=7)
        with pytest.raises(ServiceError, match=r"answers 422 .*does not know"):
            reader.read(image, charset="äöü")
        assert reader.read(image).text == Recognizer.load("alnum4").read(image).text


def test_a_crawl_reads_through_it(crawl: Callable[..., Crawl], url: str, tmp_path: Path) -> None:
    with Gate(accept=2, every=1) as site, Gate(every=1) as other:
        other.cookie = "other"
        rules = {
            site.netloc: {"length": 4, "min_confidence": 0},
            other.netloc: {"model": f"{url}?model=any", "length": 6, "min_confidence": 0},
        }
        result = crawl(
            site,
            [*site.pages(10), *other.pages(10)],
            CAPTCHA_SITES=rules,
            CAPTCHA_MODEL=url,
            CAPTCHA_SERVICE_TOKEN=TOKEN,
        )
    assert len(result.items) == 20
    for gate, name, length in ((site, "alnum4", 4), (other, "alnum8", 6)):
        reader = Recognizer.load(name)
        for image, answer in gate.accepted + gate.rejected:
            assert answer == reader.read(image, length=length).text
        lines = list(read_attempts(tmp_path / "captchas" / site_folder(gate.netloc)))
        assert {line.model for line in lines} == {reader.model_hash}
        assert len(lines) == len(gate.accepted + gate.rejected) >= 10
