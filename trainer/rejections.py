"""Images of which only wrong readings are known: what they tell a network, and of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scrapy_captcha.dataset import rejections
from scrapy_captcha.image import HEIGHT, WIDTH
from trainer.corpus import (
    HOLDOUT_BYTE,
    Sample,
    encode,
    fold_case,
    prepare_all,
    site_folders,
    stored_at,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, MutableMapping

    from numpy.typing import NDArray

    from trainer.corpus import Task

#: More rejected texts than this of one image are left out, the latest ones.
GUESSES = 4
#: How many rejected images stand beside a batch.
BESIDE = 8


@dataclass(frozen=True)
class Rejected:
    """Images that were read wrongly.

    Args:
        digests: the sha256 of each, in hex.
        texts: what the site rejected, in the case of the task.
        images: float16 of shape (n, 32, 90).
        guesses: the texts as classes, int32 of shape (n, 4, heads), -1 where there is none.
    """

    digests: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]
    images: NDArray[np.float16]
    guesses: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.digests)

    def pick(self, where: NDArray[np.bool_]) -> Rejected:
        """The part of it that a boolean mask selects."""
        chosen = np.flatnonzero(where)
        return Rejected(
            tuple(self.digests[i] for i in chosen),
            tuple(self.texts[i] for i in chosen),
            self.images[chosen],
            self.guesses[chosen],
        )

    def held_out(self) -> NDArray[np.bool_]:
        """Which of them no network learns from, by their hashes: about a tenth."""
        return np.array([int(digest[:2], 16) < HOLDOUT_BYTE for digest in self.digests], bool)

    def draw(self, seed: tuple[int, ...]) -> tuple[NDArray[np.float16], NDArray[np.int32]]:
        """A few images with their guesses, to stand beside a batch."""
        chosen = np.random.default_rng([*seed, BESIDE]).integers(len(self), size=BESIDE)
        return self.images[chosen], self.guesses[chosen]


def load_rejected(
    paths: Iterable[str | os.PathLike[str]],
    task: Task,
    known: MutableMapping[str, NDArray[np.float16]] | None = None,
    *,
    newest: int | None = None,
) -> Rejected:
    """The rejected images of all sites' folders among the paths; other folders and zips have none.

    Texts that the task has no classes for are left out, and images without any other.

    Args:
        paths: what `trainer.corpus.gather` takes.
        task: what the classes are.
        known: images that are prepared already, by their sha256; new ones are added.
        newest: at most so many images, those that were stored last.

    Raises:
        DatasetError: when a file cannot be read.
    """
    read_wrongly: list[tuple[Sample, tuple[str, ...]]] = []
    for site in (site for path in paths for site in site_folders(path)):
        for found in rejections(site):
            folded = dict.fromkeys(fold_case(guess, task.case) for guess in found.guesses)
            possible = tuple(text for text in folded if task.reads(text))[:GUESSES]
            if possible:
                sample = Sample(str(found.path), "", found.path, found.sha256)
                read_wrongly.append((sample, possible))
    if newest is not None and len(read_wrongly) > newest:
        read_wrongly = sorted(read_wrongly, key=lambda pair: stored_at(pair[0]))[-newest:]
    samples, texts = [s for s, _ in read_wrongly], [t for _, t in read_wrongly]
    prepared = prepare_all(samples, known)
    kept = [i for i, pixels in enumerate(prepared) if pixels is not None]
    guesses = np.full((len(kept), GUESSES, task.length), -1, np.int32)
    for row, i in enumerate(kept):
        guesses[row, : len(texts[i])] = encode(texts[i], task)
    images = [prepared[i] for i in kept]
    return Rejected(
        tuple(samples[i].digest for i in kept),
        tuple(texts[i] for i in kept),
        np.array(images, np.float16).reshape(-1, HEIGHT, WIDTH),
        guesses,
    )
