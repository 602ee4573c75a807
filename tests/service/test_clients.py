"""What programs of any language get, from a service with a real model."""

from __future__ import annotations

import base64
import json
import shlex
import shutil
import subprocess
import urllib.request
from typing import TYPE_CHECKING

import pytest
from captcha.image import ImageCaptcha
from serving import ask

from scrapy_captcha.recognizer import Recognizer
from scrapy_captcha.remote import RemoteReader

if TYPE_CHECKING:
    from serving import Served

    from scrapy_captcha.bundle import Golden

#: As the article has it, the port and the image put in.
CURL = (
    'curl -H "Content-type: application/json" -X POST http://127.0.0.1:{port}/captcha '
    """-d '{{"pic":"{pic}"}}'"""
)
NODE = """
const [url, pic] = process.argv.slice(1);
(async () => {
  const response = await fetch(url + "/captcha", {
    method: "POST",
    headers: {"Content-Type": "application/json"},
    body: JSON.stringify({pic: "data:image/png;base64," + pic}),
  });
  console.log(response.status, (await response.json()).result);
})();
"""


@pytest.fixture(scope="session")
def pic(golden: Golden) -> str:
    return base64.b64encode(golden.image).decode()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed here")
def test_the_articles_curl_line_reads_an_image(service: Served, pic: str, golden: Golden) -> None:
    line = CURL.format(port=service.port, pic=pic)

    done = subprocess.run(shlex.split(line), capture_output=True, text=True, timeout=60, check=True)

    answer = json.loads(done.stdout)
    assert (answer["status"], answer["result"]) == ("OK", golden.text)


def test_pythons_own_client_reads_an_image(service: Served, pic: str, golden: Golden) -> None:
    request = urllib.request.Request(
        f"{service.url}/captcha",
        json.dumps({"pic": pic}).encode(),
        {"Content-Type": "application/json"},
    )

    with urllib.request.urlopen(request, timeout=60) as response:
        answer = json.load(response)

    assert answer["result"] == golden.text


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed here")
def test_nodes_own_client_reads_an_image(service: Served, pic: str, golden: Golden) -> None:
    done = subprocess.run(
        ["node", "-e", NODE, service.url, pic],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert done.stdout.split() == ["200", golden.text]


def test_a_crawls_remote_reader_reads_an_image(service: Served, golden: Golden) -> None:
    local = Recognizer.load("alnum8")
    reader = RemoteReader.connect(f"{service.url}?model=any")
    try:
        read = reader.read(golden.image, "abcdefgh", 6)
    finally:
        reader.close()

    expected = local.read(golden.image, "abcdefgh", 6)
    assert (read.text, read.model_hash) == (expected.text, local.model_hash)
    assert read.confidence == pytest.approx(expected.confidence, abs=1e-3)
    assert (reader.manifest.length, reader.manifest.charset) == (8, local.manifest.charset)


def test_models_says_what_each_model_can_read(service: Served) -> None:
    answer = service.ask("GET", "/models").json

    assert answer["status"] == "OK"
    assert [model["name"] for model in answer["models"]] == ["alnum4", "any"]
    local = Recognizer.load("alnum4")
    assert answer["models"][0] == {
        "name": "alnum4",
        "charset": local.manifest.charset,
        "length": 4,
        "min_length": 4,
        "case": "lower",
        "model_hash": local.model_hash,
    }


def test_the_answer_is_what_the_recognizer_says(service: Served, golden: Golden) -> None:
    recognizer = Recognizer.load("alnum4")
    read = recognizer.read(golden.image)

    answer = service.ask("POST", "/captcha", golden.image, {"Content-Type": "image/png"})

    assert answer.status == 200
    assert answer.json == {
        "status": "OK",
        "result": read.text,
        "confidence": pytest.approx(read.confidence, abs=1e-3),
        "characters": [[c, pytest.approx(chance, abs=1e-3)] for c, chance in read.characters],
        "model": "alnum4",
        "model_hash": recognizer.model_hash,
    }


def test_plain_text_may_hold_what_json_does(service: Served, pic: str, golden: Golden) -> None:
    for text in (pic, f"data:image/png;base64,{pic}\n", base64.encodebytes(golden.image).decode()):
        answer = service.ask("POST", "/captcha", text.encode(), {"Content-Type": "text/plain"})
        assert answer.json["result"] == golden.text


def test_captchas_that_a_public_package_draws_are_read(service: Served) -> None:
    image = ImageCaptcha().generate("1a8m").read()

    answer = service.ask("POST", "/captcha?length=4", image, {"Content-Type": "image/png"})

    assert (answer.status, len(answer.json["result"])) == (200, 4)


def test_charset_and_length_bound_what_is_read(service: Served, pic: str, golden: Golden) -> None:
    of_body = service.post({"pic": pic, "charset": "xy", "length": 6, "model": "any"})
    of_query = service.ask(
        "POST",
        "/captcha?charset=xy&length=6&model=any",
        golden.image,
        {"Content-Type": "application/octet-stream"},
    )

    assert of_body.json == of_query.json
    assert of_body.json["model"] == "any"
    assert len(of_body.json["result"]) == 6
    assert set(of_body.json["result"]) <= {"x", "y"}


def test_a_batch_answers_each_image_in_its_place(service: Served, pic: str, golden: Golden) -> None:
    not_an_image = base64.b64encode(b"hello").decode()

    answer = service.post({"pics": [pic, not_an_image, "***", pic]}, "/captcha/batch")

    assert (answer.status, answer.json["status"]) == (200, "OK")
    first, second, third, fourth = answer.json["results"]
    assert first["result"] == golden.text
    assert first == fourth
    assert (second["status"], third["status"]) == ("NO", "NO")
    assert (second["code"], third["code"]) == (422, 400)
    assert "PNG, JPEG, GIF, WEBP, BMP" in second["msg"]
    assert "expected base64" in third["msg"]


def test_many_requests_pass_through_one_connection(
    service: Served, pic: str, golden: Golden
) -> None:
    connection = service.connection()
    body = json.dumps({"pic": pic}).encode()
    headers = {"Content-Type": "application/json"}

    for _ in range(20):
        assert ask(connection, "POST", "/captcha", body, headers).json["result"] == golden.text
    assert ask(connection, "POST", "/captcha", b"", headers).status == 400
    assert ask(connection, "GET", "/live").status == 200
    connection.close()


def test_a_body_in_chunks_is_read(service: Served, golden: Golden) -> None:
    connection = service.connection()

    connection.request(
        "POST",
        "/captcha",
        iter([golden.image[:100], golden.image[100:]]),
        {"Content-Type": "image/png"},
        encode_chunked=True,
    )

    assert json.load(connection.getresponse())["result"] == golden.text
    connection.close()
