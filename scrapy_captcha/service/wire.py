"""What a request asks: content type, body and query -> images and what is known of their text."""

from __future__ import annotations

import binascii
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from scrapy_captcha.bundle import MAX_CHARSET, MAX_HEADS
from scrapy_captcha.image import MAX_BYTES
from scrapy_captcha.service.config import MAX_PICS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

JSON, TEXT, BYTES = "application/json", "text/plain", "application/octet-stream"
#: What ``POST /captcha`` takes.
ACCEPTED = f"{JSON}, {TEXT}, image/*, {BYTES}"
_WHITESPACE = re.compile(r"[ \t\r\n]+")
_URL = re.compile(r"\s*(https?|ftp|file)://", re.IGNORECASE)
_MAX_QUERY_FIELDS = 32


class Refused(Exception):  # noqa: N818 - an answer
    """A request that is answered with an error.

    :param status: the HTTP status
    :param message: what was expected and what came, for the client
    :param headers: that the status calls for
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or {}


@dataclass(frozen=True, slots=True)
class Constraints:
    """What is known of a text before its image is read; ``None`` where nothing is.

    :param model: the name of the model that reads it
    """

    charset: str | None = None
    length: int | None = None
    model: str | None = None


def parse_single(
    content_type: str, body: bytes, query: bytes, models: Collection[str]
) -> tuple[bytes, Constraints]:
    """Read a request for one image.

    :param content_type: the header, with its parameters
    :param query: the URL's query string
    :param models: the names that a request may give
    :return: the image and what is known of its text; what a JSON body says outranks the query
    :raises Refused: saying what was expected and what came
    """
    kind = _media_type(content_type)
    if kind == JSON:
        fields = _json_object(body, '{"pic": "<base64>"}')
        if "pic" not in fields:
            raise Refused(400, 'expected the image in base64 as "pic", got an object without it')
        return decode_pic(fields["pic"]), _constraints(fields, query, models)
    if kind == TEXT:
        try:
            text = body.decode("ascii")
        except UnicodeDecodeError:
            raise Refused(
                400, f"expected base64 as {TEXT}; for the image's own bytes the type is {BYTES}"
            ) from None
        return decode_pic(text), _constraints({}, query, models)
    if kind.startswith("image/") or kind == BYTES:
        return _checked_image(body), _constraints({}, query, models)
    raise _unsupported(content_type, ACCEPTED)


def parse_batch(
    content_type: str, body: bytes, query: bytes, models: Collection[str]
) -> tuple[list[bytes | Refused], Constraints]:
    """Read a request for several images.

    :return: each image, or why it is none, and what is known of all their texts
    :raises Refused: saying what was expected and what came
    """
    if _media_type(content_type) != JSON:
        raise _unsupported(content_type, JSON)
    fields = _json_object(body, '{"pics": ["<base64>", ...]}')
    pics = fields.get("pics")
    if not isinstance(pics, list) or not pics:
        raise Refused(400, f'expected a list of images in base64 as "pics", got {_named(pics)}')
    others = [pic for pic in pics if not isinstance(pic, str)]
    if others:
        raise Refused(400, f'expected base64 alone in "pics", got {_named(others[0])} among it')
    if len(pics) > MAX_PICS:
        raise Refused(422, f"expected at most {MAX_PICS} images in a batch, got {len(pics)}")
    return [_pic_or_refusal(pic) for pic in pics], _constraints(fields, query, models)


def decode_pic(pic: object) -> bytes:
    """Base64, or a data URI with it -> bytes.

    The alphabet is the standard one, padded; spaces and line breaks as in MIME are allowed.

    :raises Refused: when it is empty or anything else
    """
    if not isinstance(pic, str):
        raise Refused(400, f"expected an image in base64, got {_named(pic)}")
    text = pic
    if text[:5].lower() == "data:":
        head, _, text = text.partition(",")
        if not head.lower().endswith(";base64"):
            raise Refused(
                400, f"expected a data URI data:image/png;base64,..., got one of {head[:60]!r}"
            )
    try:
        return _checked_image(binascii.a2b_base64(text, strict_mode=True))
    except ValueError:
        pass  # it has line breaks, or is wrong
    try:
        return _checked_image(binascii.a2b_base64(_WHITESPACE.sub("", text), strict_mode=True))
    except ValueError as e:
        raise Refused(400, f"expected base64: {_wrong_with(text, e)}") from None


def _wrong_with(text: str, error: ValueError) -> str:
    if _URL.match(text):
        return "send the image itself; the service fetches no URL"
    if not text.isascii():
        return "got characters that are not ASCII"
    if re.search("[-_]", text) and not re.search("[+/]", text):
        return "use + and / in place of - and _ (the standard alphabet)"
    return str(error)


def _pic_or_refusal(pic: object) -> bytes | Refused:
    try:
        return decode_pic(pic)
    except Refused as refusal:
        return refusal


def _checked_image(image: bytes) -> bytes:
    if not image:
        raise Refused(400, "expected an image, got nothing")
    if len(image) > MAX_BYTES:
        raise Refused(413, f"expected an image of at most {MAX_BYTES} bytes, got {len(image)}")
    return image


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _unsupported(content_type: str, accepted: str) -> Refused:
    got = f"got {content_type[:100]!r}" if content_type else "got none"
    return Refused(415, f"expected a Content-Type of {accepted}; {got}", {"accept": accepted})


def _json_object(body: bytes, expected: str) -> dict[str, Any]:
    if not body:
        raise Refused(400, f"expected {expected}, got an empty body")
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as e:
        raise Refused(400, f"expected {expected}, got what is not JSON: {e}") from None
    if not isinstance(fields, dict):
        raise Refused(400, f"expected {expected}, got {_named(fields)}")
    return fields


def _constraints(fields: Mapping[str, Any], query: bytes, models: Collection[str]) -> Constraints:
    of_body = _checked_constraints(fields, models)
    if not query:
        return of_body
    of_query = _checked_constraints(_from_query(query), models)
    return Constraints(
        of_body.charset or of_query.charset,
        of_body.length or of_query.length,
        of_body.model or of_query.model,
    )


def _checked_constraints(given: Mapping[str, Any], models: Collection[str]) -> Constraints:
    charset, length, model = given.get("charset"), given.get("length"), given.get("model")
    if charset is not None and not _is_charset(charset):
        raise Refused(422, f'expected 1 to {MAX_CHARSET} characters as "charset"')
    if length is not None and (type(length) is not int or not 1 <= length <= MAX_HEADS):
        raise Refused(
            422, f'expected a whole number from 1 to {MAX_HEADS} as "length", got {_shown(length)}'
        )
    if model is not None and (not isinstance(model, str) or model not in models):
        raise Refused(422, f'expected one of {", ".join(models)} as "model", got {_shown(model)}')
    return Constraints(charset, length, model)


def _from_query(query: bytes) -> dict[str, Any]:
    try:
        given: dict[str, Any] = dict(
            parse_qsl(
                query.decode("ascii"), keep_blank_values=True, max_num_fields=_MAX_QUERY_FIELDS
            )
        )
    except ValueError:
        raise Refused(
            400, "expected charset, length and model in the query, percent-encoded"
        ) from None
    if re.fullmatch(r"[0-9]{1,4}", given.get("length", "")):
        given["length"] = int(given["length"])
    return given


def _is_charset(value: object) -> bool:
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_CHARSET:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can hold
        return False
    return True


def _shown(value: object) -> str:
    return repr(value)[:60] if isinstance(value, str | int | float) else _named(value)


def _named(value: object) -> str:
    """A value's kind in JSON's words."""
    if value is None:
        return "nothing"
    if isinstance(value, list):
        return "an empty list" if not value else "a list"
    kinds = {str: "a text" if value else "an empty text", bool: "true or false", dict: "an object"}
    return kinds.get(type(value), "a number")
