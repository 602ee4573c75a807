"""The two ways to train that are compared: the article's, and the default network's own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from trainer import networks, pretrain

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

BATCH = 128
PRECISIONS = ("float32", "mixed_bfloat16")
#: Of learning, by the article's recipe. At Keras' default, 0.001, all units of the article's last
#: convolution die within 800 steps, and it stays at chance.
RATE = 3e-4


class Learner(Protocol):
    """A network in training."""

    step: int
    seconds: float

    def update(self, pixels: NDArray[np.uint8], labels: NDArray[np.int32]) -> float:
        """One step on a batch; its loss, in nats a character."""

    def reader(self) -> keras.Model:
        """A float32 network that reads as well as it can by now."""

    def save(self, path: Path) -> None:
        """Write all of it to a file, which is replaced in one go."""

    def restore(self, path: Path) -> None:
        """Go on from a file that `save` wrote."""


class Article:
    """The article's recipe: Adam, one cross entropy for each head, dropout, images as they are.

    Args:
        architecture: a name in `networks.ARCHITECTURES`.
        precision: "float32" or "mixed_bfloat16".
        heads: characters in a text.
        classes: characters in the charset.
        seed: of weights and dropout.
        rate: of learning.

    """

    def __init__(
        self,
        architecture: str,
        precision: str,
        *,
        heads: int,
        classes: int,
        seed: int,
        rate: float = RATE,
    ) -> None:
        keras.utils.set_random_seed(seed)
        self._build = (architecture, heads, classes)
        policy = keras.config.dtype_policy()
        keras.config.set_dtype_policy(precision)
        try:
            self.model = networks.build(architecture, heads=heads, classes=classes, fused=True)
        finally:
            keras.config.set_dtype_policy(policy)
        self.optimizer = keras.optimizers.Adam(rate)
        self.optimizer.build(self.model.trainable_variables)
        self.step, self.seconds = 0, 0.0
        self._update = tf.function(self._update_eagerly)

    def _update_eagerly(self, pixels: Any, labels: Any) -> Any:
        images = tf.cast(pixels, tf.float32)[..., None] / 255
        with tf.GradientTape() as tape:
            logits = tf.cast(self.model(images, training=True), tf.float32)
            entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
            loss = tf.reduce_sum(tf.reduce_mean(entropy, axis=0))
        weights = self.model.trainable_variables
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        return loss / labels.shape[1]

    def update(self, pixels: NDArray[np.uint8], labels: NDArray[np.int32]) -> float:
        """One step on a batch; its loss, in nats a character."""
        loss = float(self._update(tf.constant(pixels), tf.constant(labels)))
        self.step += 1
        return loss

    def reader(self) -> keras.Model:
        """The weights as they are."""
        architecture, heads, classes = self._build
        model = networks.build(architecture, heads=heads, classes=classes)
        model.set_weights(self.model.get_weights())
        return model

    @property
    def _variables(self) -> list[Any]:
        # the state of dropout's random numbers is among them
        return [*self.model.variables, *self.optimizer.variables]

    def save(self, path: Path) -> None:
        """Write all of it to a file, which is replaced in one go."""
        arrays = {f"variable_{i}": v.numpy() for i, v in enumerate(self._variables)}
        state = json.dumps({"step": self.step, "seconds": self.seconds})
        partial = path.with_name(path.name + ".partial")
        with partial.open("wb") as file:
            np.savez(file, state=state, **arrays)
        partial.replace(path)

    def restore(self, path: Path) -> None:
        """Go on from a file that `save` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            for i, variable in enumerate(self._variables):
                variable.assign(stored[f"variable_{i}"])
            state = json.loads(str(stored["state"]))
        self.step, self.seconds = state["step"], state["seconds"]


class Default(pretrain.Training):
    """The default network's own: AdamW, warm-up and cosine, augmentation, averaged weights.

    Args:
        plan: what to train, and for how long.
        steps: the end of the schedule if it comes before the plan's minutes are over.

    """

    def __init__(self, plan: pretrain.Plan, steps: float = float("inf")) -> None:
        super().__init__(plan)
        self._steps = steps

    @property
    def progress(self) -> float:
        """0 at the start, 1 at the end."""
        return max(self.seconds / (self.plan.minutes * 60), self.step / self._steps)

    def reader(self) -> keras.Model:
        """The weights' moving average."""
        return self.averaged()
