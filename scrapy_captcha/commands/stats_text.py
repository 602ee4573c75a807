"""What ``scrapy captcha stats`` has found, as text and as JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from scrapy_captcha.naming import CONFIRMED_FOLDER, QUARANTINED_FOLDER, REJECTED_FOLDER, shown
from scrapy_captcha.verify import DAMAGED_FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from scrapy_captcha.history import History, ModelUse, Stretch

#: At most so many models are listed, the latest.
MODELS = 12
#: At most so many conflicts and odd files are.
SHOWN = 10
_BARS = "▁▂▃▄▅▆▇█"


def to_text(histories: Sequence[History]) -> str:
    """What to read in a terminal."""
    head = ("site", "answers", "accepted", "share", "95 %", "last 100", "over time", "disk")
    overview = [head, *(_row(history) for history in histories)]
    return "\n\n".join([_aligned(overview), *("\n".join(_details(h)) for h in histories)])


def to_json(dataset: Path, histories: Sequence[History]) -> dict[str, Any]:
    """Plain values, the same keys whatever was found; times are ISO 8601 in UTC."""
    return {"dataset": str(dataset), "sites": [_site_json(history) for history in histories]}


def second(seconds: float) -> str:
    """A time in UTC, to the second."""
    return _moment(seconds).strftime("%Y-%m-%d %H:%M:%S")


def size(number: int) -> str:
    """Bytes in a unit that fits."""
    value, unit = float(number), "bytes"
    for larger in ("KB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{number} bytes" if unit == "bytes" else f"{value:.1f} {unit}"


def facts(history: History) -> Iterator[tuple[str, str]]:
    """Name and value of what is known besides the shares."""
    accepted, rejected = history.canaries
    labels = history.labels
    by_hand = f", {len(labels.by_hand):,} of them by hand" if labels.by_hand else ""
    yield "drift", history.drift or "none"
    yield "labelled", f"{len(labels.images):,} images{by_hand}"
    yield "rejected", f"{history.files(REJECTED_FOLDER):,} images"
    yield "conflicts", f"{len(labels.conflicts):,} images with several labels"
    yield "canaries", f"{rejected:,} rejected, {accepted:,} accepted"
    now = "; what the site accepts now does not count" if history.quarantined else ""
    yield "quarantined", f"{history.files(QUARANTINED_FOLDER):,} images{now}"
    if history.files(DAMAGED_FOLDER):
        yield "damaged", f"{history.files(DAMAGED_FOLDER):,} files"
    parts = (f"{name} {size(taken)}" for name, (_, taken) in history.folders.items())
    yield "disk", f"{size(history.bytes)} ({', '.join(map(shown, parts))})"


def conflicts(history: History) -> list[str]:
    """The files of images with several labels, a line an image."""
    lines = [", ".join(names) for names in history.labels.conflicts.values()]
    rest = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return [*lines[:SHOWN], *rest]


def model_name(use: ModelUse) -> str:
    """A model's hash, and whether crawls read with it now."""
    return shown(use.model) + (" (current)" if use.current else "")


def _row(history: History) -> tuple[str, ...]:
    total, last = history.total, history.last
    if total is None or last is None:
        return (shown(history.site), "0", "0", "-", "-", "-", "-", size(history.bytes))
    return (
        shown(history.site),
        f"{total.judged:,}",
        f"{total.accepted:,}",
        f"{total.share:.3f}",
        _interval(total),
        f"{last.share:.3f}",
        "".join(_BARS[min(7, int(8 * stretch.share))] for stretch in history.stretches),
        size(history.bytes),
    )


def _details(history: History) -> Iterator[str]:
    yield f"{shown(history.site)} ({shown(str(history.folder))})"
    yield from (f"  {name:<11} {value}" for name, value in facts(history))
    yield from (f"    {shown(line)}" for line in conflicts(history))
    yield from (f"  note        {shown(note)}" for note in history.notes[:SHOWN])
    if history.total is None:
        return
    yield ""
    head = ("from", "to", "answers", "accepted", "share", "95 %")
    yield _aligned([head, *(_stretch_row(stretch) for stretch in history.stretches)], "  ")
    yield ""
    head = ("model", "first used", "answers", "accepted", "share", "95 %")
    rows = [
        (model_name(use), second(use.answers.since), *_stretch_row(use.answers)[2:])
        for use in history.models[-MODELS:]
    ]
    yield _aligned([head, *rows], "  ")
    if len(history.models) > MODELS:
        yield f"  and {len(history.models) - MODELS} models before these"


def _stretch_row(stretch: Stretch) -> tuple[str, ...]:
    return (
        second(stretch.since),
        second(stretch.until),
        f"{stretch.judged:,}",
        f"{stretch.accepted:,}",
        f"{stretch.share:.3f}",
        _interval(stretch),
    )


def _interval(stretch: Stretch) -> str:
    low, high = stretch.interval
    return f"{low:.3f} - {high:.3f}"


def _aligned(rows: Sequence[Sequence[str]], indent: str = "") -> str:
    """Columns; those with a figure in the second row are aligned at the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = [cell.replace(",", "").replace(".", "").isdigit() for cell in rows[-1]]
    return "\n".join(
        indent
        + "  ".join(
            cell.rjust(width) if figure else cell.ljust(width)
            for cell, width, figure in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in rows
    )


def _site_json(history: History) -> dict[str, Any]:
    accepted, rejected = history.canaries
    labels = history.labels
    return {
        "site": history.site,
        "folder": str(history.folder),
        "answers": _stretch_json(history.total),
        "last": _stretch_json(history.last),
        "over_time": [_stretch_json(stretch) for stretch in history.stretches],
        "models": [
            {
                "model": use.model,
                "version": use.version,
                "current": use.current,
                "first_answer": use.first,
                **_stretch_json(use.answers),
            }
            for use in history.models
        ],
        "drift": history.drift,
        "images": {
            "labelled": len(labels.images),
            "by_hand": len(labels.by_hand),
            CONFIRMED_FOLDER: history.files(CONFIRMED_FOLDER),
            REJECTED_FOLDER: history.files(REJECTED_FOLDER),
            QUARANTINED_FOLDER: history.files(QUARANTINED_FOLDER),
            DAMAGED_FOLDER: history.files(DAMAGED_FOLDER),
        },
        "conflicts": [
            {"image": image, "files": list(names)} for image, names in labels.conflicts.items()
        ],
        "canaries": {"accepted": accepted, "rejected": rejected},
        "quarantine": history.quarantined,
        "bytes": {
            "total": history.bytes,
            "folders": {name: taken for name, (_, taken) in history.folders.items()},
        },
        "notes": list(history.notes),
        "unreadable": list(history.unreadable),
    }


def _stretch_json(stretch: Stretch | None) -> dict[str, Any]:
    if stretch is None:
        nothing = dict.fromkeys(("share", "interval_95", "since", "until"))
        return {"judged": 0, "accepted": 0, **nothing}
    return {
        "judged": stretch.judged,
        "accepted": stretch.accepted,
        "share": round(stretch.share, 4),
        "interval_95": [round(bound, 4) for bound in stretch.interval],
        "since": _moment(stretch.since).isoformat(timespec="milliseconds"),
        "until": _moment(stretch.until).isoformat(timespec="milliseconds"),
    }


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
