"""``scrapy captcha serve``: the reader over HTTP."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from scrapy.exceptions import UsageError

from scrapy_captcha.errors import CaptchaError
from scrapy_captcha.service import create_app, missing_extra
from scrapy_captcha.service.config import PREFIX, ServiceConfig, parse_models

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from scrapy.crawler import CrawlerProcessBase
    from scrapy.settings import Settings

logger = logging.getLogger(__name__)

CRAWLS = False
TOKEN = f"{PREFIX}TOKEN"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--model",
        action="append",
        metavar="[NAME=]BUNDLE",
        help="a shipped model, or NAME=FOLDER; can be repeated, the first is the default "
        "(default: alnum4)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8090, help="default: %(default)s; 0: any")
    parser.add_argument(
        "--readers", metavar="N", help="processes that read (default: as many as cores)"
    )
    parser.add_argument(
        "--deadline", metavar="SECONDS", help="for an answer; what would be later is refused"
    )
    parser.add_argument(
        "--max-waiting", metavar="N", help="most images that wait; more are refused with 429"
    )
    parser.add_argument("--max-body", metavar="BYTES", help="of one request")
    parser.add_argument("--drain", metavar="SECONDS", help="to go on taking requests after SIGTERM")
    parser.add_argument(
        "--allow-origin",
        action="append",
        metavar="ORIGIN",
        dest="origins",
        help="a page that may use the service from a browser, as https://host; can be repeated",
    )


def run(opts: argparse.Namespace, settings: Settings, process: CrawlerProcessBase | None) -> int:  # noqa: ARG001
    """Serve until told to stop."""
    config = _config(opts, os.environ, settings.get(TOKEN))
    try:
        from scrapy_captcha.service import server  # noqa: PLC0415 - of the extra
    except ModuleNotFoundError as e:
        raise CaptchaError(missing_extra(e)) from None
    server.check_address(opts.host, config)
    app = create_app(config)
    sockets = server.listen(opts.host, opts.port)
    server.allow_many_connections()
    logging.basicConfig(
        level=opts.loglevel or logging.INFO,
        format="%(asctime)s [%(name)s] %(levelname)s: %(message)s",
    )
    for socket in sockets:
        logger.info(
            "Reading captchas with %(models)s on %(url)s/captcha; %(url)s/docs tells more",
            {"models": ", ".join(config.models), "url": server.url(socket)},
        )
    server.Server(app, config).run(sockets)
    return 0


def _config(
    opts: argparse.Namespace, environment: Mapping[str, str], token: str | None
) -> ServiceConfig:
    """Options, and the setting for the token as in a crawl, outrank the environment."""
    given: dict[str, Any] = {
        name: value
        for name in ("readers", "deadline", "max_waiting", "max_body", "drain", "origins")
        if (value := getattr(opts, name)) is not None
    }
    if opts.model:
        try:
            given["models"] = parse_models(opts.model)
        except ValueError as e:
            raise UsageError(f"--model: expected {e}", print_help=False) from None
    if token:
        given["token"] = token
    return ServiceConfig.from_environment(environment, **given)
