"""How often the drift warning is false, and how soon it comes when acceptance falls.

    python benchmarks/drift.py [--runs N]

False: the share of crawls of 10,000 answers, all accepted with the same probability, that end with
a warning. Soon: how many answers after a fall it came, of crawls that had 1,000 answers before it.
"""

from __future__ import annotations

import argparse
import random
from statistics import median

from scrapy_captcha.drift import Drift

ANSWERS = 10_000
SHARES = (0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.98, 0.99)
FALLS = ((0.95, 0.85), (0.95, 0.7), (0.9, 0.7), (0.9, 0.5), (0.8, 0.5), (0.5, 0.2))
BEFORE, AFTER = 1000, 1000


def warned_after(chances: list[float], rng: random.Random) -> int | None:
    """After how many answers the warning came, if it did."""
    drift = Drift()
    for number, chance in enumerate(chances, 1):
        if drift.add(rng.random() < chance):
            return number
    return None


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000, metavar="N")
    runs = parser.parse_args().runs
    rng = random.Random(1)
    print(f"false warnings in {ANSWERS} answers, {runs} crawls each")
    for share in SHARES:
        false = sum(warned_after([share] * ANSWERS, rng) is not None for _ in range(runs))
        print(f"  {share:4.0%} accepted: {false / runs:.3f}", flush=True)
    print(f"answers until the warning, {runs} crawls each")
    for before, after in FALLS:
        chances = [before] * BEFORE + [after] * AFTER
        found = [warned_after(chances, rng) for _ in range(runs)]
        delays = [number - BEFORE for number in found if number is not None and number > BEFORE]
        late = sorted(delays)[int(0.95 * len(delays))] if delays else 0
        print(
            f"  {before:.0%} -> {after:.0%}: warned {len(delays) / runs:.3f},"
            f" median {median(delays or [0]):.0f}, 95 % within {late}",
            flush=True,
        )


if __name__ == "__main__":
    main()
