"""A spider for a form that asks for a captcha each time it is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import scrapy

from bookshop.items import Book
from scrapy_captcha import captcha_form

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from scrapy.http import Response

NAMES = ("Amber Harbour", "The Copper Road", "Night Ferry", "Salt and Cedar", "Winter Almanac")


class SearchSpider(scrapy.Spider):
    """Look up five books by name: five forms sent, five captchas answered."""

    name = "search"

    async def start(self) -> AsyncIterator[Any]:
        """Ask for the search form."""
        yield scrapy.Request(self.settings["SHOP_URL"].rstrip("/") + "/search")

    def parse(self, response: Response) -> Iterator[scrapy.Request]:
        """Send the form once for each name; the captcha field is filled in on the way."""
        for name in NAMES:
            yield captcha_form(response, {"name": name}, callback=self.parse_result)

    def parse_result(self, response: Response) -> Iterator[Book]:
        """Yield the book that a search found."""
        yield Book(
            url=response.url,
            name=response.css("h1.name::text").get(),
            price=response.css(".price::text").get(),
        )
