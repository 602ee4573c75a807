"""What ``scrapy captcha stats`` has found, as one HTML page."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from scrapy_captcha.charts import Axis, Mark, Series, chart
from scrapy_captcha.commands.stats_text import (
    conflicts,
    facts,
    model_name,
    second,
    size,
)
from scrapy_captcha.drift import WINDOW
from scrapy_captcha.naming import shown
from scrapy_captcha.page import document, figure, section, table, tiles

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from scrapy_captcha.history import History, Stretch

WIDTH = 880


def to_html(dataset: Path, histories: Sequence[History]) -> str:
    """The page, with plots and all in one file; what sites and files are called is escaped."""
    return document(
        f"Captchas in {shown(str(dataset))}",
        [section(shown(history.site), *_parts(history)) for history in histories],
    )


def plot(history: History) -> str:
    """The share accepted of the last 100 answers over time, with its interval, as SVG.

    A line stands where a model read its first answer.
    """
    times = history.times

    def at(answer: float) -> str:
        return second(float(times[min(len(times), max(1, round(answer))) - 1]))

    low, high = (1, len(times)) if len(times) > 1 else (0, 1)
    return chart(
        Axis("answers judged, with the time (UTC)", low, high, at),
        Axis(f"accepted of the last {WINDOW}", 0.0, 1.0),
        [
            Series(
                "accepted",
                [(number, share) for number, share, _, _ in history.curve],
                band=[(number, bottom, top) for number, _, bottom, top in history.curve],
            )
        ],
        marks=[
            Mark(use.first, shown(use.model[:8]), f"{model_name(use)}, first used {at(use.first)}")
            for use in history.models
        ],
        width=WIDTH,
    )


def _parts(history: History) -> list[str]:
    notes = [*conflicts(history), *history.notes]
    notes += [f"cannot be read: {name}" for name in history.unreadable]
    tail = [
        table(("", ""), facts(history)),
        f"<ul class='notes'>{''.join(f'<li>{escape(shown(note))}</li>' for note in notes)}</ul>",
    ]
    total, last = history.total, history.last
    if total is None or last is None:
        return ["<p>No answer has been judged yet.</p>", *tail]
    figures = [
        ("answers", f"{total.judged:,}"),
        ("accepted", f"{total.share:.3f}"),
        ("95 % interval", "{:.3f} - {:.3f}".format(*total.interval)),
        (f"accepted of the last {last.judged}", f"{last.share:.3f}"),
        ("models", f"{len(history.models):,}"),
        ("on the disk", size(history.bytes)),
    ]
    caption = (
        f"From {second(total.since)} to {second(total.until)}. The band is the 95 % interval; "
        "a dashed line stands where a model read its first answer."
    )
    used = [
        (model_name(use), use.version or "", second(use.answers.since), *_cells(use.answers))
        for use in reversed(history.models)
    ]
    stretches = [
        (second(stretch.since), second(stretch.until), *_cells(stretch))
        for stretch in history.stretches
    ]
    counts = ("answers", "accepted", "share", "95 % interval")
    warning = f"<p><b>{escape(history.drift)}</b></p>" if history.drift else ""
    return [
        tiles(figures),
        warning,
        figure(plot(history), caption),
        *tail,
        "<h3>By model, the latest first</h3>",
        table(("model", "version", "first used", *counts), used),
        "<h3>Over time</h3>",
        table(("from", "to", *counts), stretches),
    ]


def _cells(stretch: Stretch) -> tuple[str, ...]:
    low, high = stretch.interval
    return (
        f"{stretch.judged:,}",
        f"{stretch.accepted:,}",
        f"{stretch.share:.3f}",
        f"{low:.3f} - {high:.3f}",
    )
