"""Which images a person's label would teach most, best first.

Rejected images come first, as they have no label: those that the latest model misread before those
that only older ones did, and within these the most instructive. The measure is how wrong the reader
is on the image at least, in bits. A guess of probability ``p`` that the site rejected leaves the
true text no more than ``1 - p``, and no more than ``p`` either, because the reader preferred its
guess; so ``-log2(min(p, 1 - p))`` bits are certain. Confident mistakes, and texts that the reader
has no idea of, rank above coin tosses. Then come rejected images of which no reading is known, and
last confirmed ones with a confidence below one half that nobody has labelled by hand, the least
confident first: correct but uncertain, where the site's word is worth a look.

The idea to prefer these to images that are read with ease is from F. Stark, C. Hazirbas, R. Triebel
and D. Cremers, "CAPTCHA recognition with active deep learning" (2015).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from scrapy_captcha.history import image_names
from scrapy_captcha.naming import CONFIRMED_FOLDER, DIGEST, REJECTED_FOLDER, split_stem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np

    from scrapy_captcha.answers import Answers
    from scrapy_captcha.history import Labels

#: A confirmed image is uncertain below this confidence.
UNCERTAIN = 0.5


class Candidate(NamedTuple):
    """An image that is worth a label; the smallest is the best.

    :ivar kind: 0 rejected by the latest model's reading, 1 by an older one's, 2 of no known
        reading, 3 confirmed
    :ivar chance: of the true text, at most; of a confirmed one, its confidence
    :ivar age: the later it was answered, the smaller
    """

    kind: int
    chance: float
    age: int
    name: str
    folder: Path

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / self.name


def candidates(site_dir: Path, answers: Answers, labels: Labels) -> Iterator[Candidate]:
    """A site's images that are worth a label, in no order; those of several sites compare."""
    yield from _rejected(site_dir / REJECTED_FOLDER, answers, labels)
    yield from _confirmed(site_dir / CONFIRMED_FOLDER, answers, labels)


def _rejected(folder: Path, answers: Answers, labels: Labels) -> Iterator[Candidate]:
    last = _last(answers, ~answers.accepted)
    newest = len(answers.names) - 1
    for name, stem in image_names(folder):
        image = int(stem, 16) if DIGEST.fullmatch(stem) else None
        if image in labels.images:
            continue
        if image not in last:
            yield Candidate(2, 0.0, 0, name, folder)
            continue
        number = last[image]
        confidence = float(answers.confidences[number])
        kind = int(answers.models[number] != newest)
        yield Candidate(kind, min(confidence, 1 - confidence), -number, name, folder)


def _confirmed(folder: Path, answers: Answers, labels: Labels) -> Iterator[Candidate]:
    last = _last(answers, answers.accepted & (answers.confidences < UNCERTAIN))
    for name, stem in image_names(folder):
        digits = split_stem(stem)[1]
        image = int(digits, 16) if digits else None
        if image in last and image not in labels.by_hand:
            number = last[image]
            yield Candidate(3, float(answers.confidences[number]), -number, name, folder)


def _last(answers: Answers, which: np.ndarray) -> dict[int | None, int]:
    """The number of each image's last answer of those."""
    return dict(zip(answers.images[which].tolist(), which.nonzero()[0].tolist(), strict=True))
