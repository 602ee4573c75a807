"""One page on a bundle: how it learnt, what it reads, what it takes for what, and where it errs."""

from __future__ import annotations

import base64
import platform
from collections import Counter
from dataclasses import dataclass, field
from html import escape
from importlib import metadata
from io import BytesIO
from typing import TYPE_CHECKING

from PIL import Image

from scrapy_captcha import charts
from scrapy_captcha.errors import ImageError
from scrapy_captcha.image import decode
from scrapy_captcha.page import document, figure, section, table, tiles
from trainer.calibration import precision_curve, reliability
from trainer.corpus import name_some

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scrapy_captcha.recognizer import Recognition
    from trainer.corpus import Sample
    from trainer.evaluate import Evaluation, Score
    from trainer.loop import Epoch

#: So many wrong images are shown, the most confident first, at most this large.
SHOWN_IMAGES = 60
SHOWN_SIZE = (220, 90)
SHOWN_PAIRS = 15
#: The matrix has at most so many characters, those with the most errors.
MATRIX = 64


@dataclass(frozen=True)
class Report:
    """What a page is made of.

    Args:
        title: the bundle's name.
        about: what was read: "52 images held out", "the 80 images that it was trained on".
        samples: the images, with the labels that count.
        readings: what was read in each, ``None`` for an image that does not decode.
        score: the same in figures.
        measured: whether the images are new to the bundle; else most figures say nothing.
        before: what the base made of the same images, if it can read them.
        history: the epochs; empty if it was not trained here.
        notes: what the user should know, a line each.
        settings: what it was trained with, or how it was measured.
        versions: of what the result depends on.
    """

    title: str
    about: str
    samples: Sequence[Sample]
    readings: Sequence[Recognition | None]
    score: Score
    measured: bool = True
    before: Score | None = None
    history: Sequence[Epoch] = ()
    notes: Sequence[str] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def to_html(self) -> str:
        """The page, with pictures and all in one file."""
        sections = [
            _headline(self),
            *_curves(self.history),
            *_positions(self.score),
            *_confusions(self),
            *(_trust(self) if self.measured else []),
            *_wrongest(self),
            section("Settings", table(("", ""), self.settings.items())),
            section("Versions", table(("", ""), self.versions.items())),
        ]
        return document(self.title, sections, STYLE)


def of_evaluation(found: Evaluation, settings: Mapping[str, object]) -> Report:
    """The report on a bundle that was measured on a dataset.

    Args:
        found: what came of it.
        settings: how it was measured.
    """
    manifest = found.manifest
    doubt = found.score.calibration_warning
    return Report(
        title=manifest.name,
        about=f"{found.score.n} images",
        samples=found.samples,
        readings=found.readings,
        score=found.score,
        notes=[
            *([doubt] if doubt else []),
            *(f"{what}: {name_some(names)}" for what, names in found.oddities.items()),
        ],
        settings={
            "model": found.model,
            "characters": manifest.charset,
            "lengths": f"{manifest.min_length} to {manifest.length}",
            "size of the model file": f"{found.model_bytes:,} bytes",
            "bytes to text, one thread, median": f"{found.latency * 1e3:.3f} ms",
            **{name: value for name, value in settings.items() if value},
        },
        versions={
            "python": platform.python_version(),
            "ai-edge-litert": metadata.version("ai-edge-litert"),
            "numpy": metadata.version("numpy"),
            "pillow": metadata.version("pillow"),
        },
    )


def _headline(report: Report) -> str:
    found, (low, high) = report.score, report.score.interval
    figures = {
        "exact match": f"{found.exact_match:.4f}",
        "95 % interval": f"{low:.4f} - {high:.4f}",
    }
    if report.before:
        figures["before"] = f"{report.before.exact_match:.4f}"
    if found.merged_hits is not None:
        figures["look-alikes merged"] = f"{found.merged_hits / max(1, found.n):.4f}"
    if report.measured:
        figures["calibration error"] = f"{found.calibration_error:.4f}"
        figures["coverage at 99 %"] = f"{found.coverage:.4f}"
    else:
        figures = {"right": f"{found.hits} of {found.n}"}
    notes = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
    done = "Measured" if report.measured else "Shown"
    return (
        f"<p>{done} on {escape(report.about)}.</p>{tiles(figures.items())}"
        f"<ul class='notes'>{notes}</ul>"
    )


def _curves(history: Sequence[Epoch]) -> list[str]:
    if not history:
        return []
    steps = [epoch.step for epoch in history]
    x = charts.around("step", steps, floor=0.0)
    lines = [charts.Series("training loss", [(e.step, e.loss) for e in history])]
    held = [(e.step, e.holdout_loss) for e in history if e.holdout_loss is not None]
    if held:
        lines.append(charts.Series("loss on the holdout", held))
    y = charts.around("loss", [value for line in lines for _, value in line.points], floor=0.0)
    drawn = charts.chart(x, y, lines)
    exact = [(e.step, e.exact_match) for e in history if e.exact_match is not None]
    if not exact:
        return [section("Training", figure(drawn, "No images were held out to compare with."))]
    best = max((e for e in history if e.best), key=lambda e: e.number)
    y = charts.Axis("exact match on the holdout", 0.0, 1.0)
    lines = [
        charts.Series("each epoch", exact),
        charts.Series("the epoch that was kept", [(best.step, best.exact_match or 0.0)]),
    ]
    text = "The holdout is read with averaged weights; the training loss is smoothed and augmented."
    return [section("Training", figure(drawn, text), figure(charts.chart(x, y, lines), ""))]


def _positions(found: Score) -> list[str]:
    rows = [
        (i, f"{share:.4f}", f'<meter min="0" max="1" value="{share:.4f}"></meter>')
        for i, share in enumerate(found.per_position, 1)
    ]
    shares = table(("position", "right", ""), rows, raw=2)
    return [section("Accuracy per position", shares)] if rows else []


def _confusions(report: Report) -> list[str]:
    pairs: Counter[tuple[str, str]] = Counter()
    seen: Counter[str] = Counter()
    other_length = 0
    for sample, reading in zip(report.samples, report.readings, strict=True):
        text = reading.text if reading else ""
        seen.update(sample.label)
        if len(text) != len(sample.label):
            other_length += 1
            continue
        pairs.update((a, b) for a, b in zip(sample.label, text, strict=True) if a != b)
    involved: Counter[str] = Counter()
    for pair, n in pairs.items():
        involved.update(dict.fromkeys(pair, n))
    rows = [(a, b, n, f"{n / seen[a]:.3f}") for (a, b), n in pairs.most_common(SHOWN_PAIRS)]
    parts = []
    if rows:
        names = "".join(sorted(name for name, _ in involved.most_common(MATRIX)))
        parts = [
            table(("true", "read as", "times", "share of the character"), rows),
            figure(charts.matrix(names, pairs), "True characters down, what was read across."),
        ]
    if other_length:
        parts.append(f"<p>{other_length} readings of another length are not in this.</p>")
    return [section("Confusion of characters", *(parts or ["<p>None.</p>"]))]


def _trust(report: Report) -> list[str]:
    """Whether the confidences are true, and what a threshold on them would leave."""
    labels = [sample.label for sample in report.samples]
    sure = [reading.confidence if reading else 0.0 for reading in report.readings]
    right = [
        reading is not None and reading.text == label
        for reading, label in zip(report.readings, labels, strict=True)
    ]
    bins, cuts = reliability(sure, right), precision_curve(sure, right)
    most = max((b.n for b in bins), default=1)
    dots = charts.Series(
        "readings",
        [(b.confidence, b.right) for b in bins],
        [2.5 + 4.5 * (b.n / most) ** 0.5 for b in bins],
    )
    share = charts.Axis("share read right", 0.0, 1.0)
    reliable = charts.chart(charts.Axis("confidence", 0.0, 1.0), share, [dots], diagonal=True)
    error = (
        f"Expected calibration error {report.score.calibration_error:.4f}; "
        f"{report.score.chance_error:.4f} would be chance. True confidences are on the dashed line."
    )
    lowest = min((cut.precision for cut in cuts), default=0.0)
    curve = charts.chart(
        charts.Axis("share of images answered", 0.0, 1.0),
        charts.around("share of those read right", [lowest, 1.0], min(0.98, lowest)),
        [charts.Series("readings", [(cut.coverage, cut.precision) for cut in cuts])],
    )
    rows = []
    for wanted in (0.9, 0.95, 0.99, 0.999):
        cut = next((cut for cut in reversed(cuts) if cut.precision >= wanted), None)
        rows.append(
            (f"{wanted:.1%}", f"{cut.coverage:.4f}", f"{cut.confidence:.3f}")
            if cut
            else (f"{wanted:.1%}", "0", "-")
        )
    reached = table(("right of those answered", "answered", "from confidence"), rows)
    return [
        section("Calibration", figure(reliable, error)),
        section("Coverage and precision", figure(curve, ""), reached),
    ]


def _wrongest(report: Report) -> list[str]:
    wrong = [
        (sample, reading)
        for sample, reading in zip(report.samples, report.readings, strict=True)
        if reading is None or reading.text != sample.label
    ]
    wrong.sort(key=lambda pair: pair[1].confidence if pair[1] else -1.0, reverse=True)
    figures = []
    for sample, reading in wrong[:SHOWN_IMAGES]:
        said = (
            f"{escape(reading.text)} <i>{reading.confidence:.3f}</i>" if reading else "unreadable"
        )
        figures.append(
            f'<figure title="{escape(sample.name)}">{_picture(sample.data)}'
            f"<figcaption><b>{escape(sample.label)}</b> read as {said}</figcaption></figure>"
        )
    text = f"{len(wrong)} of {len(report.samples)} are wrong"
    text += f", the {SHOWN_IMAGES} most confident of them first." if wrong[SHOWN_IMAGES:] else "."
    title = "Wrong, the most confident first" if report.measured else "Still wrong after training"
    return [section(title, f"<p>{text}</p>", f"<div class='wrong'>{''.join(figures)}</div>")]


def _picture(data: bytes) -> str:
    """An image as it is decoded for the network, small, as a data URI."""
    try:
        image = Image.fromarray(decode(data))
    except ImageError:
        return ""
    image.thumbnail(SHOWN_SIZE)
    stream = BytesIO()
    image.save(stream, "PNG")
    return (
        f'<img alt="" src="data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}">'
    )


STYLE = """
.wrong{display:flex;flex-wrap:wrap;gap:.7rem}
.wrong figure{margin:0;background:var(--card);border-radius:8px;padding:.5rem;text-align:center}
.wrong img{display:block;margin:0 auto .3rem;max-width:100%}
.wrong b,.wrong i{font-family:ui-monospace,monospace}
.cell{fill:var(--b)}.same{fill:var(--card)}
""".replace("\n", "")
