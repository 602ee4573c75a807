"""The HTTP interface as OpenAPI describes it; what requests and answers hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, Field, WithJsonSchema

from scrapy_captcha.bundle import MAX_CHARSET, MAX_HEADS
from scrapy_captcha.service.config import MAX_PICS
from scrapy_captcha.service.guard import OPEN
from scrapy_captcha.service.wire import BYTES, JSON, TEXT

if TYPE_CHECKING:
    from fastapi import FastAPI

    from scrapy_captcha.service.config import ServiceConfig

#: Of the interface, not of the package: it changes when a client would have to.
VERSION = "1"
SUMMARY = "Reads text-image captchas with a local model."
#: The service takes image/*; tools that generate requests do better with names.
IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp")
#: A PNG of one white pixel; what is read in it means nothing.
EXAMPLE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mP4DwABAQEA"
    "HLCMmQAAAABJRU5ErkJggg=="
)

Chance = Annotated[float, Field(ge=0, le=1)]
#: A character and its probability; tools know plain lists better than those of fixed kinds.
Character = Annotated[
    tuple[str, Chance],
    WithJsonSchema(
        {
            "type": "array",
            "minItems": 2,
            "maxItems": 2,
            "items": {
                "anyOf": [{"type": "string"}, {"type": "number", "minimum": 0, "maximum": 1}]
            },
        }
    ),
]


class ReadingBody(BaseModel):
    """An image that was read."""

    status: Literal["OK"]
    result: str = Field(description="The text.", examples=["1a8m"])
    confidence: Chance = Field(description="The calibrated probability that all of it is right.")
    characters: list[Character] = Field(description="Each character with its own probability.")
    model: str = Field(description="The name of the model that read it.")
    model_hash: str = Field(description="Changes when another version of the model reads.")


class RefusalBody(BaseModel):
    """Why there is no reading: what was expected and what came."""

    status: Literal["NO"]
    msg: str


class UnreadBody(RefusalBody):
    """Why one image of a batch was not read."""

    code: int = Field(
        description="The status that the image alone would have had; 429 and 503 pass.",
        ge=400,
        le=599,
        examples=[422],
    )


class BatchBody(BaseModel):
    """What came of each image, in order."""

    status: Literal["OK"]
    results: list[ReadingBody | UnreadBody]


class ModelBody(BaseModel):
    """What a model can read."""

    name: str
    charset: str = Field(description="The characters that it knows.")
    length: int = Field(description="Most characters of a text.", ge=1)
    min_length: int = Field(description="Fewest characters of a text.", ge=1)
    case: Literal["lower", "as-is"] = Field(description="lower: a charset is folded to it first.")
    model_hash: str


class ModelsBody(BaseModel):
    """The models, the default one first."""

    status: Literal["OK"]
    models: list[ModelBody]


class FineBody(BaseModel):
    """All is well."""

    status: Literal["OK"]


_ERRORS = {
    400: "The body is empty, not JSON, or not base64 of the standard alphabet.",
    401: "The token is missing or wrong.",
    403: "Without a token the service serves its own machine alone, and no foreign web page.",
    408: "The body came too slowly.",
    413: "The body or the image is too large.",
    415: "The content type is none of those that the service takes.",
    422: "Not an image, or the model cannot read what was asked; the model may be unknown.",
    429: "More images wait than can be read in time.",
    503: "The service is starting or stopping, or the image could not be read in time.",
}
_HEADERS = {
    401: ("WWW-Authenticate", "string", "Bearer"),
    415: ("Accept", "string", "The content types that the service takes."),
    429: ("Retry-After", "integer", "Seconds after which to try again."),
    503: ("Retry-After", "integer", "Seconds after which to try again."),
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the errors that a route answers with."""
    described: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        described[status] = {"model": RefusalBody, "description": _ERRORS[status]}
        if status in _HEADERS:
            name, kind, description = _HEADERS[status]
            header = {"description": description, "schema": {"type": kind}}
            described[status]["headers"] = {name: header}
    return described


def reading_request(config: ServiceConfig) -> dict[str, Any]:
    """Describe the body and the query of ``POST /captcha``."""
    base64 = {
        "type": "string",
        "minLength": 1,
        "description": "Base64 of the standard alphabet, padded, or a data URI with it.",
        "examples": [EXAMPLE],
    }
    image = {"schema": {"type": "string", "format": "binary", "minLength": 1}}
    content = {
        JSON: {"schema": _object("pic", base64, config)},
        TEXT: {"schema": base64},
        **dict.fromkeys((*IMAGES, BYTES), image),
    }
    return {
        "requestBody": {"required": True, "content": content},
        "parameters": [
            {"name": name, "in": "query", "required": False, "schema": schema}
            for name, schema in _constraints(config).items()
        ],
    }


def batch_request(config: ServiceConfig) -> dict[str, Any]:
    """Describe the body and the query of ``POST /captcha/batch``."""
    pics = {
        "type": "array",
        "minItems": 1,
        "maxItems": MAX_PICS,
        "items": {"type": "string"},
        "examples": [[EXAMPLE, EXAMPLE]],
        "description": "Each as the pic of POST /captcha; one that is none has its own answer.",
    }
    described = reading_request(config)
    described["requestBody"]["content"] = {JSON: {"schema": _object("pics", pics, config)}}
    return described


def _object(name: str, schema: dict[str, Any], config: ServiceConfig) -> dict[str, Any]:
    optional = {
        key: {"anyOf": [known, {"type": "null"}], "description": known["description"]}
        for key, known in _constraints(config).items()
    }
    return {"type": "object", "required": [name], "properties": {name: schema, **optional}}


def _constraints(config: ServiceConfig) -> dict[str, dict[str, Any]]:
    return {
        "charset": {
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_CHARSET,
            "description": "Only these characters are possible.",
        },
        "length": {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_HEADS,
            "description": "The number of characters, if it is known.",
        },
        "model": {
            "type": "string",
            "enum": list(config.models),
            "description": f"The model that reads; without it, {config.default_model}.",
        },
    }


def describe(app: FastAPI, *, token: bool) -> dict[str, Any]:
    """The OpenAPI document.

    :param token: whether requests must bear one
    """
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    if token:
        schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes["token"] = {"type": "http", "scheme": "bearer"}
        document["security"] = [{"token": []}]
        for path in OPEN:
            document["paths"][path]["get"]["security"] = []
    return document
