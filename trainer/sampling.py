"""Which images a step learns from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray


def passes(count: int, size: int, seed: Sequence[int]) -> Callable[[int], NDArray[np.int64]]:
    """Every image once a pass, in an order of its own.

    Args:
        count: of images.
        size: how many a step takes; more than there are come round again.
        seed: the orders follow from it.

    Returns:
        The number of a step -> the numbers of its images.
    """
    now = -1, np.zeros(0, np.int64)

    def choose(step: int) -> NDArray[np.int64]:
        nonlocal now
        which, place = divmod(step, max(1, count // size))
        if now[0] != which:
            now = which, np.random.default_rng([*seed, which]).permutation(count)
        return np.resize(now[1][place * size :], size)

    return choose


def weighted(
    weights: NDArray[np.float64], size: int, seed: Sequence[int]
) -> Callable[[int], NDArray[np.int64]]:
    """Images as often as their weights say.

    Args:
        weights: of the images, not all of them 0.
        size: how many a step takes.
        seed: what is drawn follows from it.

    Returns:
        The number of a step -> the numbers of its images.
    """
    chances = weights / weights.sum()

    def choose(step: int) -> NDArray[np.int64]:
        return np.random.default_rng([*seed, step]).choice(len(chances), size, p=chances)

    return choose
