"""A spider that knows nothing of captchas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import scrapy

from bookshop.items import Book

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from scrapy.http import Response


class BooksSpider(scrapy.Spider):
    """Follow the catalogue page by page and yield every book in it."""

    name = "books"

    async def start(self) -> AsyncIterator[Any]:
        """Ask for the home page."""
        yield scrapy.Request(self.settings["SHOP_URL"])

    def parse(self, response: Response) -> Iterator[Any]:
        """Follow the links of the home page and of each catalogue page."""
        yield from response.follow_all(
            response.css("a.catalogue::attr(href), a.next::attr(href)").getall()
        )
        yield from response.follow_all(response.css("a.book::attr(href)").getall(), self.parse_book)

    def parse_book(self, response: Response) -> Iterator[Book]:
        """Yield the book of a page."""
        yield Book(
            url=response.url,
            name=response.css("h1.name::text").get(),
            price=response.css(".price::text").get(),
        )
