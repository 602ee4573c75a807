"""``scrapy captcha stats DATASET``: what has become of each site's captchas."""

from __future__ import annotations

import argparse
import heapq
import io
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from scrapy_captcha.commands.stats_page import to_html
from scrapy_captcha.commands.stats_text import to_json, to_text
from scrapy_captcha.errors import DatasetError
from scrapy_captcha.history import look_at, site_folders
from scrapy_captcha.page import check_place, write
from scrapy_captcha.uncertain import candidates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scrapy.crawler import CrawlerProcessBase
    from scrapy.settings import Settings

    from scrapy_captcha.answers import Answers
    from scrapy_captcha.history import History

CRAWLS = False
LISTED = 20


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "dataset", type=Path, metavar="DATASET", help="what CAPTCHA_DATASET names, or a site in it"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots as well")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print one JSON object instead")
    output.add_argument(
        "--uncertain",
        type=_number,
        nargs="?",
        const=LISTED,
        metavar="N",
        help=f"list N files ({LISTED}) to label by hand instead, those that teach most first",
    )


def run(opts: argparse.Namespace, settings: Settings, process: CrawlerProcessBase | None) -> int:  # noqa: ARG001
    """Look at each site; what cannot be read goes to stderr."""
    if opts.html is not None:
        check_place(opts.html)
    sites, unreadable = [], []
    for folder in site_folders(opts.dataset):
        try:
            sites.append(look_at(folder))
        except DatasetError as e:
            unreadable.append(str(e))
    histories = [history for history, _ in sites]
    if opts.html is not None:
        write(opts.html, to_html(opts.dataset, histories))
    if opts.uncertain is not None:
        _say("\n".join(_uncertain(sites, opts.uncertain)), "surrogateescape")
    elif opts.json:
        _say(json.dumps(to_json(opts.dataset, histories), indent=1), "strict")
    else:
        _say(to_text(histories), "replace")
    unreadable += [name for history in histories for name in history.unreadable]
    for name in unreadable:
        print(f"cannot be read: {name}", file=sys.stderr)
    return 1 if unreadable else 0


def _number(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(
            f"expected a number of images, got {text!r}; the dataset goes before --uncertain"
        )
    return int(text)


def _uncertain(sites: Sequence[tuple[History, Answers]], number: int) -> list[str]:
    """The best images of all sites; a name that would look like two files is left out."""
    found = (
        candidate
        for history, answers in sites
        for candidate in candidates(history.folder, answers, history.labels)
        if not {"\n", "\r"} & set(candidate.name)
    )
    return [str(candidate.path) for candidate in heapq.nsmallest(number, found)]


def _say(text: str, errors: str) -> None:
    """Print text, if there is any; whoever reads it may stop before its end."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=errors)
    try:
        if text:
            print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
