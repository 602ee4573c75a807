"""The address of a service that reads captchas, as it stands in place of a model's name; pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import parse_qsl, urlsplit

_SERVICE = re.compile(r"(?i)https?://")
_HOST = re.compile(r"[\w.:%-]+", re.ASCII)
_PATH = re.compile(r"(/[\w.~!$&'()*+,;=:@%-]+)*", re.ASCII)
_EXPECTED = (
    "a service's URL such as http://127.0.0.1:8090 or https://host/path, with nothing behind that "
    "but ?model=NAME, to read with another than its default model"
)


class CredentialsError(ValueError):
    """A user name or password in a URL, which must not be shown."""


def is_service(name: str) -> bool:
    """Whether a model's name is the URL of a service."""
    return _SERVICE.match(name) is not None


@dataclass(frozen=True)
class Endpoint:
    """Where a service is, and which of its models is to read.

    :param path: what its routes begin with, without a slash at the end
    :param model: ``None`` for the default one
    """

    secure: bool
    host: str
    port: int
    path: str = ""
    model: str | None = None

    @classmethod
    def parse(cls, url: str) -> Self:
        """Take a URL apart.

        >>> Endpoint.parse("http://10.0.0.7:8090?model=alnum8")
        Endpoint(secure=False, host='10.0.0.7', port=8090, path='', model='alnum8')

        :raises ValueError: saying what was expected
        """
        try:
            parts = urlsplit(url.strip())
            host, port = parts.hostname, parts.port
            query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        except ValueError:
            raise ValueError(_EXPECTED) from None
        if "@" in parts.netloc:
            raise CredentialsError(f"{_EXPECTED}; a token goes into CAPTCHA_SERVICE_TOKEN")
        path = parts.path.rstrip("/")
        if (
            host is None
            or parts.scheme not in {"http", "https"}
            or not _HOST.fullmatch(host)
            or port == 0
            or parts.fragment
            or not _PATH.fullmatch(path)
            or len(query) > 1
            or not all(name == "model" and value for name, value in query)
        ):
            raise ValueError(_EXPECTED)
        secure = parts.scheme == "https"
        model = query[0][1] if query else None
        return cls(secure, host, port or (443 if secure else 80), path, model)

    def __str__(self) -> str:
        """The service's URL, for messages."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}{self.path}"
