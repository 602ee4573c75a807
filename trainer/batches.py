"""Batches of drawn captchas, each followed by some of those that were drawn before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from trainer.drawing import Chunk

BATCH = 128
#: Batches of images seen before for each that is new: drawing takes longer than learning.
REPLAYS = 2
#: Images kept for replay, 2,880 bytes each.
MEMORY = 120_000


def batches(
    chunks: Iterator[Chunk], seed: int
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int32], bool]]:
    """New batches, each followed by some drawn from the images of earlier chunks.

    Yields:
        Pixels uint8 (128, 32, 90), labels int32 (128, heads), and whether a chunk was begun.

    """
    rng = np.random.default_rng(seed)
    pixels: NDArray[np.uint8] | None = None
    filled = at = 0
    for images, texts in chunks:
        if pixels is None:
            pixels = np.empty((MEMORY, *images.shape[1:]), np.uint8)
            labels = np.empty((MEMORY, *texts.shape[1:]), np.int32)
        for begin in range(0, len(images), BATCH):
            yield images[begin : begin + BATCH], texts[begin : begin + BATCH], begin == 0
            for _ in range(REPLAYS if filled > 8 * BATCH else 0):
                pick = rng.integers(0, filled, BATCH)
                yield pixels[pick], labels[pick], False
        room = (at + np.arange(len(images))) % MEMORY
        pixels[room], labels[room] = images, texts
        at = (at + len(images)) % MEMORY
        filled = min(MEMORY, filled + len(images))
