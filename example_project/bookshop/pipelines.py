"""What happens to an item between the spider and the feed."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

from itemadapter import ItemAdapter
from scrapy.exceptions import DropItem


class PriceToDecimal:
    """Make the price as printed ("12.50 EUR") a Decimal."""

    def process_item(self, item: Any) -> Any:
        """Return the item with its price converted, or drop it for want of a name or price."""
        adapter = ItemAdapter(item)
        if not adapter["name"]:
            raise DropItem(f"no name: {adapter['url']}")
        try:
            adapter["price"] = Decimal(str(adapter["price"]).removesuffix("EUR").strip())
        except InvalidOperation:
            raise DropItem(f"no price: {adapter['url']}") from None
        return item


class DropDuplicates:
    """Let each name through once."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def process_item(self, item: Any) -> Any:
        """Return the item, or drop it when its name has been seen."""
        name = ItemAdapter(item)["name"]
        if name in self.seen:
            raise DropItem(f"seen before: {name}")
        self.seen.add(name)
        return item
