"""Small changes to training images, as TensorFlow operations: no two steps see quite the same."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from scrapy_captcha.image import HEIGHT, WIDTH

#: Largest change either way: pixels, natural logarithm of the scale, tangent of the slant, radians.
SHIFT = (4.0, 2.0)
SCALE = 0.1
SHEAR = 0.12
ROTATION = math.radians(4)
#: The ink is multiplied by e to at most this power; noise has at most this standard deviation.
CONTRAST = 0.3
NOISE = 0.04


def augment(images: Any, seed: Any) -> Any:
    """Shift, scale, shear and rotate a little, change the contrast, add noise.

    Args:
        images: float32 of shape (batch, 32, 90, 1), 1.0 = background.
        seed: int32 of shape (2,); the same seed gives the same changes.

    Returns:
        float32 of the same shape, in [0, 1]; what comes in from outside repeats the edge.
    """
    batch = tf.shape(images)[0]
    drawn = tf.random.stateless_uniform((9, batch), seed, -1.0, 1.0)
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=_transforms(drawn),
        output_shape=(HEIGHT, WIDTH),
        fill_value=1.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )
    strength = tf.exp(CONTRAST * drawn[6])[:, None, None, None]
    deviation = NOISE * tf.abs(drawn[7])[:, None, None, None]
    noise = tf.random.stateless_normal(tf.shape(images), seed + 1)
    return tf.clip_by_value(1.0 - (1.0 - moved) * strength + deviation * noise, 0.0, 1.0)


def _transforms(drawn: Any) -> Any:
    """Where each output pixel comes from: (batch, 8) projective transforms about the middle."""
    scale_x, scale_y = tf.exp(SCALE * drawn[2]), tf.exp(SCALE * drawn[3])
    shear, angle = SHEAR * drawn[4], ROTATION * drawn[5]
    cos, sin = tf.cos(angle), tf.sin(angle)
    a, b = scale_x * cos, scale_x * (shear * cos - sin)
    c, d = scale_y * sin, scale_y * (shear * sin + cos)
    x, y = (WIDTH - 1) / 2, (HEIGHT - 1) / 2
    right = SHIFT[0] * drawn[0] + x - a * x - b * y
    down = SHIFT[1] * drawn[1] + y - c * x - d * y
    none = tf.zeros_like(a)
    return tf.stack([a, b, right, c, d, down, none, none], axis=1)
