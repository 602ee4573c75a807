"""How well a bundle reads labelled images, measured as the crawl would use it."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scrapy_captcha.bundle import MODEL
from scrapy_captcha.errors import DatasetError, ImageError
from scrapy_captcha.recognizer import Recognizer
from trainer.calibration import calibration_error, coverage, wilson
from trainer.corpus import fold, gather, name_some, sort_out
from trainer.quiet import quiet

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

    from scrapy_captcha.recognizer import Recognition

PRECISION = 0.99


@dataclass(frozen=True)
class Score:
    """What comes of comparing readings with labels.

    Args:
        n: number of images.
        hits: how many were read right from the first character to the last.
        per_position: share of right characters at each position, over the labels that have one.
        calibration_error: expected calibration error of the confidence.
        coverage: share of images, most confident first, read right to 99 %.
    """

    n: int
    hits: int
    per_position: tuple[float, ...]
    calibration_error: float
    coverage: float

    @property
    def exact_match(self) -> float:
        """Share of images whose whole text was read right."""
        return self.hits / self.n if self.n else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the exact match."""
        return wilson(self.hits, self.n)

    def as_dict(self) -> dict[str, Any]:
        """The figures by the names that ``--json`` and the manifest use."""
        return {
            "exact_match": round(self.exact_match, 4),
            "n": self.n,
            "interval_95": [round(bound, 4) for bound in self.interval],
            "per_position": [round(share, 4) for share in self.per_position],
            "calibration_error": round(self.calibration_error, 4),
            "coverage_at_99": round(self.coverage, 4),
        }


def score(readings: Sequence[Recognition | None], labels: Sequence[str]) -> Score:
    """Compare readings with labels; ``None`` is an image that could not be read, an error."""
    texts = [reading.text if reading else "" for reading in readings]
    pairs = list(zip(texts, labels, strict=True))
    correct = [text == label for text, label in pairs]
    confidences = [reading.confidence if reading else 0.0 for reading in readings]
    positions = []
    for i in range(max(map(len, labels), default=0)):
        there = [text[i : i + 1] == label[i] for text, label in pairs if i < len(label)]
        positions.append(sum(there) / len(there))
    return Score(
        n=len(labels),
        hits=sum(correct),
        per_position=tuple(positions),
        calibration_error=calibration_error(confidences, correct),
        coverage=coverage(confidences, correct, PRECISION),
    )


@dataclass(frozen=True)
class Evaluation:
    """A score, and what it cost.

    Args:
        latency: median seconds from bytes to text, on one thread.
        unreadable: names of the files that do not decode; each counts as an error.
        conflicts: names of files whose image also stands under another label.
    """

    model: str
    score: Score
    latency: float
    model_bytes: int
    unreadable: tuple[str, ...]
    conflicts: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """One JSON object."""
        return {
            "model": self.model,
            **self.score.as_dict(),
            "latency_ms": round(self.latency * 1e3, 4),
            "model_bytes": self.model_bytes,
            "unreadable": list(self.unreadable),
            "conflicts": list(self.conflicts),
        }

    def as_table(self) -> str:
        """The same for people."""
        low, high = self.score.interval
        rows = {
            "model": f"{self.model} ({self.model_bytes:,} bytes)",
            "images": f"{self.score.n}",
            "exact match": f"{self.score.exact_match:.4f} (95 %: {low:.4f} to {high:.4f})",
            "per position": " ".join(f"{share:.4f}" for share in self.score.per_position),
            "calibration error": f"{self.score.calibration_error:.4f}",
            "coverage at 99 %": f"{self.score.coverage:.4f}",
            "latency": f"{self.latency * 1e3:.3f} ms (median, bytes to text, one thread)",
        }
        if self.unreadable:
            rows["unreadable"] = f"{len(self.unreadable)}: {name_some(self.unreadable)}"
        if self.conflicts:
            rows["two labels"] = f"{len(self.conflicts)}: {name_some(self.conflicts)}"
        return "\n".join(f"{name:<18} {value}" for name, value in rows.items())


def evaluate(
    paths: Iterable[str | os.PathLike[str]],
    model: str,
    *,
    charset: str | None = None,
    length: int | None = None,
) -> Evaluation:
    """Read every labelled image of the datasets with a bundle.

    Args:
        paths: what `trainer.corpus.gather` takes.
        model: a shipped name or the path of a bundle.
        charset: what the readings are limited to, as a rule's ``charset`` does.
        length: what their length is limited to.

    Raises:
        BundleError: when the model is missing or damaged.
        DatasetError: when there are no images, or the model cannot read that charset or length.
    """
    with quiet():
        recognizer = Recognizer.load(model)
    samples = fold(gather(paths), recognizer.manifest.case)
    readings: list[Recognition | None] = []
    times: list[float] = []
    unreadable: list[str] = []
    for sample in samples:
        start = time.perf_counter()
        try:
            readings.append(recognizer.read(sample.data, charset, length))
        except ImageError:
            readings.append(None)
            unreadable.append(sample.name)
        except ValueError as e:
            raise DatasetError(str(e)) from None
        else:
            times.append(time.perf_counter() - start)
    _, _, conflicts = sort_out(sample for sample in samples if sample.data)
    return Evaluation(
        model=model,
        score=score(readings, [sample.label for sample in samples]),
        latency=statistics.median(times) if times else 0.0,
        model_bytes=recognizer.bundle.manifest.files[MODEL].bytes,
        unreadable=tuple(unreadable),
        conflicts=tuple(conflicts),
    )
