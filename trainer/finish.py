"""The end of every training: convert the network, calibrate it, measure it, say how it was made."""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace
from importlib import metadata
from itertools import islice
from typing import TYPE_CHECKING, Any

from scrapy_captcha.bundle import MODEL
from scrapy_captcha.recognizer import decode_logits, softmax
from trainer.calibration import fit_temperature
from trainer.conversion import keras_logits, litert_logits
from trainer.evaluate import Score, score
from trainer.export import Packed, pack

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import keras

    from scrapy_captcha.bundle import Bundle, Manifest
    from scrapy_captcha.recognizer import Recognition
    from trainer.corpus import Corpus

GOLDEN_IMAGES = 4
MAX_GOLDEN_BYTES = 64 << 10
#: Under this name a manifest keeps what later fits must not measure on: see `trainer.plan.split`.
SEEN = "trained_on_of_the_holdout"
#: Whose versions a result depends on.
PACKAGES = ("scrapy-captcha", "tensorflow", "keras", "numpy", "pillow")


@dataclass(frozen=True)
class Finished:
    """A trained network as a version of a bundle, not written yet.

    Args:
        readings: what it reads in the images that it is shown on, through LiteRT.
        score: the same in figures.
    """

    packed: Packed
    readings: list[Recognition]
    score: Score


def finish(
    model: keras.Model,
    manifest: Manifest,
    shown: Corpus,
    *,
    golden_images: Sequence[bytes],
    on: str | None,
) -> Finished:
    """Convert a network, and calibrate and measure the model file that comes of it.

    Args:
        model: the trained network.
        manifest: what is said of it; its temperature, accuracy and calibration are filled in if
            the images are new to it.
        shown: images and labels.
        golden_images: see `pack`.
        on: what the images are, for the manifest; ``None`` if the network was trained on them, so
            that nothing can be measured on them.

    Raises:
        BundleError: when no conversion says what the network says.
    """
    packed = pack(model, manifest, golden_images, shown)
    manifest = packed.manifest
    logits = litert_logits(packed.files[MODEL], shown.images)
    if on is not None:
        temperature = fit_temperature(logits, shown.labels, manifest)
        manifest = replace(manifest, temperature=round(temperature, 4))
    readings = [decode_logits(row, manifest) for row in logits]
    found = score(readings, shown.labels)
    if on is not None:
        manifest = replace(
            manifest,
            accuracy={**found.as_dict(), "on": on},
            calibration={
                "method": f"temperature, on the {on}",
                "ece": round(found.calibration_error, 4),
                "ece_by_chance": round(found.chance_error, 4),
                "n": found.n,
            },
        )
    return Finished(replace(packed, manifest=manifest), readings, found)


def golden_images(model: keras.Model, shown: Corpus) -> list[bytes]:
    """The small images that a network is surest of: they tell a damaged bundle on any processor."""
    surest = softmax(keras_logits(model, shown.images)).max(axis=-1).min(axis=-1).argsort()[::-1]
    found = (shown.samples[i].data for i in surest)
    small = (data for data in found if 0 < len(data) <= MAX_GOLDEN_BYTES)
    return list(islice(small, GOLDEN_IMAGES))


def provenance(
    recipe: str,
    base: Bundle | None,
    *,
    trained_on: int,
    held_out: int,
    seed: int,
    steps: int,
    seconds: float,
    seen: Iterable[str] = (),
    **more: Any,
) -> dict[str, Any]:
    """How a model came to be, for its manifest.

    Args:
        recipe: "fit" on labelled images, or "pretrain" on drawn ones.
        base: what it started from.
        trained_on: number of images.
        held_out: number of images.
        seed: of everything.
        steps: batches that it has seen.
        seconds: of training.
        seen: marks of images that it was trained on and that later fits could hold out; those that
            the base has are added.
        more: what that recipe alone knows.
    """
    inherited = base.manifest.provenance.get(SEEN, ()) if base else ()
    return {
        "recipe": recipe,
        "base": {"name": base.manifest.name, "model": base.hash} if base else None,
        "trained_on": trained_on,
        "held_out": held_out,
        "seed": seed,
        "steps": steps,
        "seconds": round(seconds, 1),
        **more,
        SEEN: sorted({*seen, *inherited}),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Of what a result depends on; a checkout that is not installed has none of its own."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
