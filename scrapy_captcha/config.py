"""``CAPTCHA_*`` settings -> frozen, validated values; the only module that reads settings."""

from __future__ import annotations

import difflib
import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from dataclasses import field as default
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cssselect import SelectorError
from scrapy.http import JsonResponse

from scrapy_captcha.endpoint import CredentialsError, Endpoint, is_service
from scrapy_captcha.errors import ConfigError
from scrapy_captcha.judged import beginning, select
from scrapy_captcha.patterns import Pattern
from scrapy_captcha.selectors import selector

if TYPE_CHECKING:
    from collections.abc import Callable

    from scrapy.http import TextResponse
    from scrapy.settings import BaseSettings

logger = logging.getLogger(__name__)

CASES = ("lower", "upper", "as-is")
TOKEN = "CAPTCHA_SERVICE_TOKEN"  # noqa: S105 - a name
_TOKEN = re.compile(r"[!-~]+")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[\w.-]+)(:\d+)?")
#: Confirmed or rejected attempts that a site needs before ``min_confidence`` holds for it.
THRESHOLD_AFTER = 100
#: The share of canaries among the answers of a crawl that retrains, unless a rule says otherwise.
CANARY_RATE = 0.02


@dataclass(frozen=True)
class Condition:
    """Something to look for in a page: a CSS selector, or a pattern on the text of its body."""

    css: str | None = None
    pattern: Pattern | None = None

    def holds(self, response: TextResponse) -> bool:
        """Whether the page has it.

        :raises PatternTimeout: when that cannot be told in time
        """
        if self.pattern is not None:
            return self.pattern.search(beginning(response))
        return not isinstance(response, JsonResponse) and bool(select(response, self.css or ""))


@dataclass(frozen=True)
class SiteRule:
    """What the user says about one site; everything but ``site`` is optional.

    :param site: the key in ``CAPTCHA_SITES``
    """

    site: str
    detect: str | None = None
    redirect: Pattern | None = None
    image: str | None = None
    field: str | None = None
    form: str | None = None
    formdata: Mapping[str, str] = default(default_factory=lambda: MappingProxyType({}))
    refresh: str | None = None
    submit: str | None = None
    accepted: Condition | None = None
    rejected: Condition | None = None
    charset: str | None = None
    length: int | None = None
    case: str = "lower"
    model: str | None = None
    max_attempts: int = 8
    min_confidence: float | None = None
    image_hosts: frozenset[str] = frozenset()
    obey_robotstxt: bool = True
    dataset: str | None = None
    canary_rate: float = 0.0


@dataclass(frozen=True)
class Settings:
    """All of ``CAPTCHA_*``.

    :param timeout: seconds for one solve
    :param breaker: failed solves in a row after which a site's breaker opens
    :param dataset: folder, or ``None`` to keep nothing
    :param retrain_after: newly confirmed images of a site after which it is trained on
    :param service_token: what services are shown that read in place of a model
    """

    sites: Mapping[str, SiteRule]
    model: str = "auto"
    dataset: Path | None = Path("captchas")
    max_attempts: int = 8
    min_confidence: float | None = None
    timeout: float = 60.0
    breaker: int = 8
    close_spider: bool = False
    retrain_after: int | None = None
    service_token: str | None = default(default=None, repr=False)

    @classmethod
    def from_settings(cls, settings: BaseSettings) -> Settings:
        """Read and check a crawl's settings.

        :raises ConfigError: naming the setting or rule key, what was expected and what came
        """
        _warn_of_misspelt(settings)
        read: dict[str, Any] = {}
        for key, check in _SETTINGS.items():
            name = f"CAPTCHA_{key.upper()}"
            if name in settings:
                read[key] = _checked(name, settings[name], check)
        sites = _checked("CAPTCHA_SITES", settings.get("CAPTCHA_SITES"), _sites)
        defaults = {key: read[key] for key in _DEFAULTS_FOR_RULES if key in read}
        if read.get("retrain_after") is not None:
            if read.get("dataset", cls.dataset) is None:
                raise ConfigError(
                    "CAPTCHA_RETRAIN_AFTER: there is nothing to train on with CAPTCHA_DATASET = "
                    "None; name a folder there, or drop CAPTCHA_RETRAIN_AFTER"
                )
            if is_service(read.get("model", cls.model)):
                raise ConfigError(
                    "CAPTCHA_RETRAIN_AFTER: the model of a service is not here to be trained on; "
                    "name a model in CAPTCHA_MODEL, or drop CAPTCHA_RETRAIN_AFTER and train the "
                    "service's model on CAPTCHA_DATASET with `python -m trainer fit`"
                )
            defaults["canary_rate"] = CANARY_RATE
        rules = {}
        for key, rule in sites.items():
            site = _site_key(key)
            if site in rules:
                raise ConfigError(f"CAPTCHA_SITES: {key!r} is listed twice")
            rules[site] = _rule(site, rule, defaults)
        read["service_token"] = service_token(settings)
        return cls(sites=MappingProxyType(rules), **read)

    def rule_for(self, netloc: str) -> SiteRule | None:
        """The rule of the most specific listed site: host:port, then host, then parent domains.

        :param netloc: "host" or "host:port", as in a URL
        """
        netloc = netloc.rpartition("@")[2].lower()
        if netloc in self.sites:
            return self.sites[netloc]
        host = netloc if netloc.endswith("]") else re.sub(r":\d*$", "", netloc)
        while host:
            if host in self.sites:
                return self.sites[host]
            host = "" if host[-1:].isdigit() or host.startswith("[") else host.partition(".")[2]
        return None


def service_token(settings: BaseSettings) -> str | None:
    """What services are shown: the setting, else the environment variable of that name.

    :raises ConfigError: which does not show it
    """
    token = settings.get(TOKEN) or os.environ.get(TOKEN, "").strip() or None
    if token is not None and not (isinstance(token, str) and _TOKEN.fullmatch(token)):
        raise ConfigError(f"{TOKEN}: expected visible ASCII characters without spaces")
    return token


def _warn_of_misspelt(settings: BaseSettings) -> None:
    known = {f"CAPTCHA_{item.name.upper()}" for item in fields(Settings)}
    for name in settings:
        if str(name).startswith("CAPTCHA_") and name not in known:
            close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.75)
            if close:
                logger.warning(
                    "Unknown setting %(name)s; did you mean %(close)s?",
                    {"name": name, "close": close[0]},
                )


def _site_key(key: object) -> str:
    site = key.lower().removeprefix(".") if isinstance(key, str) else ""
    if not _HOST.fullmatch(site):
        raise ConfigError(
            f"CAPTCHA_SITES: expected keys that are a host, host:port or parent domain, got {key!r}"
        )
    return site


def _rule(site: str, given: object, defaults: Mapping[str, Any]) -> SiteRule:
    if not isinstance(given, dict):
        raise ConfigError(f"CAPTCHA_SITES[{site!r}]: expected a dict of rule keys, got {given!r}")
    values = dict(defaults)
    if "model" in given:  # it is not retrained
        values.pop("canary_rate", None)
    for key, value in given.items():
        where = f"CAPTCHA_SITES[{site!r}][{key!r}]"
        if key not in _RULE:
            close = difflib.get_close_matches(str(key), _RULE, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(_RULE))}"
            raise ConfigError(f"{where}: unknown rule key; {hint}")
        values[key] = _checked(where, value, _RULE[key])
    return SiteRule(site=site, **values)


def _checked(where: str, value: object, check: Callable[[Any], Any]) -> Any:
    try:
        return check(value)
    except CredentialsError as e:
        raise ConfigError(f"{where}: expected {e}") from None
    except (ValueError, TypeError) as e:
        raise ConfigError(f"{where}: expected {e}, got {value!r}") from None


# Each check returns the value to keep, or raises ValueError with what it expected.


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a text that is not empty")
    return value


def _css(value: Any) -> str:
    try:
        selector(_text(value))
    except (SelectorError, ValueError) as e:
        raise ValueError(f"a CSS selector ({e})") from None
    return str(value)


def _pattern(value: Any) -> Pattern:
    try:
        return Pattern(_text(value))
    except ValueError as e:
        raise ValueError(f"a regular expression ({e})") from None


def _url(value: Any) -> str:
    text = _text(value).strip()
    try:
        parts = urlsplit(text)
        whole = parts.scheme in {"http", "https"} and parts.hostname and (parts.port or 1)
    except ValueError:
        raise ValueError("a URL") from None
    if not whole and (parts.scheme or parts.netloc):
        raise ValueError("an http(s) URL, or one relative to the page")
    return text


def _model(value: Any) -> str:
    name = _text(value)
    if is_service(name):
        Endpoint.parse(name)
    return name


def _condition(value: Any) -> Condition:
    if _text(value).startswith("re:"):
        return Condition(pattern=_pattern(value.removeprefix("re:")))
    return Condition(css=_css(value))


def _formdata(value: Any) -> Mapping[str, str]:
    if not isinstance(value, dict) or not all(
        isinstance(k, str) and isinstance(v, str) for k, v in value.items()
    ):
        raise ValueError("a dict of texts")
    return MappingProxyType(dict(value))


def _number(
    kind: type[int] | type[float], low: float, high: float, what: str
) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        try:
            number = kind(value)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(what) from None
        if isinstance(value, bool) or not low <= number <= high or number != float(value):
            raise ValueError(what)
        return number

    return check


def _charset(value: Any) -> str:
    if len(set(_text(value))) < 2:
        raise ValueError("at least two different characters")
    return str(value)


def _case(value: Any) -> str:
    if value not in CASES:
        raise ValueError(f"one of {', '.join(map(repr, CASES))}")
    return str(value)


def _hosts(value: Any) -> frozenset[str]:
    if not isinstance(value, list | tuple | set | frozenset) or not all(
        isinstance(host, str) and _HOST.fullmatch(host.lower()) for host in value
    ):
        raise ValueError("a list of hosts, each a host or host:port")
    return frozenset(host.lower() for host in value)


def _flag(value: Any) -> bool:
    if value in (True, "1", "True", "true"):
        return True
    if value in (False, "0", "False", "false"):
        return False
    raise ValueError("True or False")


def _folder(value: Any) -> Path | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str | Path):
        raise TypeError("a folder, or None")
    return Path(_text(str(value)))


def _subfolder(value: Any) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", _text(value)):
        raise ValueError("the name of a folder: letters, digits, '.', '_' and '-'")
    return str(value)


def _sites(value: Any) -> dict[Any, Any]:
    expected = "a dict of site -> rule, or the same as JSON"
    try:
        sites = json.loads(value) if isinstance(value, str) and value else value or {}
    except ValueError:
        raise ValueError(expected) from None
    if not isinstance(sites, Mapping):
        raise TypeError(expected)
    return dict(sites)


_attempts = _number(int, 1, 1000, "a whole number from 1 to 1000")
_confidence_given = _number(float, 0, 1, "a number from 0 to 1, or None")


def _confidence(value: Any) -> float | None:
    return None if value is None else float(_confidence_given(value))


_new_images = _number(int, 1, 10**6, "a whole number of at least 1, or None")


def _images(value: Any) -> int | None:
    return None if value is None else int(_new_images(value))


_DEFAULTS_FOR_RULES = ("max_attempts", "min_confidence")
_SETTINGS: dict[str, Callable[[Any], Any]] = {
    "model": _model,
    "dataset": _folder,
    "max_attempts": _attempts,
    "min_confidence": _confidence,
    "timeout": _number(float, 1, 86400, "a number of seconds from 1 to 86400"),
    "breaker": _number(int, 1, 10**6, "a whole number of at least 1"),
    "close_spider": _flag,
    "retrain_after": _images,
}
_RULE: dict[str, Callable[[Any], Any]] = {
    "detect": _css,
    "redirect": _pattern,
    "image": _css,
    "field": _text,
    "form": _css,
    "formdata": _formdata,
    "refresh": _url,
    "submit": _url,
    "accepted": _condition,
    "rejected": _condition,
    "charset": _charset,
    "length": _number(int, 1, 32, "a whole number from 1 to 32"),
    "case": _case,
    "model": _model,
    "max_attempts": _attempts,
    "min_confidence": _confidence,
    "image_hosts": _hosts,
    "obey_robotstxt": _flag,
    "dataset": _subfolder,
    "canary_rate": _number(float, 0, 0.5, "a number from 0 to 0.5"),
}
