"""How well a bundle reads labelled images, measured as the crawl would use it."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scrapy_captcha.bundle import MODEL
from scrapy_captcha.errors import DatasetError, ImageError
from scrapy_captcha.intervals import wilson
from scrapy_captcha.recognizer import Recognizer
from trainer.calibration import calibration_error, chance_error, coverage
from trainer.corpus import fold, gather, name_some, sort_out
from trainer.quiet import quiet

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

    from scrapy_captcha.bundle import Manifest
    from scrapy_captcha.recognizer import Recognition
    from trainer.corpus import Sample

PRECISION = 0.99
#: A confidence that is further off than this on average deserves a warning.
CALIBRATED = 0.03


@dataclass(frozen=True)
class Score:
    """What comes of comparing readings with labels.

    Args:
        n: number of images.
        hits: how many were read right from the first character to the last.
        per_position: share of right characters at each position, over the labels that have one.
        calibration_error: expected calibration error of the confidence.
        chance_error: what of that is to be expected of so many images, were each confidence true.
        coverage: share of images, most confident first, read right to 99 %.
        merged_hits: how many are right if look-alikes count as one character, if that was asked.
    """

    n: int
    hits: int
    per_position: tuple[float, ...]
    calibration_error: float
    chance_error: float
    coverage: float
    merged_hits: int | None = None

    @property
    def exact_match(self) -> float:
        """Share of images whose whole text was read right."""
        return self.hits / self.n if self.n else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the exact match."""
        return wilson(self.hits, self.n)

    @property
    def calibration_warning(self) -> str | None:
        """A line on confidences that are too far off, if they are."""
        if self.calibration_error <= CALIBRATED:
            return None
        return (
            f"the calibration error is {self.calibration_error:.4f}, more than {CALIBRATED}: "
            f"confidences are rough ({self.n} images alone explain {self.chance_error:.4f})"
        )

    def as_dict(self) -> dict[str, Any]:
        """The figures by the names that ``--json`` and the manifest use."""
        merged = {}
        if self.merged_hits is not None:
            merged = {
                "exact_match_merged": round(self.merged_hits / max(1, self.n), 4),
                "interval_95_merged": [round(b, 4) for b in wilson(self.merged_hits, self.n)],
            }
        return {
            "exact_match": round(self.exact_match, 4),
            "n": self.n,
            "interval_95": [round(bound, 4) for bound in self.interval],
            **merged,
            "per_position": [round(share, 4) for share in self.per_position],
            "calibration_error": round(self.calibration_error, 4),
            "calibration_error_by_chance": round(self.chance_error, 4),
            "coverage_at_99": round(self.coverage, 4),
        }


def score(
    readings: Sequence[Recognition | None], labels: Sequence[str], merge: Sequence[str] = ()
) -> Score:
    """Compare readings with labels.

    Args:
        readings: ``None`` is an image that could not be read, an error.
        labels: the true texts.
        merge: groups of characters that count as one in `Score.merged_hits`, like ``("0o",)``.
    """
    texts = [reading.text if reading else "" for reading in readings]
    pairs = list(zip(texts, labels, strict=True))
    correct = [text == label for text, label in pairs]
    confidences = [reading.confidence if reading else 0.0 for reading in readings]
    positions = []
    for i in range(max(map(len, labels), default=0)):
        there = [text[i : i + 1] == label[i] for text, label in pairs if i < len(label)]
        positions.append(sum(there) / len(there))
    alike = str.maketrans({c: group[0] for group in merge for c in group})
    merged = sum(text.translate(alike) == label.translate(alike) for text, label in pairs)
    return Score(
        n=len(labels),
        hits=sum(correct),
        per_position=tuple(positions),
        calibration_error=calibration_error(confidences, correct),
        chance_error=chance_error(confidences),
        coverage=coverage(confidences, correct, PRECISION),
        merged_hits=merged if merge else None,
    )


@dataclass(frozen=True)
class Evaluation:
    """A score, and what it cost.

    Args:
        samples: the images, labels folded to the bundle's case.
        readings: what was read in each; ``None`` for those that do not decode.
        latency: median seconds from bytes to text, on one thread.
        unreadable: names of the files that do not decode; each counts as an error.
        conflicts: names of files whose image also stands under another label.
        beyond: names of files whose label the bundle can never read, of a length or with a
            character that it does not have; each counts as an error.
    """

    model: str
    manifest: Manifest
    samples: tuple[Sample, ...]
    readings: tuple[Recognition | None, ...]
    score: Score
    latency: float
    unreadable: tuple[str, ...]
    conflicts: tuple[str, ...]
    beyond: tuple[str, ...]

    @property
    def model_bytes(self) -> int:
        """Size of the model file."""
        return self.manifest.files[MODEL].bytes

    def as_dict(self) -> dict[str, Any]:
        """One JSON object."""
        return {
            "model": self.model,
            **self.score.as_dict(),
            "latency_ms": round(self.latency * 1e3, 4),
            "model_bytes": self.model_bytes,
            "unreadable": list(self.unreadable),
            "conflicts": list(self.conflicts),
            "beyond_the_model": list(self.beyond),
        }

    def as_table(self) -> str:
        """The same for people."""
        found = self.score
        low, high = found.interval
        rows = {
            "model": f"{self.model} ({self.model_bytes:,} bytes)",
            "images": f"{found.n}",
            "exact match": f"{found.exact_match:.4f} (95 %: {low:.4f} to {high:.4f})",
        }
        if found.merged_hits is not None:
            low, high = wilson(found.merged_hits, found.n)
            share = found.merged_hits / max(1, found.n)
            rows["look-alikes merged"] = f"{share:.4f} (95 %: {low:.4f} to {high:.4f})"
        rows |= {
            "per position": " ".join(f"{share:.4f}" for share in found.per_position),
            "calibration error": f"{found.calibration_error:.4f} "
            f"({found.chance_error:.4f} by chance alone)",
            "coverage at 99 %": f"{found.coverage:.4f}",
            "latency": f"{self.latency * 1e3:.3f} ms (median, bytes to text, one thread)",
        }
        rows |= {what: f"{len(names)}: {name_some(names)}" for what, names in self.oddities.items()}
        return "\n".join(f"{name:<18}  {value}" for name, value in rows.items())

    @property
    def oddities(self) -> dict[str, tuple[str, ...]]:
        """Names of the files that are not as they should be, by what is odd about them."""
        kinds = {
            "unreadable": self.unreadable,
            "two labels": self.conflicts,
            "beyond the model": self.beyond,
        }
        return {what: names for what, names in kinds.items() if names}


def evaluate(
    paths: Iterable[str | os.PathLike[str]],
    model: str,
    *,
    charset: str | None = None,
    length: int | None = None,
    merge: Sequence[str] = (),
) -> Evaluation:
    """Read every labelled image of the datasets with a bundle.

    Args:
        paths: what `trainer.corpus.gather` takes.
        model: a shipped name or the path of a bundle.
        charset: what the readings are limited to, as a rule's ``charset`` does.
        length: what their length is limited to.
        merge: groups of characters that count as one, for a second exact match.

    Raises:
        BundleError: when the model is missing or damaged.
        DatasetError: when there are no images, or the model cannot read that charset or length.
    """
    with quiet():
        recognizer = Recognizer.load(model)
    manifest = recognizer.manifest
    samples = fold(gather(paths), manifest.case)
    readings: list[Recognition | None] = []
    times: list[float] = []
    present: list[Sample] = []
    for sample in samples:
        if data := sample.data:
            present.append(sample)
        start = time.perf_counter()
        try:
            readings.append(recognizer.read(data, charset, length))
        except ImageError:
            readings.append(None)
        except ValueError as e:
            raise DatasetError(str(e)) from None
        else:
            times.append(time.perf_counter() - start)
    _, _, conflicts = sort_out(present)
    lengths = range(manifest.min_length, manifest.length + 1)
    known = set(manifest.charset)
    groups = [group.lower() if manifest.case == "lower" else group for group in merge]
    return Evaluation(
        model=model,
        manifest=manifest,
        samples=tuple(samples),
        readings=tuple(readings),
        score=score(readings, [sample.label for sample in samples], groups),
        latency=statistics.median(times) if times else 0.0,
        unreadable=tuple(s.name for s, r in zip(samples, readings, strict=True) if r is None),
        conflicts=tuple(sample.name for sample in conflicts),
        beyond=tuple(
            s.name for s in samples if len(s.label) not in lengths or set(s.label) - known
        ),
    )
