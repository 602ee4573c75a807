"""The routes, and the application that serves them."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from scrapy_captcha.service.contract import (
    SUMMARY,
    VERSION,
    BatchBody,
    FineBody,
    ModelsBody,
    ReadingBody,
    batch_request,
    describe,
    errors,
    reading_request,
)
from scrapy_captcha.service.guard import Guard, refusal_body, retry_after
from scrapy_captcha.service.metrics import Metrics
from scrapy_captcha.service.pool import Pool, Reading
from scrapy_captcha.service.state import Service
from scrapy_captcha.service.wire import JSON, Constraints, Refused, parse_batch, parse_single

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence

    from starlette.types import Receive, Scope, Send

    from scrapy_captcha.service.config import ServiceConfig
    from scrapy_captcha.service.pool import Refusal

    Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]

#: Probabilities are rounded to so many digits in answers.
DIGITS = 6
_FINE = b'{"status": "OK"}'


def create_app(config: ServiceConfig) -> Guard:
    """A service that any ASGI server can host, in one process of it.

    Its readers start and stop with the server's lifespan events.
    """
    metrics = Metrics()
    return assemble(Service(config, metrics, Pool(config, metrics)))


def assemble(service: Service) -> Guard:
    """The application around a pool of readers."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.pool.start()
        try:
            yield
        finally:
            await service.pool.stop()

    app = FastAPI(
        title="scrapy-captcha",
        version=VERSION,
        description=SUMMARY,
        lifespan=lifespan,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        redirect_slashes=False,
        exception_handlers={HTTPException: _http_error},
    )
    _add_routes(app, Routes(service), service.config)
    _describe(app, token=service.config.token is not None)
    direct = {
        (method, route.path): route.app
        for route in app.routes
        if isinstance(route, _Route)
        for method in route.methods or ()
    }
    return Guard(app, service, direct)


class Routes:
    """What each route answers."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def read(self, request: Request) -> Response:
        """Read one image."""
        image, known = parse_single(*await _parts(request), self._service.config.models)
        (outcome,) = await self._read([image], known)
        if not isinstance(outcome, Reading):
            raise _refused(outcome)
        return _json(_reading_fields(outcome))

    async def read_batch(self, request: Request) -> Response:
        """Read up to 64 images; what is wrong with one of them is told in its place."""
        pics, known = parse_batch(*await _parts(request), self._service.config.models)
        images = [pic for pic in pics if isinstance(pic, bytes)]
        outcomes = await self._read(images, known)
        refusals = [outcome for outcome in outcomes if not isinstance(outcome, Reading)]
        if refusals and len(refusals) == len(pics) and refusals[0].status in {429, 503}:
            raise _refused(refusals[0])
        read = iter(outcomes)
        results = [_outcome_fields(next(read) if isinstance(pic, bytes) else pic) for pic in pics]
        return _json({"status": "OK", "results": results})

    async def models(self, request: Request) -> Response:  # noqa: ARG002
        """What each model can read."""
        if not self._service.pool.ready:
            raise self._not_ready()
        return _json({"status": "OK", "models": self._service.pool.describe()})

    async def live(self, request: Request) -> Response:  # noqa: ARG002
        """Whether the process answers."""
        return Response(_FINE, media_type=JSON)

    async def ready(self, request: Request) -> Response:  # noqa: ARG002
        """Whether requests are welcome: every reader has loaded the default model and proved it."""
        if self._service.why_not_ready is not None:
            raise self._not_ready()
        return Response(_FINE, media_type=JSON)

    async def metrics(self, request: Request) -> Response:
        """What the service has counted, for Prometheus."""
        text, content_type = self._service.metrics.render(request.headers.get("accept", ""))
        return Response(text, headers={"content-type": content_type})

    def _not_ready(self) -> Refused:
        return Refused(503, self._service.why_not_ready or "", retry_after(None, 503))

    async def _read(
        self, images: Sequence[bytes], known: Constraints
    ) -> Sequence[Reading | Refusal]:
        config = self._service.config
        if not images:
            return []
        return await self._service.pool.read(
            images,
            model=known.model or config.default_model,
            charset=known.charset,
            length=known.length,
            deadline=asyncio.get_running_loop().time() + config.deadline,
        )


class _Route(APIRoute):
    """Has FastAPI describe a route, but hands the request to it as it is.

    What FastAPI would do with it before and after costs more than all that the route itself does.
    """

    def __init__(self, path: str, endpoint: Endpoint, **described: Any) -> None:
        super().__init__(path, endpoint, **described)
        self.app = partial(_answer, endpoint)


async def _answer(endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
    try:
        response = await endpoint(Request(scope, receive))
    except Refused as refusal:
        response = _error(refusal.status, refusal.message, refusal.headers)
    await response(scope, receive, send)


def _add_routes(app: FastAPI, routes: Routes, config: ServiceConfig) -> None:
    add = partial(
        app.router.add_api_route, route_class_override=_Route, response_class=JSONResponse
    )
    who = 401 if config.token is not None else 403
    add(
        "/captcha",
        routes.read,
        methods=["POST"],
        responses={200: {"model": ReadingBody}, **errors(400, who, 408, 413, 415, 422, 429, 503)},
        openapi_extra=reading_request(config),
    )
    add(
        "/captcha/batch",
        routes.read_batch,
        methods=["POST"],
        responses={200: {"model": BatchBody}, **errors(400, who, 408, 413, 415, 422, 429, 503)},
        openapi_extra=batch_request(config),
    )
    pages: list[tuple[str, Endpoint, dict[str, Any]]] = [
        ("/models", routes.models, {"responses": {200: {"model": ModelsBody}, **errors(who, 503)}}),
        ("/live", routes.live, {"responses": {200: {"model": FineBody}}}),
        ("/ready", routes.ready, {"responses": {200: {"model": FineBody}, **errors(503)}}),
        (
            "/metrics",
            routes.metrics,
            {"responses": errors(who), "response_class": PlainTextResponse},
        ),
    ]
    for path, endpoint, described in pages:
        add(path, endpoint, methods=["GET"], **described)
        add(path, endpoint, methods=["HEAD"], include_in_schema=False)


def _describe(app: FastAPI, *, token: bool) -> None:
    described: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not described:
            described.update(describe(app, token=token))
        return described

    app.openapi = openapi  # type: ignore[method-assign]


async def _parts(request: Request) -> tuple[str, bytes, bytes]:
    """Content type, body and query; the guard hands the body on in one piece."""
    headers = dict(request.scope["headers"])
    encoding = headers.get(b"content-encoding", b"identity")
    if encoding != b"identity":
        shown = encoding[:100].decode("latin-1")
        raise Refused(
            415,
            f"expected a body without Content-Encoding, got {shown!r}",
            {"accept-encoding": "identity"},
        )
    body = (await request.receive())["body"]
    content_type = headers.get(b"content-type", b"").decode("latin-1")
    return content_type, body, request.scope["query_string"]


def _refused(refusal: Refusal) -> Refused:
    return Refused(
        refusal.status, refusal.message, retry_after(refusal.retry_after, refusal.status)
    )


def _outcome_fields(outcome: Reading | Refusal | Refused) -> dict[str, Any]:
    if isinstance(outcome, Reading):
        return _reading_fields(outcome)
    return {"status": "NO", "code": outcome.status, "msg": outcome.message}


def _reading_fields(reading: Reading) -> dict[str, Any]:
    recognition = reading.recognition
    return {
        "status": "OK",
        "result": recognition.text,
        "confidence": round(recognition.confidence, DIGITS),
        "characters": [
            (character, round(chance, DIGITS)) for character, chance in recognition.characters
        ],
        "model": reading.model,
        "model_hash": reading.model_hash,
    }


def _json(fields: dict[str, Any]) -> Response:
    return Response(json.dumps(fields), media_type=JSON)


def _error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    return Response(refusal_body(message), status, headers, media_type=JSON)


async def _http_error(request: Request, error: Exception) -> Response:
    """What the routing refuses, in the shape of all errors."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 404:
        return _error(404, f"no such page: {request.url.path[:100]!r}; see /docs", headers)
    if error.status_code == 405:
        # HEAD has routes of its own, of which the routing does not know here
        allowed = set(headers.get("Allow", "").split(", "))
        headers["Allow"] = ", ".join(sorted(allowed | {"HEAD"} if "GET" in allowed else allowed))
        return _error(405, f"expected {headers['Allow']}, got {request.method[:20]}", headers)
    return _error(error.status_code, str(error.detail), headers)
