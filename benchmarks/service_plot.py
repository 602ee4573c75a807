"""Draw what benchmarks/service.py measured.

python benchmarks/service_plot.py LOG IMAGE
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def plot(found: dict[str, Any], out: Path) -> None:
    """Goodput, and the times of our service's readings, by the rate of requests.

    Args:
        found: the log of service.py.
        out: where to; the suffix says in which format.

    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - the extra `dev` has it

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    goodput, times = figure.subplots(1, 2)
    for name, label in (("ours", "scrapy captcha serve"), ("article", "the article's server")):
        if name not in found:
            continue
        steps = found[name]["steps"]
        rates = [step["rate"] for step in steps]
        good = [step["good"] / step["seconds"] for step in steps]
        goodput.plot(rates, good, marker=".", label=label)
        if name == "ours":
            refused = [step["refused"] / step["seconds"] for step in steps]
            goodput.plot(rates, refused, marker=".", color="0.6", label="refused at once (429)")
            for key, what in (("p50", "median"), ("p99", "99 % within"), ("latest", "latest")):
                times.plot(rates, [step[key] for step in steps], marker=".", label=what)
            times.axvline(found[name]["capacity"], color="0.8", linestyle="--", zorder=0)
    goodput.set(xlabel="requests a second", ylabel="readings within 1 s, a second")
    goodput.set(xscale="log", yscale="symlog", ylim=(0, None))  # symlog: there may be none
    times.set(xlabel="requests a second", ylabel="ms from due to reading", yscale="log")
    times.set_xlim(0, None)
    for axes in (goodput, times):
        axes.grid(visible=True, alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(out, dpi=130)


def main() -> None:
    """Draw a log."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("log", type=Path, metavar="LOG")
    parser.add_argument("out", type=Path, metavar="IMAGE")
    options = parser.parse_args()
    plot(json.loads(options.log.read_text(encoding="utf-8")), options.out)


if __name__ == "__main__":
    main()
