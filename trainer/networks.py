"""The networks: what a captcha's (32, 90) picture goes through to become characters."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf
from keras import layers

from scrapy_captcha.errors import BundleError
from scrapy_captcha.image import HEIGHT, WIDTH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

INPUT_SHAPE = (HEIGHT, WIDTH, 1)


class FusedBatchNormalization(layers.BatchNormalization):  # type: ignore[misc]
    """Batch normalization that trains twice as fast on a CPU: one operator instead of twenty.

    Same weights in the same order as its parent's, so a network trained with it is stored as one
    with the parent: ``plain.set_weights(fast.get_weights())``.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalize by the batch's statistics when training, else by the moving ones."""
        if not training or not self.trainable:
            return super().call(inputs, training=training, mask=mask)
        empty = tf.zeros((0,), tf.float32)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.cast(self.gamma, tf.float32),
            offset=tf.cast(self.beta, tf.float32),
            mean=empty,
            variance=empty,
            epsilon=self.epsilon,
            is_training=True,
        )
        keep = self.momentum
        self.moving_mean.assign(self.moving_mean * keep + mean * (1 - keep))
        self.moving_variance.assign(self.moving_variance * keep + variance * (1 - keep))
        return outputs


Step = int | tuple[int, int]
#: Channels of 3x3 convolutions, and the pooling between them.
WIDE: tuple[Step, ...] = (16, (2, 2), 32, 32, (2, 2), 64, 64, (2, 1), 128, 128, (2, 2), 192, 192)
COMPACT: tuple[Step, ...] = (16, (2, 2), 32, 32, (2, 2), 48, 48, (2, 1), 80, 80, (2, 2), 128, 128)
#: Units of the layer that sees all characters of a text.
CONTEXT = 64
#: What the layer that counts characters sees of each position.
SIGNS = 24


def four_head_compact(*, heads: int, classes: int, fused: bool = False) -> keras.Model:
    """The default: small convolutions with batch normalization and an attention map for each head.

    Each head looks at the last feature map through a softmax over its positions, made from the
    features and a bias of its own for each position; one classifier, shared by the heads, names
    what it sees. So every character of every training image teaches all heads. A second classifier
    adds what the mean over the heads says: a bar among capitals is an I, among digits a 1.

    Args:
        heads: characters in a text.
        classes: characters in the charset, and the blank.
        fused: train with `FusedBatchNormalization`.

    """
    return attentive(COMPACT, "four_head_compact", heads=heads, classes=classes, fused=fused)


def four_head_wide(*, heads: int, classes: int, fused: bool = False) -> keras.Model:
    """The default with more channels: what it learns, the default can start from.

    Args:
        heads: characters in a text.
        classes: characters in the charset, and the blank.
        fused: train with `FusedBatchNormalization`.

    """
    return attentive(WIDE, "four_head_wide", heads=heads, classes=classes, fused=fused)


def many_head_compact(*, heads: int, classes: int, fused: bool = False) -> keras.Model:
    """`four_head_compact` with a layer that counts, for long texts and texts of several lengths.

    Where the fifth character is depends on the four before it, and these are further away than the
    convolutions see: so a dense layer that sees the whole map adds to what each head looks at.

    Args:
        heads: characters in the longest text.
        classes: characters in the charset, and the blank.
        fused: train with `FusedBatchNormalization`.

    """
    return attentive(
        COMPACT, "many_head_compact", heads=heads, classes=classes, fused=fused, counting=True
    )


def attentive(
    steps: tuple[Step, ...],
    name: str,
    *,
    heads: int,
    classes: int,
    fused: bool,
    counting: bool = False,
) -> keras.Model:
    """A network of the default's kind.

    All layers have names: Keras would count them, those of other networks as well, and the names
    get into the model file, whose hash would differ.

    Args:
        steps: channels of 3x3 convolutions, and (rows, columns) of the pooling between them.
        name: of the Keras model.
        heads: characters in a text.
        classes: characters in the charset, and the blank.
        fused: train with `FusedBatchNormalization`.
        counting: add the layer that counts.

    """
    normalization = FusedBatchNormalization if fused else layers.BatchNormalization
    image = x = layers.Input(INPUT_SHAPE, name="image")
    for i, step in enumerate(steps, 1):
        if isinstance(step, tuple):
            x = layers.MaxPooling2D(step, name=f"pool_{i}")(x)
        else:
            x = layers.Conv2D(step, 3, padding="same", use_bias=False, name=f"convolution_{i}")(x)
            x = layers.ReLU(name=f"relu_{i}")(normalization(name=f"normalization_{i}")(x))
    rows, columns, channels = x.shape[1:]
    positions = rows * columns
    features = layers.Reshape((positions, channels), name="features")(x)
    maps = layers.EinsumDense(
        "bpc,ch->bph", output_shape=(positions, heads), bias_axes="ph", name="maps"
    )(features)
    if counting:
        signs = layers.Dense(SIGNS, activation="relu", name="signs")(features)
        counted = layers.Dense(
            positions * heads, use_bias=False, kernel_initializer="zeros", name="count"
        )(layers.Flatten(name="flat")(signs))
        counted = layers.Reshape((positions, heads), name="counted")(counted)
        maps = layers.Add(name="counting_maps")([maps, counted])
    maps = layers.Softmax(axis=1, dtype="float32", name="attention")(maps)
    seen = layers.Dot(axes=1, name="seen")([maps, features])
    context = layers.GlobalAveragePooling1D(keepdims=True, name="text")(seen)
    context = layers.Dense(CONTEXT, activation="relu", name="context")(context)
    kind = layers.Dense(
        classes, use_bias=False, kernel_initializer="zeros", dtype="float32", name="kind"
    )(context)
    shape = layers.Dense(classes, dtype="float32", name="shape")(seen)
    logits = layers.Add(dtype="float32", name="logits")([shape, kind])
    return keras.Model(image, logits, name=name)


def four_head_vgg(*, heads: int, classes: int, fused: bool = False) -> keras.Model:  # noqa: ARG001
    """The article's: three blocks of two 3x3 convolutions, and one dense head for each character.

    Args:
        heads: characters in a text.
        classes: characters in the charset, and the blank.
        fused: ignored, it has no batch normalization.

    """
    image = x = layers.Input(INPUT_SHAPE, name="image")
    for channels in (64, 128, 256):
        for i in (1, 2):
            name = f"convolution_{channels}_{i}"
            x = layers.Conv2D(channels, 3, padding="same", activation="relu", name=name)(x)
        x = layers.MaxPooling2D(2, name=f"pool_{channels}")(x)
        x = layers.Dropout(0.25, name=f"dropout_{channels}")(x)
    x = layers.Flatten(name="features")(x)
    x = layers.Dropout(0.5, name="dropout")(x)
    each = [
        layers.Dense(classes, dtype="float32", name=f"head_{head + 1}")(x) for head in range(heads)
    ]
    joined = layers.Concatenate(name="heads")(each) if heads > 1 else each[0]
    logits = layers.Reshape((heads, classes), dtype="float32", name="logits")(joined)
    return keras.Model(image, logits, name="four_head_vgg")


ARCHITECTURES: dict[str, Callable[..., keras.Model]] = {
    "four_head_compact": four_head_compact,
    "four_head_wide": four_head_wide,
    "many_head_compact": many_head_compact,
    "four_head_vgg": four_head_vgg,
}
#: What a classifier sees, of the architectures with one for each head.
HEAD_FEATURES = {"four_head_vgg": (HEIGHT // 8) * (WIDTH // 8) * 256}


def build(architecture: str, *, heads: int, classes: int, fused: bool = False) -> keras.Model:
    """A new network.

    Args:
        architecture: a name in `ARCHITECTURES`.
        heads: characters in a text; the longest, when lengths vary.
        classes: characters in the charset, one more with the blank.
        fused: use normalization that trains fast on a CPU; for training only, see
            `FusedBatchNormalization`.

    Returns:
        float32 (batch, 32, 90, 1) in [0, 1] -> logits, float32 (batch, heads, classes).

    Raises:
        BundleError: for a name that is not known, or numbers below one.

    """
    if architecture not in ARCHITECTURES:
        raise BundleError(f"expected one of {', '.join(ARCHITECTURES)}, got {architecture!r}")
    if heads < 1 or classes < 2:
        raise BundleError(f"expected heads >= 1 and classes >= 2, got {heads} and {classes}")
    return ARCHITECTURES[architecture](heads=heads, classes=classes, fused=fused)


@contextmanager
def computing_in(policy: str) -> Iterator[None]:
    """Have networks that are built meanwhile compute in "float32" or "mixed_bfloat16"."""
    kept = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(kept)
