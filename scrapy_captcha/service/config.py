"""How the service runs: one frozen value, checked when it is made."""

from __future__ import annotations

import difflib
import logging
import math
import os
import re
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from scrapy_captcha.bundle import NAME, resolve
from scrapy_captcha.errors import BundleError, ConfigError
from scrapy_captcha.recognizer import AUTO

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

logger = logging.getLogger(__name__)

#: What each environment variable's name begins with: ``CAPTCHA_SERVICE_READERS``.
PREFIX = "CAPTCHA_SERVICE_"
DEFAULT_MODEL = "alnum4"
#: Most images of one batch request.
MAX_PICS = 64
_VISIBLE = re.compile(r"[\x21-\x7e]+")


def usable_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class ServiceConfig:
    """Everything about a service but the address it listens on.

    Each field but ``models``, ``token`` and ``origins`` is a number; all can be given by an
    environment variable, ``CAPTCHA_SERVICE_`` and the field's name in capitals.

    :param models: the name in requests and answers -> a shipped model's name, ``"auto"`` or the
        path of a bundle; the first one reads what names none
    :param token: what a request must bear; ``None`` serves whoever reaches a loopback address
    :param readers: processes that read images
    :param max_waiting: most images that wait for a reader; more are refused with 429
    :param deadline: seconds from a request's last byte to its answer; what would come later is
        refused, or not read
    :param batch: most images that a reader gets at a time
    :param stuck: seconds after which a reader that does not answer is replaced
    :param max_body: most bytes of a request's body
    :param max_held: most bytes of all bodies together, of requests that come, wait or are read,
        but at least ``max_body``; what comes beyond is refused with 429
    :param head_timeout: seconds within which a request's head has to come
    :param body_timeout: seconds within which its body has to come
    :param origins: web pages that may use the service from a browser, each as ``https://host``
    :param drain: seconds for which a service that was told to stop still takes requests, so that
        load balancers and kept-alive clients learn of it
    :raises ConfigError: naming the field, what was expected and what came
    """

    models: Mapping[str, str] = field(
        default_factory=lambda: MappingProxyType({DEFAULT_MODEL: DEFAULT_MODEL})
    )
    token: str | None = field(default=None, repr=False)
    readers: int = field(default_factory=usable_cores)
    max_waiting: int = 256
    deadline: float = 1.0
    batch: int = 16
    stuck: float = 10.0
    max_body: int = 2 << 20
    max_held: int = 64 << 20
    head_timeout: float = 5.0
    body_timeout: float = 5.0
    origins: tuple[str, ...] = ()
    drain: float = 1.0

    def __post_init__(self) -> None:
        for item in fields(self):
            checked = _checked(item.name, getattr(self, item.name))
            object.__setattr__(self, item.name, checked)

    @property
    def default_model(self) -> str:
        """The name of the model that reads what names none."""
        return next(iter(self.models))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], **given: Any) -> Self:
        """Read ``CAPTCHA_SERVICE_*``; what is empty counts as missing.

        Lists are separated by commas: ``CAPTCHA_SERVICE_MODELS=alnum4,shop=/models/shop``.

        :param given: fields that outrank the environment
        :raises ConfigError: naming the variable, what was expected and what came
        """
        known = {PREFIX + item.name.upper(): item.name for item in fields(cls)}
        for variable in environment.keys() - known.keys():
            # no error: Kubernetes sets CAPTCHA_SERVICE_HOST for a service of the name "captcha"
            field_name = variable.removeprefix(PREFIX).lower()
            close = difflib.get_close_matches(field_name, known.values(), n=1, cutoff=0.75)
            if close and variable.startswith(PREFIX):
                logger.warning(
                    "Unknown environment variable %(name)s; did you mean %(close)s?",
                    {"name": variable, "close": PREFIX + close[0].upper()},
                )
        read = {}
        for variable, name in known.items():
            text = environment.get(variable, "").strip()
            if text and name not in given:
                read[name] = _checked(name, text, where=variable)
        return cls(**read, **given)


def parse_models(given: list[str]) -> dict[str, str]:
    """``["alnum4", "shop=/models/shop"]`` -> name -> bundle.

    :raises ValueError: saying what was expected
    """
    models: dict[str, str] = {}
    for word in given:
        name, equals, bundle = (part.strip() for part in word.partition("="))
        if name in models:
            raise ValueError(f"names that differ ({name!r} is there twice)")
        models[name] = bundle if equals else name
    return models


def _checked(name: str, value: object, where: str | None = None) -> Any:
    try:
        return _CHECKS[name](value)
    except (ValueError, TypeError) as e:
        got = "" if name == "token" else f", got {value!r}"
        raise ConfigError(f"{where or name}: expected {e}{got}") from None


# Each check takes a field's value, or the text of an environment variable, and returns the value
# to keep, or raises ValueError with what it expected.


def _models(value: Any) -> Mapping[str, str]:
    models = parse_models(value.split(",")) if isinstance(value, str) else dict(value)
    if not models:
        raise ValueError("at least one model")
    for name, bundle in models.items():
        if not NAME.fullmatch(name):
            raise ValueError(
                "a shipped model's name or NAME=FOLDER, NAME of letters, digits, '.', '_' and '-'"
            )
        if bundle != AUTO:
            try:
                resolve(bundle)
            except BundleError as e:
                raise ValueError(f"models that are there ({e})") from None
    return MappingProxyType(models)


def _token(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not _VISIBLE.fullmatch(value):
        raise ValueError("letters, digits and other visible ASCII characters, without spaces")
    return value


def _origins(value: Any) -> tuple[str, ...]:
    given = value.split(",") if isinstance(value, str) else value
    origins = []
    for word in given:
        origin = str(word).strip().lower().removesuffix("/")
        try:
            parts = urlsplit(origin)
            whole = parts.scheme and parts.hostname and (parts.port or True)
        except ValueError:
            whole = False
        if not whole or origin != f"{parts.scheme}://{parts.netloc}" or "@" in parts.netloc:
            raise ValueError("origins such as https://shop.example or http://localhost:3000")
        origins.append(origin)
    return tuple(origins)


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        expected = ValueError(f"a whole number from {low} to {high}")
        try:
            number = int(value)
        except (TypeError, ValueError, OverflowError):
            raise expected from None
        if isinstance(value, bool) or number != float(value) or not low <= number <= high:
            raise expected
        return number

    return check


def _seconds(low: float, high: float) -> Callable[[Any], float]:
    def check(value: Any) -> float:
        expected = ValueError(f"a number of seconds from {low:g} to {high:g}")
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            raise expected from None
        if isinstance(value, bool) or math.isnan(number) or not low <= number <= high:
            raise expected
        return number

    return check


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "models": _models,
    "token": _token,
    "readers": _whole(1, 256),
    "max_waiting": _whole(1, 10**6),
    "deadline": _seconds(0.01, 3600),
    "batch": _whole(1, 256),
    "stuck": _seconds(0.1, 3600),
    "max_body": _whole(1 << 10, 1 << 30),
    "max_held": _whole(1 << 10, 1 << 40),
    "head_timeout": _seconds(0.1, 3600),
    "body_timeout": _seconds(0.1, 3600),
    "origins": _origins,
    "drain": _seconds(0, 3600),
}
