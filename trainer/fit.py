"""Teach a reader one site's captchas, from labelled images."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from scrapy_captcha.bundle import MODEL, Bundle, Manifest, open_bundle
from scrapy_captcha.recognizer import decode_logits, softmax
from trainer import corpus
from trainer.calibration import fit_temperature
from trainer.checkpoint import Checkpoint, cache_folder
from trainer.evaluate import Score, score
from trainer.plan import (
    HOLDOUT_FROM,
    Options,
    check_out,
    choose_architecture,
    choose_case,
    choose_head_weights,
    choose_schedule,
    choose_task,
    describe,
    identity,
    origin,
    remaining,
    split,
    versions,
)
from trainer.quiet import import_tensorflow

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import keras

    from trainer.corpus import Corpus
    from trainer.export import Packed
    from trainer.loop import Epoch
    from trainer.progress import Lines

GOLDEN_IMAGES = 4
MAX_GOLDEN_BYTES = 64 << 10


@dataclass(frozen=True)
class Fitted:
    """A trained challenger, not written yet.

    Args:
        packed: the new version of the bundle.
        before: the base on the holdout, if there are both and it can read the task.
        after: the challenger on the same images, through LiteRT.
    """

    packed: Packed
    before: Score | None
    after: Score | None


def fit(options: Options, reporter: Lines) -> Fitted:
    """Train a bundle on labelled images; everything that can be wrong is checked first.

    Args:
        options: what to train on, from and for how long.
        reporter: told what is going on.

    Raises:
        DatasetError: when the images or their labels do not fit, or there is too little disk.
        BundleError: when the base is missing or damaged, or ``out`` is no place for a bundle.
        ModuleNotFoundError: when TensorFlow is not installed.
    """
    start = time.monotonic()
    check_out(options.out)
    base = open_bundle(options.base) if options.base else None
    manifest = base.manifest if base else None
    loaded = corpus.load(options.datasets, choose_case(options, manifest))
    task = choose_task(options, manifest, loaded)
    corpus.check_labels(loaded.samples, task)
    weights = choose_head_weights(options, task)
    architecture = choose_architecture(options, manifest)
    train_on, held = split(loaded)
    about = (describe(train_on, held, task), origin(manifest, task, architecture))
    for line in (*loaded.notes, *about):
        reporter.say(line)

    import_tensorflow()
    import keras  # noqa: PLC0415

    from trainer.loop import Learner, Training, label  # noqa: PLC0415
    from trainer.transfer import faster, fresh, from_base  # noqa: PLC0415

    keras.utils.set_random_seed(options.seed)
    model = from_base(base, task) if base else fresh(architecture, task)
    student = faster(model, architecture)
    schedule = choose_schedule(
        len(train_on.samples),
        seconds=remaining(options, time.monotonic() - start),
        known=base is not None,
        epochs=options.epochs,
    )
    training = Training(
        Learner(student, weights),
        label(train_on, task),
        label(held, task) if held else None,
        schedule,
        options.seed,
    )
    checkpoint = Checkpoint(identity(options, base, loaded, task), cache_folder())
    if checkpoint.restore(training):
        reporter.say(f"going on after epoch {len(training.history)} of a fit that was stopped")
    training.run(reporter, lambda: checkpoint.save(training))
    model.set_weights(student.get_weights())
    unmeasured = Manifest(
        name=options.out.resolve().name,
        charset=task.charset,
        length=task.length,
        min_length=task.min_length,
        architecture=architecture,
        case=task.case,
        temperature=manifest.temperature if manifest else 1.0,
        provenance=provenance(options, base, train_on, held, training.history),
    )
    fitted = measure(model, unmeasured, base=base, train_on=train_on, held=held)
    checkpoint.remove()
    return fitted


def provenance(
    options: Options,
    base: Bundle | None,
    train_on: Corpus,
    held: Corpus | None,
    history: Sequence[Epoch],
) -> dict[str, Any]:
    """How the model came to be."""
    return {
        "recipe": "fit",
        "base": {"name": base.manifest.name, "model": base.hash} if base else None,
        "trained_on": len(train_on.samples),
        "held_out": len(held.samples) if held else 0,
        "seed": options.seed,
        "steps": history[-1].step if history else 0,
        "seconds": round(history[-1].seconds, 1) if history else 0.0,
        "versions": versions(),
    }


def measure(
    model: keras.Model,
    manifest: Manifest,
    *,
    base: Bundle | None,
    train_on: Corpus,
    held: Corpus | None,
) -> Fitted:
    """Convert a network, calibrate it, and compare it with its base on the holdout."""
    from trainer.export import litert_logits, pack  # noqa: PLC0415

    packed = pack(model, manifest, golden_images(model, held or train_on))
    if held is None:
        calibration = {"method": "inherited from the base" if base else "none"}
        manifest = replace(packed.manifest, calibration=calibration, accuracy={"n": 0})
        return Fitted(replace(packed, manifest=manifest), None, None)
    logits = litert_logits(packed.files[MODEL], held.images)
    temperature = fit_temperature(logits, held.labels, packed.manifest)
    manifest = replace(packed.manifest, temperature=round(temperature, 4))
    after = score([decode_logits(row, manifest) for row in logits], held.labels)
    manifest = replace(
        manifest,
        accuracy={**after.as_dict(), "on": "holdout"},
        calibration={
            "method": "temperature, on the holdout",
            "ece": round(after.calibration_error, 4),
            "n": after.n,
        },
    )
    before = score_base(base, manifest, held) if base else None
    return Fitted(replace(packed, manifest=manifest), before, after)


def score_base(base: Bundle, manifest: Manifest, held: Corpus) -> Score | None:
    """The base on the holdout, told the charset and length; ``None`` if it cannot read those."""
    from trainer.export import litert_logits  # noqa: PLC0415

    length = manifest.length if manifest.length == manifest.min_length else None
    logits = litert_logits(base.read(MODEL), held.images)
    try:
        readings = [decode_logits(row, base.manifest, manifest.charset, length) for row in logits]
    except ValueError:
        return None
    return score(readings, held.labels)


def golden_images(model: keras.Model, shown: Corpus) -> list[bytes]:
    """The small images that a network is surest of: they tell a damaged bundle on any processor."""
    from trainer.export import keras_logits  # noqa: PLC0415

    surest = softmax(keras_logits(model, shown.images)).max(axis=-1).min(axis=-1).argsort()[::-1]
    small = (shown.samples[i].data for i in surest)
    return list(islice((data for data in small if len(data) <= MAX_GOLDEN_BYTES), GOLDEN_IMAGES))


def summary(fitted: Fitted, folder: Path) -> str:
    """The last lines of a fit."""
    written = f"written  {folder}"
    if fitted.after is None:
        return f"not measured: fewer than {HOLDOUT_FROM} labels\n{written}"
    low, high = fitted.after.interval
    before = f"{fitted.before.exact_match:.4f}" if fitted.before else "nothing to compare with"
    return (
        f"before   {before}\n"
        f"after    {fitted.after.exact_match:.4f} (95 %: {low:.4f} to {high:.4f}), "
        f"exact match on {fitted.after.n} held out\n"
        f"calibration error {fitted.after.calibration_error:.4f}, "
        f"coverage at 99 % {fitted.after.coverage:.4f}\n"
        f"{written}"
    )
