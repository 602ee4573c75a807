"""The entry point of ``scrapy captcha``, which hands on to the subcommands' modules.

Scrapy loads it for every command line, so it imports none of them until it is asked for.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

from scrapy.commands import ScrapyCommand, ScrapyHelpFormatter

from scrapy_captcha.errors import CaptchaError

if TYPE_CHECKING:
    from scrapy.crawler import CrawlerProcessBase
    from scrapy.settings import Settings

#: Each is a module of this package, a :class:`Subcommand`.
SUBCOMMANDS = {
    "check": "say whether a page is a captcha page, and what rule it needs",
    "read": "read captcha images from files",
    "serve": "read the images of other programs over HTTP",
    "stats": "say what has become of each site's captchas",
}


class Subcommand(Protocol):
    """What a subcommand's module holds.

    :ivar CRAWLS: whether it needs Scrapy's crawler process
    """

    CRAWLS: bool

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Declare its arguments."""

    def run(
        self, opts: argparse.Namespace, settings: Settings, process: CrawlerProcessBase | None
    ) -> int:
        """Do it.

        :return: the exit code
        :raises CaptchaError: shown to the user, with exit code 1
        :raises UsageError: shown to the user, with exit code 2
        """


class Command(ScrapyCommand):
    """``scrapy captcha SUBCOMMAND``."""

    default_settings: ClassVar[dict[str, Any]] = {"LOG_LEVEL": "ERROR"}

    def syntax(self) -> str:
        """What follows the command's name."""
        return f"[options] {{{','.join(SUBCOMMANDS)}}} ..."

    def short_desc(self) -> str:
        """For the list of commands."""
        return "Check what a captcha page needs, read or serve images, watch what was learnt"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Declare the subcommand and, as they come, its arguments."""
        super().add_options(parser)
        summaries = "; ".join(f"{name}: {summary}" for name, summary in SUBCOMMANDS.items())
        parser.add_argument("subcommand", choices=SUBCOMMANDS, help=summaries)
        parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)

    def process_options(self, args: list[str], opts: argparse.Namespace) -> None:
        """Parse the subcommand's arguments, with Scrapy's global options among them."""
        name = opts.subcommand
        self._subcommand = cast("Subcommand", import_module(f"scrapy_captcha.commands.{name}"))
        parser = argparse.ArgumentParser(
            prog=f"scrapy captcha {name}",
            description=SUBCOMMANDS[name].capitalize(),
            formatter_class=ScrapyHelpFormatter,
        )
        self._subcommand.add_options(parser)
        super().add_options(parser)
        # what was given before the subcommand's name stays
        parser.parse_args([*args, *opts.arguments], namespace=opts)
        super().process_options(args, opts)
        self.requires_crawler_process = self._subcommand.CRAWLS

    def run(self, args: list[str], opts: argparse.Namespace) -> None:  # noqa: ARG002
        """Run the subcommand."""
        assert self.settings is not None
        try:
            self.exitcode = self._subcommand.run(opts, self.settings, self.crawler_process)
        except CaptchaError as e:
            print(f"scrapy captcha {opts.subcommand}: {e}", file=sys.stderr)
            self.exitcode = 1
