"""Keras -> LiteRT, with weights as small as they get without changing what is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from scrapy_captcha.errors import BundleError
from scrapy_captcha.image import HEIGHT, WIDTH
from scrapy_captcha.recognizer import decode_logits, softmax
from trainer.quiet import quiet

if TYPE_CHECKING:
    from collections.abc import Iterable

    import keras
    from numpy.typing import NDArray

    from scrapy_captcha.bundle import Manifest
    from trainer.corpus import Corpus

#: How far a probability may move when the weights are stored in another way.
QUANTISATION_TOLERANCE = 0.1
#: By how much of the images the exact match may differ; one image may always.
EXACT_TOLERANCE = 0.002
#: How weights may be stored, the smallest and fastest first; the next is for when one fails.
PRECISIONS = ("int8", "float16", "float32")


def to_tflite(model: keras.Model, precision: str = PRECISIONS[0]) -> bytes:
    """Convert to LiteRT: batch of one, built-in operators only.

    Args:
        model: float32 input of shape (batch, 32, 90, 1), float32 logits (batch, heads, classes).
        precision: how weights are stored; "int8" also computes with them, where LiteRT can.

    Returns:
        The model file; logits leave it before any temperature.
    """
    import tensorflow as tf  # noqa: PLC0415

    image = tf.TensorSpec((1, HEIGHT, WIDTH, 1), tf.float32, name="image")
    infer = tf.function(lambda pixels: model(pixels, training=False), input_signature=[image])
    holder = tf.Module()  # keeps the variables alive; a Keras model alone loses them here
    holder.held = [variable.value for variable in model.variables]
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [infer.get_concrete_function()], holder
    )
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    with quiet():
        content: bytes = converter.convert()
    return content


def litert_logits(
    content: bytes, images: Iterable[NDArray[np.floating[Any]]]
) -> NDArray[np.float32]:
    """Run a model file on prepared images, one by one on one thread, as the crawl does.

    Args:
        content: what `to_tflite` returned.
        images: float arrays of shape (32, 90).

    Returns:
        Logits, float32 of shape (images, heads, classes).
    """
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415

    with quiet():
        interpreter = Interpreter(model_content=content, num_threads=1)
        interpreter.allocate_tensors()
    (entry,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    logits = []
    for pixels in images:
        interpreter.set_tensor(entry["index"], pixels.astype(np.float32)[None, :, :, None])
        interpreter.invoke()
        logits.append(interpreter.get_tensor(output["index"])[0])
    return np.stack(logits) if logits else np.zeros((0, *output["shape"][1:]), np.float32)


def keras_logits(model: keras.Model, images: NDArray[Any]) -> NDArray[np.float32]:
    """Run a Keras model on prepared images: (images, 32, 90), float 0 to 1 or uint8 0 to 255."""
    white = np.float32(255 if images.dtype == np.uint8 else 1)
    batches = [
        model(images[i : i + 256, :, :, None].astype(np.float32) / white, training=False)
        for i in range(0, len(images), 256)
    ]
    return np.concatenate([np.asarray(logits, np.float32) for logits in batches])


def exact_match(logits: NDArray[Any], classes: NDArray[np.int32]) -> float:
    """The share of texts with every character right.

    Args:
        logits: or probabilities, shape (texts, heads, classes).
        classes: the right ones, shape (texts, heads).
    """
    return float((logits.argmax(axis=-1) == classes).all(axis=-1).mean())


def check_conversion(
    content: bytes, model: keras.Model, images: NDArray[np.floating[Any]]
) -> float:
    """Compare a model file with the network that it was made from.

    Args:
        content: what `to_tflite` returned.
        model: the network itself.
        images: float arrays, shape (images, 32, 90).

    Returns:
        The largest difference between two probabilities.

    Raises:
        BundleError: when one moved by more than 0.1, or when quantisation changed what a head reads
            although Keras preferred it by more than that.
    """
    if not len(images):
        return 0.0
    ours, theirs = softmax(litert_logits(content, images)), softmax(keras_logits(model, images))
    distance = float(np.abs(ours - theirs).max())
    if not distance <= QUANTISATION_TOLERANCE:  # also when it is not a number
        raise BundleError(
            f"a probability moves by {distance:.3f}, at most {QUANTISATION_TOLERANCE} is accepted"
        )
    best = np.sort(theirs, axis=-1)
    clear = best[..., -1] - best[..., -2] > QUANTISATION_TOLERANCE
    changed = int(((ours.argmax(-1) != theirs.argmax(-1)) & clear).sum())
    if changed:
        raise BundleError(f"{changed} heads read something else than with a clear lead before")
    return distance


def compare_exact(
    content: bytes, model: keras.Model, manifest: Manifest, shown: Corpus
) -> dict[str, float]:
    """The exact match of a model file beside that of the network that it was made from.

    Args:
        content: what `to_tflite` returned.
        model: the network itself.
        manifest: how logits become text.
        shown: images and labels, the holdout if there is one.

    Returns:
        The two and the number of images, for the manifest.

    Raises:
        BundleError: when they differ by more than 0.2 points, and by more than one image.
    """
    n = len(shown.samples)
    hits = [
        sum(
            decode_logits(row, manifest).text == label
            for row, label in zip(logits, shown.labels, strict=True)
        )
        for logits in (litert_logits(content, shown.images), keras_logits(model, shown.images))
    ]
    ours, theirs = hits
    if abs(ours - theirs) > max(1.0, EXACT_TOLERANCE * n):
        raise BundleError(f"of {n} images it reads {ours} right, Keras {theirs}")
    return {"litert": round(ours / n, 4), "keras": round(theirs / n, 4), "n": n}


@dataclass(frozen=True)
class Conversion:
    """A model file that says what its network says.

    Args:
        precision: how its weights are stored.
        exact_match: see `compare_exact`; empty if there was nothing to compare on.
        refused: why the smaller ways to store them would not do.
    """

    content: bytes
    precision: str
    exact_match: dict[str, float]
    refused: tuple[str, ...]


def convert(
    model: keras.Model,
    manifest: Manifest,
    pixels: NDArray[np.floating[Any]],
    shown: Corpus | None = None,
) -> Conversion:
    """Convert to LiteRT with the smallest weights that keep what the network says.

    Args:
        model: a float32 network.
        manifest: how logits become text.
        pixels: prepared images whose probabilities must not move.
        shown: images on which the exact match must not change.

    Raises:
        BundleError: when no way to store the weights passes the checks.
    """
    refused: list[str] = []
    for precision in PRECISIONS:
        content = to_tflite(model, precision)
        try:
            check_conversion(content, model, pixels)
            exact = compare_exact(content, model, manifest, shown) if shown else {}
        except BundleError as e:
            refused.append(f"with {precision} weights, {e}")
        else:
            return Conversion(content, precision, exact, tuple(refused))
    raise BundleError(f"the converted network says something else: {'; '.join(refused)}")
