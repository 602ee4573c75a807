"""What the spiders yield."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from decimal import Decimal


@dataclass
class Book:
    """A book as the shop lists it; the pipeline makes its price a Decimal."""

    url: str
    name: str | None
    price: str | Decimal | None
