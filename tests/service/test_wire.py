from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scrapy_captcha.image import MAX_BYTES
from scrapy_captcha.service.wire import Constraints, Refused, parse_batch, parse_single

IMAGE = bytes(range(256))
PIC = base64.b64encode(IMAGE).decode()
JSON = "application/json"
MODELS = ("mine", "other")


def single(fields: object, query: str = "") -> tuple[bytes, Constraints]:
    return parse_single(JSON, json.dumps(fields).encode(), query.encode(), MODELS)


@pytest.mark.parametrize(
    "pic",
    [
        PIC,
        f"data:image/png;base64,{PIC}",
        f"DATA:image/png;charset=utf-8;BASE64,{PIC}",
        f"data:;base64,{PIC}",
        base64.encodebytes(IMAGE).decode(),
        base64.encodebytes(IMAGE).decode().replace("\n", "\r\n\t "),
    ],
)
def test_base64_and_data_uris_are_decoded(pic: str) -> None:
    assert single({"pic": pic})[0] == IMAGE
    assert parse_single("text/plain; charset=utf-8", pic.encode(), b"", MODELS)[0] == IMAGE


@given(st.binary(min_size=1, max_size=300))
def test_whatever_is_encoded_comes_back(image: bytes) -> None:
    assert single({"pic": base64.b64encode(image).decode()})[0] == image


@pytest.mark.parametrize(
    "content_type", ["image/png", "IMAGE/JPEG; x=y", "application/octet-stream"]
)
def test_the_bytes_of_an_image_are_taken_as_they_are(content_type: str) -> None:
    image, known = parse_single(
        content_type, IMAGE, b"charset=ab%2Bc&length=4&model=mine&x=y", MODELS
    )

    assert (image, known) == (IMAGE, Constraints("ab+c", 4, "mine"))


@pytest.mark.parametrize(
    ("pic", "says"),
    [
        ("", "got nothing"),
        ("data:image/png;base64,", "got nothing"),
        (None, "got nothing"),
        (7, "got a number"),
        (True, "got true or false"),
        ([PIC], "got a list"),
        ({}, "got an object"),
        (PIC[:-1], "expected base64: "),
        (PIC + "A", "expected base64: "),
        (PIC + PIC, "expected base64: "),
        ("====", "expected base64: "),
        ("ab*d", "expected base64: "),
        ("ab\x00d", "expected base64: "),
        ("ab\u00a0cd===", "not ASCII"),
        ("äöüß", "not ASCII"),
        ("-_-_", "use + and / in place of - and _"),
        ("https://shop.example/captcha.png", "fetches no URL"),
        ("file:///etc/passwd", "fetches no URL"),
        ("data:image/png,%89PNG", "expected a data URI data:image/png;base64,"),
        ("data:https://shop.example/captcha.png", "expected a data URI"),
    ],
)
def test_what_is_not_base64_of_an_image_is_refused(pic: object, says: str) -> None:
    with pytest.raises(Refused) as refused:
        single({"pic": pic})

    assert refused.value.status == 400
    assert says in refused.value.message


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "got an empty body"),
        (b"{", "what is not JSON"),
        (b'{"pic": "\xff"}', "what is not JSON"),
        (b"[" * 100_000, "what is not JSON"),
        (b"7" * 5000, "what is not JSON"),
        (b"[1]", "got a list"),
        (b'"a"', "got a text"),
        (b"null", "got nothing"),
        (b"{}", 'as "pic"'),
        (b'{"PIC": "AAAA"}', 'as "pic"'),
    ],
)
def test_what_is_no_json_object_with_an_image_is_refused(body: bytes, says: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_single(JSON, body, b"", MODELS)

    assert refused.value.status == 400
    assert says in refused.value.message


def test_text_that_is_not_ascii_is_refused_with_the_type_that_takes_bytes() -> None:
    with pytest.raises(Refused, match="application/octet-stream") as refused:
        parse_single("text/plain", b"\x89PNG", b"", MODELS)

    assert refused.value.status == 400


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "text/html",
        "images/png",
        "*/*",
    ],
)
def test_other_content_types_are_refused_with_those_that_are_taken(content_type: str) -> None:
    with pytest.raises(Refused, match="application/json, text/plain, image/") as refused:
        parse_single(content_type, IMAGE, b"", MODELS)

    assert refused.value.status == 415
    assert "image/*" in refused.value.headers["accept"]


def test_an_image_that_no_model_would_decode_for_its_size_is_refused() -> None:
    with pytest.raises(Refused, match=f"at most {MAX_BYTES} bytes") as refused:
        parse_single("image/png", bytes(MAX_BYTES + 1), b"", MODELS)

    assert refused.value.status == 413
    assert parse_single("image/png", bytes(MAX_BYTES), b"", MODELS)[0] == bytes(MAX_BYTES)


def test_what_a_json_body_says_outranks_the_query() -> None:
    fields = {"pic": PIC, "charset": "abc", "length": 5, "model": None}

    known = single(fields, "charset=xyz&length=4&model=mine")[1]

    assert known == Constraints("abc", 5, "mine")
    assert single({"pic": PIC})[1] == Constraints(None, None, None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("charset", ""),
        ("charset", 5),
        ("charset", ["a"]),
        ("charset", "a" * 5000),
        ("charset", "\ud800"),
        ("length", 0),
        ("length", -1),
        ("length", 33),
        ("length", 4.0),
        ("length", True),
        ("length", "4"),
        ("length", 10**4000),
        ("model", ""),
        ("model", 4),
        ("model", "m"),
        ("model", "m" * 1000),
    ],
)
def test_senseless_constraints_are_refused(name: str, value: object) -> None:
    with pytest.raises(Refused, match=f'as "{name}"') as refused:
        single({"pic": PIC, name: value})

    assert refused.value.status == 422
    assert len(refused.value.message) < 200


@pytest.mark.parametrize(
    "query",
    [
        "length=",
        "length=four",
        "length=4.0",
        "length=%2B4",
        "length=99999",
        "charset=",
        "model=",
        "model=m",
    ],
)
def test_senseless_constraints_in_the_query_are_refused_whatever_the_body_says(query: str) -> None:
    with pytest.raises(Refused) as refused:
        single({"pic": PIC, "length": 4, "charset": "ab", "model": "mine"}, query)

    assert refused.value.status == 422


def test_a_query_without_end_is_refused() -> None:
    with pytest.raises(Refused) as refused:
        single({"pic": PIC}, "&".join(["a=b"] * 100))

    assert refused.value.status == 400


def test_a_characters_own_percent_encoding_is_read() -> None:
    assert single({"pic": PIC}, "charset=" + quote("aé中"))[1].charset == "aé中"


def test_a_batch_tells_of_each_image_that_is_none() -> None:
    body = json.dumps({"pics": [PIC, "***", "", f"data:;base64,{PIC}"], "length": 4}).encode()

    pics, known = parse_batch(JSON, body, b"charset=ab", MODELS)

    assert (pics[0], pics[3], known) == (IMAGE, IMAGE, Constraints("ab", 4, None))
    assert [type(pic) for pic in pics[1:3]] == [Refused, Refused]


@pytest.mark.parametrize("pics", [None, [], "AAAA", {"a": "AAAA"}, [PIC, None], [PIC, {}], [7]])
def test_a_batch_without_images_is_refused(pics: object) -> None:
    with pytest.raises(Refused, match='"pics"') as refused:
        parse_batch(JSON, json.dumps({"pics": pics}).encode(), b"", MODELS)

    assert refused.value.status == 400


def test_a_batch_holds_64_images() -> None:
    assert len(parse_batch(JSON, json.dumps({"pics": [PIC] * 64}).encode(), b"", MODELS)[0]) == 64
    with pytest.raises(Refused, match="at most 64 images in a batch, got 65") as refused:
        parse_batch(JSON, json.dumps({"pics": [PIC] * 65}).encode(), b"", MODELS)
    assert refused.value.status == 422


def test_a_batch_is_json() -> None:
    with pytest.raises(Refused, match="application/json; got 'text/plain'") as refused:
        parse_batch("text/plain", PIC.encode(), b"", MODELS)
    assert refused.value.status == 415
