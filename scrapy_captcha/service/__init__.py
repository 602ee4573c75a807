"""The reader over HTTP (extra ``serve``): ``POST /captcha``.

Any ASGI server can host it: ``uvicorn --factory scrapy_captcha.service:app``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from scrapy_captcha.service.config import ServiceConfig

if TYPE_CHECKING:
    from scrapy_captcha.service.guard import Guard

__all__ = ["ServiceConfig", "app", "create_app"]


def app() -> Guard:
    """The service as the environment variables ``CAPTCHA_SERVICE_*`` configure it.

    :raises ConfigError: naming the variable, what was expected and what came
    """
    return create_app(ServiceConfig.from_environment(os.environ))


def create_app(config: ServiceConfig) -> Guard:
    """The service as an ASGI application.

    Its reader processes start and stop with the server's lifespan events.

    :raises ImportError: when the extra ``serve`` is not installed
    """
    try:
        from scrapy_captcha.service import api  # noqa: PLC0415 - readers never import the web's part
    except ModuleNotFoundError as e:
        raise ImportError(missing_extra(e)) from e
    return api.create_app(config)


def missing_extra(error: ModuleNotFoundError) -> str:
    """What to do about a missing dependency of the service."""
    return (
        f"the service needs {error.name}, which is not installed here: "
        "pip install 'scrapy-captcha[serve]'"
    )
