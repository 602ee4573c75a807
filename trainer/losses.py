"""What training minimises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

if TYPE_CHECKING:
    from collections.abc import Sequence


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
