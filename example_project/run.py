"""Run the example: start the bookshop, crawl it with both spiders, print what came, stop it.

    python run.py [--dataset DIR]

Exits with 0 when all books came and every search was answered.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from bookshop.spiders.search import NAMES as SEARCHED
from captcha_site import NAMES, Shop

PROJECT = Path(__file__).resolve().parent
# Scrapy's cookies ask the network for the list of public suffixes; the copy it comes with will do.
ENVIRONMENT = {**os.environ, "TLDEXTRACT_PUBLIC_SUFFIX_LIST_URLS": ""}


def crawl(spider: str, url: str, dataset: Path) -> list[dict[str, Any]]:
    """Run ``scrapy crawl`` in the project and return the items that it wrote."""
    with tempfile.TemporaryDirectory() as folder:
        feed = Path(folder, "items.json")
        settings = {
            "SHOP_URL": url,
            "CAPTCHA_DATASET": dataset,
            "HTTPPROXY_ENABLED": False,  # the shop is on this machine
            "LOG_LEVEL": "WARNING",
        }
        options = [part for name, value in settings.items() for part in ("-s", f"{name}={value}")]
        command = [sys.executable, "-m", "scrapy", "crawl", spider, "-O", str(feed), *options]
        subprocess.run(command, cwd=PROJECT, env=ENVIRONMENT, check=True)
        text = feed.read_text(encoding="utf-8")
    return json.loads(text) if text else []


def table(items: list[dict[str, Any]]) -> str:
    """Name and price of each item, in columns."""
    rows = sorted((item["name"], item["price"]) for item in items)
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"  {name:<{width}}  {price:>6}" for name, price in rows)


def main() -> int:
    """Run both crawls; 0 if each found what it was sent for."""
    parser = argparse.ArgumentParser(description="Crawl the example shop.")
    parser.add_argument("--dataset", type=Path, default=PROJECT / "captchas")
    dataset = parser.parse_args().dataset.resolve()
    complete = True
    with Shop() as shop:
        threading.Thread(target=shop.serve_forever, daemon=True).start()
        print(f"The shop is at {shop.url}")
        for spider, expected in (("books", NAMES), ("search", SEARCHED)):
            print(f"\nscrapy crawl {spider}", flush=True)
            items = crawl(spider, shop.url, dataset)
            print(table(items))
            print(f"{len(items)} of {len(expected)} items", flush=True)
            complete &= {item["name"] for item in items} == set(expected)
        shop.shutdown()
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
