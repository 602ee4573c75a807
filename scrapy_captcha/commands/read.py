"""``scrapy captcha read FILE...``: images from files, without a crawl."""

from __future__ import annotations

import json
import sys
from contextlib import closing, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scrapy.exceptions import UsageError

from scrapy_captcha.config import service_token
from scrapy_captcha.endpoint import is_service
from scrapy_captcha.errors import ImageError
from scrapy_captcha.image import MAX_BYTES
from scrapy_captcha.recognizer import Recognizer, allowed_classes, check_length
from scrapy_captcha.remote import RemoteReader

if TYPE_CHECKING:
    import argparse
    from contextlib import AbstractContextManager

    from scrapy.crawler import CrawlerProcessBase
    from scrapy.settings import Settings

    from scrapy_captcha.recognizer import Reader

CRAWLS = False


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument(
        "--model",
        metavar="BUNDLE",
        help="a shipped model, a folder or a service's URL (default: CAPTCHA_MODEL)",
    )
    parser.add_argument("--charset", help="only these characters are possible")
    parser.add_argument("--length", type=int, metavar="N", help="number of characters")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each file")


def run(opts: argparse.Namespace, settings: Settings, process: CrawlerProcessBase | None) -> int:  # noqa: ARG001
    """Print file, text and confidence of each image; what cannot be read goes to stderr."""
    with _reader(opts.model or settings.get("CAPTCHA_MODEL", "auto"), opts, settings) as reader:
        try:
            check_length(reader.manifest, opts.length)
            allowed_classes(reader.manifest, opts.charset)
        except ValueError as e:
            raise UsageError(str(e), print_help=False) from None
        return _read(reader, opts)


def _reader(
    model: str, opts: argparse.Namespace, settings: Settings
) -> AbstractContextManager[Reader]:
    if is_service(model):
        return closing(RemoteReader.connect(model, service_token(settings)))
    return nullcontext(Recognizer.load(model, opts.length))


def _read(reader: Reader, opts: argparse.Namespace) -> int:
    exit_code = 0
    for path in opts.files:
        try:
            recognition = reader.read(_bytes_of(path), opts.charset, opts.length)
        except (OSError, ImageError) as e:
            exit_code = 1
            reason = (e.strerror if isinstance(e, OSError) else None) or str(e)
            print(f"{path}: {reason}", file=sys.stderr)
            if opts.json:
                _print_json({"file": str(path), "error": reason})
            continue
        if opts.json:
            _print_json({"file": str(path), **asdict(recognition)})
        else:
            print(path, recognition.text, f"{recognition.confidence:.3f}", sep="\t")
    return exit_code


def _bytes_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)  # enough to be refused for its size


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, ensure_ascii=False))
