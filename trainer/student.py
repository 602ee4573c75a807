"""A network that goes on learning one site, a few steps at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trainer.corpus import Task
from trainer.loop import WARMUP_STEPS, Labelled, Learner
from trainer.plan import LABEL_SMOOTHING, Emphasis
from trainer.sampling import passes
from trainer.transfer import faster, from_base

if TYPE_CHECKING:
    from collections.abc import Callable

    import keras
    from numpy.typing import NDArray

    from scrapy_captcha.bundle import Bundle, Manifest
    from trainer.rejections import Rejected

#: Images of the site in a step, and the learning rate, which does not come down: there will be
#: more labels. The average of the weights stands in for a rate that does.
BATCH, RATE = 32, 1e-3


def task_of(manifest: Manifest) -> Task:
    """What a bundle reads, as a task."""
    return Task(manifest.charset, manifest.length, manifest.min_length, manifest.case)


class Student:
    """A network in training between the rounds of a crawl, its optimizer and averages with it.

    Args:
        base: what it starts from.
        seed: the order of the images and their augmentation follow from it.
        rejected: weight of the loss of rejected guesses.
    """

    def __init__(self, base: Bundle, seed: int, rejected: float = 0.0) -> None:
        self.task = task_of(base.manifest)
        self.architecture = base.manifest.architecture
        self._model = from_base(base, self.task)
        self._network = faster(self._model, self.architecture)
        heads = (1.0,) * self.task.length
        self._learner = Learner(self._network, Emphasis(heads, None, LABEL_SMOOTHING, rejected))
        self._begin(base, seed)

    def can_start_from(self, base: Bundle) -> bool:
        """Whether a base has a network of the same shape, so that nothing need be built anew."""
        wanted = base.manifest.architecture, task_of(base.manifest)
        return wanted == (self.architecture, self.task)

    def start(self, base: Bundle, seed: int) -> None:
        """Forget what was learnt, and start from a base of the same shape.

        Args:
            base: one that `can_start_from` is true of.
            seed: as if it were new.
        """
        self._model.set_weights(from_base(base, self.task).get_weights())
        self._network.set_weights(self._model.get_weights())
        self._learner.restart()
        self._begin(base, seed)

    def _begin(self, base: Bundle, seed: int) -> None:
        self.base = base
        self.seed = seed
        self.steps = self.rounds = 0

    def learn(
        self,
        data: Labelled,
        steps: int,
        *,
        rejected: Rejected | None = None,
        choose: Callable[[int], NDArray[np.int64]] | None = None,
    ) -> float:
        """A round of training.

        Args:
            data: the site's labelled images, those of earlier rounds with them.
            steps: how many batches.
            rejected: images of which only wrong readings are known.
            choose: the number of a step of this round -> the images that it learns from; each once
                a pass if ``None``.

        Returns:
            The mean loss, in nats a head.
        """
        choose = choose or passes(len(data.images), BATCH, (self.seed, self.rounds))
        losses = []
        for step in range(steps):
            place = self.seed, self.steps
            rate = RATE * min(1.0, (self.steps + 1) / WARMUP_STEPS)
            chosen = choose(step)
            images, guesses = data.images[chosen], None
            if rejected is not None:
                more, guesses = rejected.draw(place)
                images = np.concatenate([images, more])
            losses.append(self._learner.step(images, data.classes[chosen], rate, place, guesses))
            self.steps += 1
        self.rounds += 1
        return float(np.mean([float(loss) for loss in losses]))

    def network(self) -> keras.Model:
        """The network as it has been on average lately, which reads better than it does now.

        It changes with the next call.
        """
        self._learner.swap()
        self._model.set_weights(self._network.get_weights())
        self._learner.swap()
        return self._model
