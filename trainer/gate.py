"""Whether a challenger is better than the champion: a paired test on images that neither has seen.

On each image of the holdout both read the same text, so only those count that one reads right and
the other wrong. If neither were better, each of those would be a fair coin: the exact one-sided
sign test, which is McNemar's exact test (Q. McNemar, Psychometrika 12, 1947; exact form: W. G.
Cochran, 1950). Of a rejected image no label is known, but a reading that the site has rejected is
wrong: a challenger that repeats it where the champion does not has lost that image. What either
reads there otherwise says nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

#: A challenger is better if chance alone had let it win by so much at most this often.
ALPHA = 0.05


@dataclass(frozen=True)
class Comparison:
    """How a challenger stands beside the champion.

    Args:
        n: images of the holdout.
        champion: how many of those it reads right.
        challenger: how many of those it reads right.
        won: images that the challenger alone reads right.
        lost: images that the champion alone reads right.
        rejections: rejected images that were looked at.
        repeated: those of them for which the challenger alone reads what was rejected.
    """

    n: int
    champion: int
    challenger: int
    won: int
    lost: int
    rejections: int = 0
    repeated: int = 0

    @property
    def p(self) -> float:
        """How often chance alone lets one of two equal readers win by so much or more."""
        return sign_test(self.won, self.lost + self.repeated)

    @property
    def better(self) -> bool | None:
        """Whether it is the challenger that is better, if that can be told.

        ``False`` says that the champion is, by the same test the other way round.
        """
        if self.p <= ALPHA:
            return True
        return False if sign_test(self.lost + self.repeated, self.won) <= ALPHA else None

    def as_dict(self) -> dict[str, Any]:
        """The figures, for JSON."""
        return {
            "n": self.n,
            "champion": round(self.champion / self.n, 4),
            "challenger": round(self.challenger / self.n, 4),
            "won": self.won,
            "lost": self.lost,
            "rejections": self.rejections,
            "repeated": self.repeated,
            "p": round(self.p, 4),
        }

    def as_table(self) -> str:
        """The same for people."""
        rows = {
            "champion": f"{self.champion / self.n:.4f} exact match on {self.n} held out",
            "challenger": f"{self.challenger / self.n:.4f}",
            "won": f"{self.won} that the challenger alone reads right",
            "lost": f"{self.lost} that the champion alone reads right",
        }
        if self.rejections:
            rows["repeated"] = (
                f"{self.repeated} of {self.rejections} rejected readings by the challenger alone"
            )
        rows["p"] = f"{self.p:.4f} (better at {ALPHA} or less)"
        return "\n".join(f"{name:<10}  {value}" for name, value in rows.items())


def sign_test(wins: int, losses: int) -> float:
    """The probability of so many wins or more among so many tosses of a fair coin."""
    tosses = wins + losses
    return float(sum(math.comb(tosses, k) for k in range(wins, tosses + 1)) / 2**tosses)


def compare(
    champion: Sequence[str | None],
    challenger: Sequence[str | None],
    labels: Sequence[str],
    rejected: Sequence[tuple[str | None, str | None, Collection[str]]] = (),
) -> Comparison:
    """Compare what two readers read.

    Args:
        champion: its readings of the holdout; ``None`` where it has none.
        challenger: its readings of the same images.
        labels: the true texts.
        rejected: for each image of which only wrong readings are known, that of the champion, that
            of the challenger, and the known ones.
    """
    pairs = [
        (first == label, second == label)
        for first, second, label in zip(champion, challenger, labels, strict=True)
    ]
    return Comparison(
        n=len(pairs),
        champion=sum(first for first, _ in pairs),
        challenger=sum(second for _, second in pairs),
        won=sum(second and not first for first, second in pairs),
        lost=sum(first and not second for first, second in pairs),
        rejections=len(rejected),
        repeated=sum(second in known and first not in known for first, second, known in rejected),
    )
