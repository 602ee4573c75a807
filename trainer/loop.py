"""The training loop: AdamW on a cosine, weights averaged, the best epoch kept."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from scrapy_captcha.recognizer import softmax
from trainer.augment import augment
from trainer.conversion import exact_match, keras_logits
from trainer.corpus import encode
from trainer.losses import per_head_cross_entropy, rejected_guess_loss
from trainer.sampling import passes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from trainer.corpus import Corpus, Task
    from trainer.plan import Emphasis, Schedule
    from trainer.rejections import Rejected

WEIGHT_DECAY = 1e-4
WARMUP_STEPS = 20
#: The learning rate ends at this share of its peak.
FINAL_RATE = 0.01
#: Weights are averaged over about the last 1 / (1 - decay) steps.
AVERAGE_DECAY = 0.98


@dataclass(frozen=True)
class Epoch:
    """What came of one epoch.

    Args:
        loss: mean training loss.
        exact_match: share of the holdout read right; ``None`` without one.
        holdout_loss: mean negative log probability of the holdout's characters.
        best: whether it is the best so far.
    """

    number: int
    step: int
    loss: float
    seconds: float
    exact_match: float | None = None
    holdout_loss: float | None = None
    best: bool = False

    @property
    def rank(self) -> tuple[float, float]:
        """The larger the better."""
        return self.exact_match or 0.0, -(self.holdout_loss or 0.0)


@dataclass(frozen=True)
class Labelled:
    """Images, float16 of shape (n, 32, 90), and their classes, int32 of shape (n, heads)."""

    images: NDArray[np.float16]
    classes: NDArray[np.int32]


def label(loaded: Corpus, task: Task) -> Labelled:
    """A corpus with its labels as classes."""
    return Labelled(loaded.images, encode(loaded.labels, task))


class Reporter(Protocol):
    """Who is told how training goes."""

    def step(self, progress: float) -> None:
        """A step has been made; ``progress`` goes from 0 to 1."""

    def epoch(self, epoch: Epoch) -> None:
        """An epoch has ended."""


class Learner:
    """A network in training, the average of its weights, and its optimizer.

    Args:
        model: a network of ``trainer.networks``; it is changed in place.
        emphasis: what counts how much in the loss.
    """

    def __init__(self, model: keras.Model, emphasis: Emphasis) -> None:
        self.model = model
        self._emphasis = emphasis
        self._optimizer = keras.optimizers.AdamW(1e-3, weight_decay=WEIGHT_DECAY, clipnorm=5.0)
        self._optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        self._optimizer.build(model.trainable_variables)
        self._live = [v.value for v in model.variables if v.value.dtype.is_floating]
        self._average = [tf.Variable(value, trainable=False) for value in self._live]
        self._compiled = tf.function(self._step, reduce_retracing=True)

    def step(
        self,
        images: Any,
        classes: Any,
        rate: float,
        seed: tuple[int, int],
        guesses: Any = None,
    ) -> Any:
        """Learn from one batch.

        Args:
            images: float16 of shape (n + m, 32, 90), the last m of them with rejected guesses.
            classes: int32 of shape (n, heads).
            rate: the learning rate.
            seed: its second part is the number of the step.
            guesses: int32 of shape (m, texts, heads), see `rejected_guess_loss`.
        """
        self._optimizer.learning_rate.assign(rate)
        decay = min(AVERAGE_DECAY, (1 + seed[1]) / (10 + seed[1]))
        return self._compiled(
            tf.constant(images),
            tf.constant(classes),
            tf.constant(seed, tf.int32),
            tf.constant(decay, tf.float32),
            None if guesses is None else tf.constant(guesses),
        )

    def _step(self, images: Any, classes: Any, seed: Any, decay: Any, guesses: Any) -> Any:
        pixels = augment(tf.cast(images, tf.float32)[..., None], seed)
        weights = self.model.trainable_variables
        with tf.GradientTape() as tape:
            logits = self.model(pixels, training=True)
            count = tf.shape(classes)[0]
            loss = per_head_cross_entropy(
                classes,
                logits[:count],
                self._emphasis.heads,
                self._emphasis.label_smoothing,
                self._emphasis.classes,
            )
            if guesses is not None:
                loss += self._emphasis.rejected * rejected_guess_loss(guesses, logits[count:])
        self._optimizer.apply(tape.gradient(loss, weights), weights)
        for average, value in zip(self._average, self._live, strict=True):
            average.assign_add((1.0 - decay) * (value - average))
        return loss

    def restart(self) -> None:
        """Forget all but the network's weights as they are now."""
        for average, value in zip(self._average, self._live, strict=True):
            average.assign(value)
        for variable in self._optimizer.variables:
            variable.assign(keras.ops.zeros_like(variable))

    def swap(self) -> None:
        """Exchange the weights with their average."""
        for average, value in zip(self._average, self._live, strict=True):
            kept = tf.identity(value)
            value.assign(average)
            average.assign(kept)

    def variables(self) -> list[Any]:
        """All that changes, for a checkpoint."""
        return [
            *(v.value for v in self.model.variables),
            *self._average,
            *(v.value for v in self._optimizer.variables),
        ]


class Training:
    """Trains a network in place; it ends up with the averaged weights of the best epoch.

    Without a holdout the last epoch is the best.

    Args:
        learner: the network.
        data: what it learns from.
        holdout: what epochs are compared on, or ``None``.
        schedule: how long and how fast.
        seed: the order of the images and their augmentation follow from it.
        replay: synthetic images that fill up each batch, as many as the schedule says.
        rejected: images of which only wrong readings are known, some beside each batch.
    """

    def __init__(
        self,
        learner: Learner,
        data: Labelled,
        holdout: Labelled | None,
        schedule: Schedule,
        seed: int,
        *,
        replay: Labelled | None = None,
        rejected: Rejected | None = None,
    ) -> None:
        self.learner = learner
        self.history: list[Epoch] = []
        self._data = data
        self._holdout = holdout
        self._schedule = schedule
        self._seed = seed
        self._replay = replay
        self._rejected = rejected
        self._order = passes(len(data.images), schedule.own, (seed,))
        self._step = 0
        self._elapsed = 0.0
        self._best: Epoch | None = None
        self._best_weights: list[NDArray[Any]] = []

    def run(self, reporter: Reporter, between: Callable[[], None] = lambda: None) -> None:
        """Train until the steps, the time or the patience are used up.

        Args:
            reporter: told of steps and epochs.
            between: called after each epoch.
        """
        last = time.monotonic()
        losses: list[Any] = []
        while not self.finished:
            losses.append(self._learn())
            self._step += 1
            now = time.monotonic()
            self._elapsed, last = self._elapsed + now - last, now
            reporter.step(min(1.0, self._progress()))
            if self._step % self._schedule.epoch_steps == 0 or self._progress() >= 1.0:
                self._end_epoch(float(np.mean([float(loss) for loss in losses])))
                losses.clear()
                reporter.epoch(self.history[-1])
                between()
        if self._best_weights:
            self.learner.model.set_weights(self._best_weights)
        else:
            self.learner.swap()

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """All that `restore` needs: how far it is, for JSON, and the arrays by name."""
        arrays = {f"now_{i}": v.numpy() for i, v in enumerate(self.learner.variables())}
        arrays |= {f"best_{i}": weight for i, weight in enumerate(self._best_weights)}
        progress = {
            "step": self._step,
            "elapsed": self._elapsed,
            "history": [asdict(epoch) for epoch in self.history],
        }
        return progress, arrays

    def restore(self, progress: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on where another training of the same kind was.

        Raises:
            KeyError: when something is missing.
            TypeError: when an epoch has other fields.
            ValueError: when an array has another shape. After either nothing has changed.
        """
        variables, weights = self.learner.variables(), self.learner.model.get_weights()
        now = [arrays[f"now_{i}"] for i in range(len(variables))]
        history = [Epoch(**epoch) for epoch in progress["history"]]
        step, elapsed = int(progress["step"]), float(progress["elapsed"])
        best = next((epoch for epoch in reversed(history) if epoch.best), None)
        kept = [arrays[f"best_{i}"] for i in range(len(weights))] if best else []
        expected = [tuple(v.shape) for v in variables] + [w.shape for w in weights if best]
        if (found := [array.shape for array in [*now, *kept]]) != expected:
            raise ValueError(f"expected arrays of the shapes {expected}, got {found}")
        for variable, array in zip(variables, now, strict=True):
            variable.assign(array)
        self.history, self._best, self._best_weights = history, best, kept
        self._step, self._elapsed = step, elapsed

    def _progress(self) -> float:
        return max(
            self._step / self._schedule.steps,
            self._elapsed / self._schedule.seconds,
        )

    @property
    def finished(self) -> bool:
        """Whether the steps, the time or the patience are used up."""
        if self._progress() >= 1.0:
            return True
        if self._best is None:
            return False
        tired = len(self.history) - self._best.number >= self._schedule.patience
        return tired and (self._progress() >= 0.5 or self._best.exact_match == 1.0)

    def _rate(self) -> float:
        warm = min(1.0, (self._step + 1) / WARMUP_STEPS)
        cosine = (1 + math.cos(math.pi * self._progress())) / 2
        return self._schedule.learning_rate * warm * max(FINAL_RATE, cosine)

    def _learn(self) -> Any:
        images, classes = self._batch()
        place = self._seed, self._step
        if self._rejected is None:
            return self.learner.step(images, classes, self._rate(), place)
        more, guesses = self._rejected.draw(place)
        images = np.concatenate([images, more])
        return self.learner.step(images, classes, self._rate(), place, guesses)

    def _batch(self) -> tuple[NDArray[np.float16], NDArray[np.int32]]:
        """The images of this step and their classes."""
        chosen = self._order(self._step)
        images, classes = self._data.images[chosen], self._data.classes[chosen]
        if self._replay is None or not self._schedule.replayed:
            return images, classes
        rng = np.random.default_rng([self._seed, self._step, self._schedule.replayed])
        drawn = rng.integers(len(self._replay.images), size=self._schedule.replayed)
        return (
            np.concatenate([images, self._replay.images[drawn]]),
            np.concatenate([classes, self._replay.classes[drawn]]),
        )

    def _end_epoch(self, loss: float) -> None:
        epoch = Epoch(len(self.history) + 1, self._step, loss, self._elapsed)
        if self._holdout is not None:
            self.learner.swap()
            exact, holdout_loss = compare(self.learner.model, self._holdout)
            epoch = replace(epoch, exact_match=exact, holdout_loss=holdout_loss)
            best = self._best is None or epoch.rank > self._best.rank
            epoch = replace(epoch, best=best)
            if best:
                self._best, self._best_weights = epoch, self.learner.model.get_weights()
            self.learner.swap()
        self.history.append(epoch)


def compare(model: keras.Model, holdout: Labelled) -> tuple[float, float]:
    """Exact match of a network, and the mean negative log probability of a character."""
    chances = softmax(keras_logits(model, holdout.images))
    picked = np.take_along_axis(chances, holdout.classes[..., None], axis=-1)
    loss = float(-np.log(np.maximum(picked, 1e-7)).mean())
    return exact_match(chances, holdout.classes), loss
