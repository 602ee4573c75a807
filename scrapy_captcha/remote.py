"""Images read by a service, ``scrapy captcha serve`` on some other machine for instance."""

from __future__ import annotations

import json
import math
import re
import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlencode

from scrapy_captcha import image
from scrapy_captcha.endpoint import Endpoint
from scrapy_captcha.errors import ConfigError, ServiceError
from scrapy_captcha.exchange import Call, Exchange
from scrapy_captcha.recognizer import Recognition

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scrapy_captcha.exchange import Reply

#: Most seconds for a reading, all that it waits and is asked again included: as long as a service
#: takes to start again on a machine that has other things to do.
TIMEOUT = 30.0
#: Most seconds for one answer.
ANSWER_TIMEOUT = 10.0
#: Seconds until a service is asked again that is not reached, or does not say when.
PAUSE = 0.5
#: Most readings that one service is asked for at a time by a crawl.
THREADS = 8
#: Statuses that pass: too many requests, and what a service or a proxy before it says of a restart.
_LATER = frozenset({429, 502, 503, 504})
#: Statuses by which a service refuses what it was sent.
_NO_IMAGE = frozenset({400, 413, 415, 422})
_HASH = re.compile(r"[!-~]{1,200}")
_SAID = 200


@dataclass(frozen=True)
class RemoteModel:
    """What a service's model can read; as :class:`scrapy_captcha.bundle.Manifest` says it."""

    name: str
    charset: str
    length: int
    min_length: int
    case: str


class RemoteReader:
    """Reads through a service.

    >>> reader = RemoteReader.connect("http://127.0.0.1:8090")
    >>> reader.read(open("1a8m.png", "rb").read()).text
    '1a8m'

    :ivar manifest: what the model can read, as the service said when it was asked first
    :ivar model_hash: of the model that read last; each reading bears that of its own
    :ivar threads: where it is waited for the service, so that it keeps nothing else waiting
    """

    def __init__(
        self, endpoint: Endpoint, token: str | None = None, timeout: float = TIMEOUT
    ) -> None:
        self._endpoint = endpoint
        self._token = token
        self._timeout = timeout
        self._headers = {"Content-Type": "application/octet-stream"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._exchange = Exchange(endpoint)
        self._closed = Event()
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="captcha-service")
        try:
            self.manifest, self.model_hash = self._model()
        except BaseException:
            self.close()
            raise

    @classmethod
    def connect(cls, url: str, token: str | None = None, timeout: float = TIMEOUT) -> Self:
        """Ask a service what it reads.

        :param url: as :meth:`scrapy_captcha.endpoint.Endpoint.parse` takes it
        :param token: what the service wants to see, if it does
        :param timeout: seconds for this, and for each reading
        :raises ConfigError: when the URL is none of a service
        :raises ServiceError: when the service is not reached, or does not let us in
        """
        try:
            endpoint = Endpoint.parse(url)
        except ValueError as e:
            raise ConfigError(f"expected {e}") from None
        return cls(endpoint, token, timeout)

    def read(
        self,
        image_bytes: bytes,
        charset: str | None = None,
        length: int | None = None,
        deadline: float = math.inf,
    ) -> Recognition:
        """Read one image.

        A service that is not reached, or asks to come again later, is asked again while there is
        time.

        :param deadline: :func:`time.monotonic` from when on nothing is sent any more
        :raises ImageError: when the bytes are not an acceptable image
        :raises ServiceError: when there is no reading
        """
        asked = {"charset": charset, "length": length, "model": self._endpoint.model}
        query = urlencode({key: value for key, value in asked.items() if value is not None})
        target = f"/captcha?{query}" if query else "/captcha"
        try:
            answer = self._ask("POST", target, image_bytes, deadline)
        except _Refused as e:
            image.decode(image_bytes)  # raises ImageError if it is the image's fault
            raise ServiceError(str(e)) from None
        try:
            recognition = _recognition(answer)
        except ValueError as e:
            raise self._nonsense(e) from None
        self.model_hash = recognition.model_hash
        return recognition

    def close(self) -> None:
        """End what is on its way, and what waits for a thread; close the connections."""
        self._closed.set()
        self.threads.shutdown(wait=False, cancel_futures=True)
        self._exchange.end()

    def _model(self) -> tuple[RemoteModel, str]:
        answer = self._ask("GET", "/models")
        try:
            models = _models(answer)
        except ValueError as e:
            raise self._nonsense(e) from None
        wanted = self._endpoint.model
        for model, model_hash in models:
            if wanted in {None, model.name}:
                return model, model_hash
        known = ", ".join(repr(model.name) for model, _ in models)
        raise ServiceError(f"{self._endpoint} has no model {wanted!r}, but {known}")

    def _ask(
        self, method: str, path: str, body: bytes | None = None, deadline: float = math.inf
    ) -> Mapping[str, Any]:
        """Send a request until there is an answer other than "later".

        A service that was reached once and is not any more may be starting again.
        """
        deadline = min(deadline, monotonic() + self._timeout)
        call = Call(method, self._endpoint.path + path, self._headers, body)
        while True:
            pause, now = PAUSE, monotonic()
            by = min(deadline, now + ANSWER_TIMEOUT)
            if now >= deadline:
                raise ServiceError(f"{self._endpoint} was not asked, for no time was left")
            try:
                reply = self._exchange.ask(call, by)
            except TimeoutError:
                trouble = f"did not answer within {by - now:.3g} seconds"
                raise ServiceError(f"{self._endpoint} {trouble}") from None
            except OSError as e:
                failed = ServiceError(f"{self._endpoint} is not reached: {_reason(e)}")
                if isinstance(e, ssl.SSLError) or body is None or self._closed.is_set():
                    raise failed from None
            except HTTPException as e:
                # not its text, which may be what was received, and that what was sent
                raise self._nonsense(type(e).__name__) from None
            else:
                if reply.status not in _LATER:
                    return self._answer(reply)
                said = self._said(reply)
                pause = _seconds(reply.retry_after)
                failed = ServiceError(
                    f"{self._endpoint} answers {reply.status}{said}: to be asked again after "
                    f"{pause:g} seconds"
                )
            if monotonic() + pause >= deadline or sleep(pause, self._closed):
                raise failed

    def _answer(self, reply: Reply) -> Mapping[str, Any]:
        if reply.status == 401:
            should = "is wrong" if self._token else "is missing"
            raise ServiceError(
                f"{self._endpoint} wants a token: CAPTCHA_SERVICE_TOKEN {should}{self._said(reply)}"
            )
        if 300 <= reply.status < 400:
            raise ServiceError(
                f"{self._endpoint} redirects to another address, which is not followed: give the "
                "service's own"
            )
        if reply.status in _NO_IMAGE:
            raise _Refused(f"{self._endpoint} answers {reply.status}{self._said(reply)}")
        if reply.status != 200:
            raise ServiceError(f"{self._endpoint} answers {reply.status}{self._said(reply)}")
        answer = _json(reply.body)
        if not isinstance(answer, dict) or answer.get("status") != "OK":
            raise self._nonsense('expected a JSON object with "status": "OK"')
        return answer

    def _said(self, reply: Reply) -> str:
        """The service's own words, if there are any; whatever they are, the token is not shown."""
        answer = _json(reply.body)
        said = answer.get("msg") if isinstance(answer, dict) else None
        if not isinstance(said, str) or not said:
            return ""
        if self._token:
            said = said.replace(self._token, "***")
        return f" ({said[:_SAID]!r})"

    def _nonsense(self, why: object) -> ServiceError:
        return ServiceError(f"{self._endpoint} does not answer as a captcha service does: {why}")


class _Refused(ServiceError):  # noqa: N818 - an answer
    """The service does not take what it was sent."""


def sleep(seconds: float, closed: Event) -> bool:
    """Wait, but no longer than until it is closed; whether it is."""
    return closed.wait(seconds)


def _reason(e: OSError) -> str:
    return e.strerror or str(e) or type(e).__name__


def _seconds(retry_after: str | None) -> float:
    """How long to wait; the header may also hold a date, which is not understood."""
    if retry_after is None or not re.fullmatch(r"[0-9]{1,6}", retry_after):
        return PAUSE
    return max(PAUSE, float(retry_after))


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


# What a service says is checked as what a site says would be: it goes into a form, a log, the names
# of files and the dataset.


def _recognition(answer: Mapping[str, Any]) -> Recognition:
    text, model_hash = answer.get("result"), answer.get("model_hash")
    if not isinstance(text, str) or not 1 <= len(text) <= 64 or not text.isprintable():
        raise ValueError("expected a printable text as result")
    if not isinstance(model_hash, str) or not _HASH.fullmatch(model_hash):
        raise ValueError("expected a model_hash")
    confidence = _probability(answer.get("confidence"))
    given = answer.get("characters")
    if not isinstance(given, list) or not all(isinstance(c, list) and len(c) == 2 for c in given):
        raise ValueError("expected characters, each with a probability")
    characters = tuple([(character, _probability(chance)) for character, chance in given])
    if [character for character, _ in characters] != list(text):
        raise ValueError("expected the characters of the result")
    return Recognition(text, confidence, characters, model_hash)


def _probability(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ValueError("expected probabilities")
    return float(value)


def _models(answer: Mapping[str, Any]) -> list[tuple[RemoteModel, str]]:
    given = answer.get("models")
    if not isinstance(given, list) or not given or not all(isinstance(m, dict) for m in given):
        raise ValueError("expected a list of models")
    return [_described(model) for model in given]


def _described(given: Mapping[str, Any]) -> tuple[RemoteModel, str]:
    texts = [given.get(key) for key in ("name", "charset", "case", "model_hash")]
    lengths = [given.get(key) for key in ("length", "min_length")]
    if not all(isinstance(text, str) and text.isprintable() and text for text in texts):
        raise ValueError("expected a name, charset, case and model_hash of each model")
    if not all(isinstance(n, int) and 1 <= n <= 64 for n in lengths):
        raise ValueError("expected a length and min_length of each model")
    name, charset, case, model_hash = map(str, texts)
    return RemoteModel(name, charset, given["length"], given["min_length"], case), model_hash
