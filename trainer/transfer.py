"""What a fit starts from: a base's network, its features under new heads, or a fresh network."""

from __future__ import annotations

from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

import numpy as np

from scrapy_captcha.bundle import WEIGHTS
from scrapy_captcha.errors import BundleError
from trainer import networks
from trainer.export import load_weights

if TYPE_CHECKING:
    import keras
    from numpy.typing import NDArray

    from scrapy_captcha.bundle import Bundle, Manifest
    from trainer.corpus import Task

#: Layers whose weights have one column a class.
CLASSIFIERS = ("logits/", "head_")
#: A fit makes but a few hundred steps, and its statistics must have settled by then.
NORMALIZATION_MOMENTUM = 0.9


def fresh(architecture: str, task: Task) -> keras.Model:
    """A network that knows nothing yet.

    Raises:
        BundleError: when there is no such architecture.
    """
    try:
        return networks.build(architecture, heads=task.length, classes=task.classes)
    except ValueError as e:
        raise BundleError(str(e)) from None


def faster(model: keras.Model, architecture: str) -> keras.Model:
    """A copy that computes the same and trains faster; its weights fit the original."""
    _, heads, classes = model.output_shape
    copy = networks.build(architecture, heads=heads, classes=classes, fused=True)
    copy.set_weights(model.get_weights())
    for layer in copy.layers:
        if hasattr(layer, "momentum"):
            layer.momentum = NORMALIZATION_MOMENTUM
    return copy


def from_base(base: Bundle, task: Task) -> keras.Model:
    """A network that starts from a bundle's weights.

    Args:
        base: its files are checked before Keras sees them.
        task: with the base's own charset and lengths, everything is kept. Else the heads are new,
            but a character that the base knows keeps its weights.

    Raises:
        BundleError: when the base holds no weights, or not those that its manifest describes.
    """
    manifest = base.manifest
    model = load_weights(base.read(WEIGHTS))
    if model.output_shape[1:] != (manifest.length, manifest.classes):
        raise BundleError(
            f"{base.folder / WEIGHTS}: expected logits of shape "
            f"{(manifest.length, manifest.classes)}, got {model.output_shape[1:]}"
        )
    same = (manifest.charset, manifest.length, manifest.min_length)
    if same == (task.charset, task.length, task.min_length):
        return model
    target = fresh(manifest.architecture, task)
    classes = _class_map(manifest, task)
    kept = chain(model.get_weights(), repeat(None))
    target.set_weights(
        [_carry(old, weight, classes) for old, weight in zip(kept, target.weights, strict=False)]
    )
    return target


def _class_map(manifest: Manifest, task: Task) -> NDArray[np.int64]:
    """For each class of the task the class of the base that means the same, or -1."""
    known = {character: i for i, character in enumerate(manifest.charset)}
    found = [known.get(character, -1) for character in task.charset]
    if task.classes > len(task.charset):
        found.append(manifest.classes - 1 if manifest.classes > len(manifest.charset) else -1)
    return np.array(found)


def _carry(
    old: NDArray[Any] | None, weight: keras.Variable, classes: NDArray[np.int64]
) -> NDArray[Any]:
    """The base's values for a weight where they fit, in a classifier class by class."""
    new: NDArray[Any] = weight.numpy()
    if old is None or old.shape[:-1] != new.shape[:-1]:
        return new
    if weight.path.startswith(CLASSIFIERS):
        return np.where(classes >= 0, old[..., np.maximum(classes, 0)], new)
    return old if old.shape == new.shape else new
