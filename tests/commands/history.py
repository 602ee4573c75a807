"""Datasets for the tests of ``scrapy captcha stats``, written as a crawl would have."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from scrapy_captcha.naming import encode_label, site_folder

if TYPE_CHECKING:
    from pathlib import Path

START = datetime(2026, 11, 1, tzinfo=UTC)
PNG = b"\x89PNG\r\n\x1a\n"


class Written:
    """A site's folder, and the attempts that are added to it, a minute apart."""

    def __init__(self, root: Path, key: str = "shop.example") -> None:
        self.key = key
        self.folder = root / site_folder(key)
        for name in ("confirmed", "rejected", "attempts"):
            (self.folder / name).mkdir(parents=True)
        self.attempts = self.folder / "attempts" / f"host-1-{1:032x}.jsonl"
        self.count = 0

    def line(self, image: bytes, guess: str, verdict: str, **changes: object) -> None:
        """Add a line alone."""
        data = {
            "schema": 1,
            "time": (START + timedelta(minutes=self.count)).isoformat(timespec="milliseconds"),
            "site": self.key,
            "image": hashlib.sha256(image).hexdigest(),
            "guess": guess,
            "confidence": 0.9,
            "model": "0123abcd0123abcd",
            "verdict": verdict,
            **changes,
        }
        self.count += 1
        with self.attempts.open("a", encoding="utf-8") as file:
            file.write(json.dumps(data) + "\n")

    def add(
        self, accepted: bool, guess: str = "ab12", image: bytes | None = None, **changes: object
    ) -> Path:
        """Add an answer with its image; the image's file."""
        image = PNG + str(self.count).encode() if image is None else image
        digits = hashlib.sha256(image).hexdigest()[:16]
        name = f"confirmed/{encode_label(guess)}_{digits}" if accepted else f"rejected/{digits}"
        path = self.folder / f"{name}.png"
        path.write_bytes(image)
        self.line(image, guess, "accepted" if accepted else "rejected", **changes)
        return path
