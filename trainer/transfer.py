"""What a fit starts from: a base's network, its features under new heads, or a fresh network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from scrapy_captcha.bundle import WEIGHTS
from scrapy_captcha.errors import BundleError
from trainer import networks
from trainer.weights import load_weights

if TYPE_CHECKING:
    import keras
    from numpy.typing import NDArray

    from scrapy_captcha.bundle import Bundle, Manifest
    from trainer.corpus import Task

#: Layers whose weights have one column a class.
CLASSIFIERS = ("shape", "kind", "head_")
#: The layers whose weights have one column a head, one after another: where each one looks.
MAPS, COUNT = "maps", "count"
#: A fit makes but a few hundred steps, and its statistics must have settled by then.
NORMALIZATION_MOMENTUM = 0.9


def fresh(architecture: str, task: Task) -> keras.Model:
    """A network that knows nothing yet.

    Raises:
        BundleError: when there is no such architecture.
    """
    return networks.build(architecture, heads=task.length, classes=task.classes)


def faster(model: keras.Model, architecture: str) -> keras.Model:
    """A copy that computes the same and trains faster; its weights fit the original.

    Raises:
        BundleError: when there is no such architecture, or the weights are not those that this
            version gives it.
    """
    _, heads, classes = model.output_shape
    copy = networks.build(architecture, heads=heads, classes=classes, fused=True)
    if [w.shape for w in copy.weights] != [w.shape for w in model.weights]:
        raise BundleError(
            f"the base's weights are not those of {architecture} in this version: "
            "start from a newer base, or train it again"
        )
    copy.set_weights(model.get_weights())
    for layer in copy.layers:
        if hasattr(layer, "momentum"):
            layer.momentum = NORMALIZATION_MOMENTUM
    return copy


def from_base(base: Bundle, task: Task, architecture: str | None = None) -> keras.Model:
    """A network that starts from a bundle's weights.

    Args:
        base: its files are checked before Keras sees them.
        task: with the base's own charset and lengths, everything is kept. Else the heads are new,
            but a character that the base knows, in this case or the other, keeps its weights.
        architecture: the base's own by default. Another one of the same depth with fewer channels
            gets those that matter most to the base.

    Raises:
        BundleError: when the base holds no weights, not those that its manifest describes, or fewer
            layers or channels than the architecture.
    """
    manifest = base.manifest
    architecture = architecture or manifest.architecture
    model = load_weights(base.read(WEIGHTS), manifest)
    same = (manifest.charset, manifest.length, manifest.min_length, manifest.architecture)
    if same == (task.charset, task.length, task.min_length, architecture):
        return model
    target = fresh(architecture, task)
    kept = _carry_convolutions(model, target, manifest.name)
    _carry_the_rest(model, target, kept, _class_map(manifest, task))
    return target


def _kinds(model: keras.Model) -> tuple[list[Any], list[Any], dict[str, Any]]:
    """The convolutions, their normalizations if any, and the other layers with weights by name."""
    convolutions = [each for each in model.layers if type(each).__name__ == "Conv2D"]
    normalizations = [each for each in model.layers if hasattr(each, "moving_mean")]
    known = {id(each) for each in (*convolutions, *normalizations)}
    rest = {each.name: each for each in model.layers if each.weights and id(each) not in known}
    return convolutions, normalizations, rest


def _carry_convolutions(model: keras.Model, target: keras.Model, name: str) -> NDArray[np.int64]:
    """Give a network the convolutions of another; returns which of the last channels it kept.

    A channel matters as much as its normalization scales it and the next layer makes of it.
    """
    olds, norms, rest = _kinds(model)
    news, new_norms, _ = _kinds(target)
    widths = [(old.filters, new.filters) for old, new in zip(olds, news, strict=False)]
    if len(olds) != len(news) or any(new > old for old, new in widths):
        raise BundleError(
            f"a network with {[each.filters for each in news]} channels cannot start from "
            f"{name!r}, which has {[each.filters for each in olds]}"
        )
    kept = np.arange(1)
    for i, (old, new) in enumerate(zip(olds, news, strict=True)):
        kernel, *bias = old.get_weights()
        chosen = np.arange(old.filters)
        if new.filters < old.filters:
            reader = olds[i + 1] if i + 1 < len(olds) else rest[MAPS]
            matters = np.square(reader.get_weights()[0]).sum(axis=-1)
            matters = matters.reshape(-1, old.filters).sum(axis=0)
            if norms:
                matters = matters * np.square(norms[i].get_weights()[0])
            chosen = np.sort(np.argsort(matters)[-new.filters :])
        new.set_weights([kernel[:, :, kept][..., chosen], *(each[chosen] for each in bias)])
        if norms:
            new_norms[i].set_weights([each[chosen] for each in norms[i].get_weights()])
        kept = chosen
    return kept


def _carry_the_rest(
    model: keras.Model, target: keras.Model, kept: NDArray[np.int64], classes: NDArray[np.int64]
) -> None:
    """Give a network the dense layers of another where they fit.

    Classifiers are carried class by class, and maps head by head: texts begin at the left, whatever
    their length.
    """
    before, after = _kinds(model)[2], _kinds(target)[2]
    channels = target.get_layer("features").output.shape[-1]
    for name, layer in after.items():
        if name not in before:
            continue
        values = []
        for old, new in zip(before[name].get_weights(), layer.get_weights(), strict=True):
            value = old[kept] if new.ndim > 1 and len(new) == channels == len(kept) else old
            if value.shape[:-1] == new.shape[:-1]:
                if name.startswith(CLASSIFIERS):
                    value = np.where(classes >= 0, value[..., np.maximum(classes, 0)], new)
                elif name in {MAPS, COUNT}:
                    theirs = value.reshape(-1, model.output_shape[1])
                    ours = new.reshape(-1, target.output_shape[1])
                    same = min(theirs.shape[1], ours.shape[1])
                    both = np.concatenate([theirs[:, :same], ours[:, same:]], axis=1)
                    value = both.reshape(new.shape)
            values.append(value if value.shape == new.shape else new)
        layer.set_weights(values)


def _class_map(manifest: Manifest, task: Task) -> NDArray[np.int64]:
    """For each class of the task the class of the base that means the same, or -1.

    A letter that the base lacks starts from the same letter in the other case: a base that folds
    cases has seen both.
    """
    known = {character: i for i, character in enumerate(manifest.charset)}
    found = [known.get(c, known.get(c.lower(), known.get(c.upper(), -1))) for c in task.charset]
    if task.classes > len(task.charset):
        found.append(manifest.classes - 1 if manifest.classes > len(manifest.charset) else -1)
    return np.array(found)
