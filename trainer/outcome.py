"""What came of a fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from scrapy_captcha.bundle import Bundle
    from trainer.checkpoint import Checkpoint
    from trainer.evaluate import Score
    from trainer.export import Packed
    from trainer.gate import Comparison
    from trainer.report import Report


@dataclass(frozen=True)
class Fitted:
    """A trained challenger, not written yet.

    Args:
        packed: the new version of the bundle.
        before: the base on the holdout, if there are both and it can read the task.
        after: the challenger on the same images, through LiteRT.
        report: the page on it.
        champion: the version that is there already.
        comparison: of the two, if there were images to compare them on.
        checkpoint: what the training would go on from; to be removed once all is written.
    """

    packed: Packed
    before: Score | None
    after: Score | None
    report: Report
    champion: Bundle | None
    comparison: Comparison | None
    checkpoint: Checkpoint

    @property
    def promoted(self) -> bool:
        """Whether it is to be the current version: unless it was compared and is not better."""
        return self.comparison is None or self.comparison.better is True


def summary(fitted: Fitted, folder: Path | None) -> str:
    """The last lines of a fit.

    Args:
        fitted: the challenger.
        folder: where it was written to, if it was.
    """
    lines = list(fitted.packed.notes)
    if fitted.after is None:
        found = fitted.report.score
        lines.append(
            f"not measured: nothing was held out "
            f"(reads {found.hits} of the {found.n} images that it was trained on)"
        )
    else:
        low, high = fitted.after.interval
        before = f"{fitted.before.exact_match:.4f}" if fitted.before else "nothing to compare with"
        lines += [
            f"before   {before}",
            f"after    {fitted.after.exact_match:.4f} (95 %: {low:.4f} to {high:.4f}), "
            f"exact match on {fitted.after.n} held out",
            f"calibration error {fitted.after.calibration_error:.4f}, "
            f"coverage at 99 % {fitted.after.coverage:.4f}",
        ]
        if doubt := fitted.after.calibration_warning:
            lines.append(doubt)
    if fitted.comparison:
        lines.append(fitted.comparison.as_table())
    if folder is None:
        return "\n".join([*lines, "not written: it is not shown to be better than the present one"])
    if fitted.champion and not fitted.comparison:
        lines.append(
            "not compared with the present version: too few images that it was not trained on "
            "(fit --rollback goes back to it)"
        )
    return "\n".join([*lines, *fitted.packed.oversize(), f"written  {folder}"])
