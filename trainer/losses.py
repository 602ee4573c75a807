"""What training minimises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Logarithms of probabilities: of a text that is not there, and of one beyond which float32 is 1.
NEVER, SUREST = -1e9, -1e-6


def per_head_cross_entropy(
    labels: Any,
    logits: Any,
    head_weights: Sequence[float],
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
) -> Any:
    """Cross entropy of every head, averaged over heads by weight and over the batch.

    With weights of one it is a quarter of the sum that four separate outputs would have.

    Args:
        labels: int32 of shape (batch, heads), classes.
        logits: float of shape (batch, heads, classes).
        head_weights: one weight a head, as in ``(1, 1.2, 1.2, 1)``.
        label_smoothing: share of a label that is spread over all classes.
        class_weights: one weight a class, for the heads whose label it is; a mean weight of one
            over the labels keeps the loss comparable. ``None`` is one for all.

    Returns:
        A float32 scalar, in nats a head.
    """
    logits = tf.cast(logits, tf.float32)
    weights = tf.constant(head_weights, tf.float32)
    log_chances = tf.nn.log_softmax(logits)
    picked = tf.gather(log_chances, labels, axis=-1, batch_dims=2)
    smooth = tf.reduce_mean(log_chances, axis=-1)
    loss = -(1.0 - label_smoothing) * picked - label_smoothing * smooth
    if class_weights is not None:
        loss *= tf.gather(tf.constant(class_weights, tf.float32), labels)
    return tf.reduce_mean(loss @ weights[:, None]) / tf.reduce_sum(weights)


def rejected_guess_loss(guesses: Any, logits: Any) -> Any:
    """What a network is charged for believing in texts that the site has rejected: -log(1 - p).

    The probability of a text is the product over the heads; that of several texts rejected for one
    image is their sum, as no two of them can be true. Where the network is sure of a rejected text
    the gradient is that of any wrong label, where it is not there is next to none.

    Source of the idea: J. Trecenti, "WAWL: web automatic weakly supervised learning" (2022).

    Args:
        guesses: int32 of shape (batch, texts, heads), classes; -1 throughout where an image has
            fewer texts.
        logits: float of shape (batch, heads, classes).

    Returns:
        A float32 scalar, the mean over the batch, in nats a text.
    """
    log_chances = tf.nn.log_softmax(tf.cast(logits, tf.float32))
    by_head = tf.transpose(guesses, (0, 2, 1))
    each = tf.gather(log_chances, tf.maximum(by_head, 0), axis=-1, batch_dims=2)
    texts = tf.where(guesses[..., 0] >= 0, tf.reduce_sum(each, axis=1), NEVER)
    believed = tf.minimum(tf.reduce_logsumexp(texts, axis=1), SUREST)
    return tf.reduce_mean(-tf.math.log(-tf.math.expm1(believed)))
