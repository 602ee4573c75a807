"""Draw the picture of docs/watching.md: the plot of ``scrapy captcha stats`` for a made-up site.

    python benchmarks/watching.py docs/images/acceptance.svg

The site is read by the shipped model at first, by four models of its own later, and changes its
captchas in the end. What it says is drawn at random, with a fixed seed; the plot is the command's.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from scrapy_captcha.commands.stats_page import plot
from scrapy_captcha.history import look_at
from scrapy_captcha.page import STYLE

#: How many answers a model reads, and the chance that one is right.
MODELS = ((150, 0.25), (200, 0.55), (250, 0.8), (400, 0.9), (1000, 0.95), (200, 0.55))
START = datetime(2026, 11, 2, 8, tzinfo=UTC)


def write_history(site: Path) -> None:
    """Write a site's attempts file."""
    rng = random.Random(3)
    (site / "attempts").mkdir(parents=True)
    time = START
    with (site / "attempts" / f"crawler-1-{1:032x}.jsonl").open("w", encoding="utf-8") as file:
        for number, (answers, chance) in enumerate(MODELS):
            model = min(number, len(MODELS) - 2)  # the last one stays when the captchas change
            for _ in range(answers):
                time += timedelta(seconds=rng.expovariate(1 / 6))
                attempt = {
                    "schema": 1,
                    "time": time.isoformat(timespec="milliseconds"),
                    "site": "shop.example",
                    "image": hashlib.sha256(time.isoformat().encode()).hexdigest(),
                    "guess": "1a8m",
                    "confidence": chance,
                    "model": hashlib.sha256(bytes([model])).hexdigest()[:16],
                    "verdict": "accepted" if rng.random() < chance else "rejected",
                }
                file.write(json.dumps(attempt) + "\n")


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="FILE")
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        write_history(Path(folder) / "shop.example")
        drawn = plot(look_at(Path(folder) / "shop.example")[0])
    style = "svg{background:light-dark(#fff,#14181e);font-family:system-ui,sans-serif}"
    drawn = drawn.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    out.write_text(
        drawn.replace("</title>", f"</title><style>{STYLE}{style}</style>", 1) + "\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
