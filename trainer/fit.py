"""Teach a reader one site's captchas, from labelled images."""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import dataclass, replace
from importlib import metadata
from typing import TYPE_CHECKING, Any

from scrapy_captcha.bundle import CURRENT, MODEL, Bundle, Manifest, open_bundle
from scrapy_captcha.errors import BundleError, DatasetError
from scrapy_captcha.recognizer import decode_logits
from trainer import corpus
from trainer.calibration import fit_temperature
from trainer.corpus import Corpus, Task
from trainer.evaluate import Score, score
from trainer.quiet import import_tensorflow

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import keras

    from trainer.export import Packed
    from trainer.loop import Epoch, Schedule
    from trainer.progress import Lines

#: Fewer labels than this are all trained on, for a fixed time.
HOLDOUT_FROM = 200
DEFAULT_ARCHITECTURE = "four_head_compact"
#: What a version takes on the disk at most, several times over.
FREE_BYTES = 32 << 20
#: Seconds that are left for measuring and writing when training ends.
RESERVED = 12.0
SCRATCH_PASSES = 30
GOLDEN_IMAGES = 4
MAX_GOLDEN_BYTES = 64 << 10


@dataclass(frozen=True)
class Options:
    """What the command line asks for.

    Args:
        datasets: what `trainer.corpus.gather` takes.
        out: the bundle's folder.
        base: a shipped name or the path of a bundle; ``None`` starts from scratch.
        minutes: for the whole command.
        architecture: only from scratch, a base brings its own.
        charset: ``None`` for the base's, or else what the labels hold.
        lengths: shortest and longest text; ``None`` for the base's, or else what the labels have.
        head_weights: one weight a head in the loss.
        epochs: passes over the images, instead of the built-in schedule.
    """

    datasets: tuple[str, ...]
    out: Path
    base: str | None = None
    minutes: float = 3.0
    seed: int = 0
    architecture: str | None = None
    charset: str | None = None
    lengths: tuple[int, int] | None = None
    head_weights: tuple[float, ...] | None = None
    epochs: int | None = None


@dataclass(frozen=True)
class Fitted:
    """A trained challenger, not written yet.

    Args:
        packed: the new version of the bundle.
        before: the base on the holdout, if there are both and it can read the task.
        after: the challenger on the same images, through LiteRT.
        history: the epochs.
    """

    packed: Packed
    before: Score | None
    after: Score | None
    history: tuple[Epoch, ...]


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
    for note in loaded.notes:
        reporter.say(note)

    import_tensorflow()
    import keras  # noqa: PLC0415

    from trainer.loop import Labelled, Learner, Training  # noqa: PLC0415
    from trainer.transfer import faster, fresh, from_base  # noqa: PLC0415

    keras.utils.set_random_seed(options.seed)
    if base:
        model, whole = from_base(base, task)
        reporter.say(f"starting from {options.base}" + ("" if whole else " with new heads"))
    else:
        model, whole = fresh(architecture, task), False
        reporter.say(f"starting {architecture} from scratch")
    train_on, held = split(loaded)
    reporter.say(describe(train_on, held, task))
    spare = options.minutes * 60 - (time.monotonic() - start) - RESERVED
    schedule = choose_schedule(
        len(train_on.samples),
        seconds=max(spare, options.minutes * 6),
        known=base is not None,
        holdout=held is not None,
        epochs=options.epochs,
    )
    student = faster(model, architecture)
    training = Training(
        Learner(student, weights),
        Labelled(train_on.images, corpus.encode(train_on.labels, task)),
        Labelled(held.images, corpus.encode(held.labels, task)) if held else None,
        schedule,
        options.seed,
    )
    training.run(reporter)
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
    return measure(
        model,
        unmeasured,
        base=base,
        train_on=train_on,
        held=held,
        history=tuple(training.history),
    )


def check_out(out: Path) -> None:
    """Make sure that a bundle could be written there, before any work is done.

    Raises:
        BundleError: when something else is there.
        DatasetError: when the disk is nearly full.
    """
    if out.exists() and (
        not out.is_dir() or (any(out.iterdir()) and not (out / CURRENT).is_file())
    ):
        raise BundleError(f"{out} exists and is not a bundle of versions; choose another folder")
    existing = next(
        folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists()
    )
    free = shutil.disk_usage(existing).free
    if free < FREE_BYTES:
        raise DatasetError(
            f"too little disk at {existing}: {free >> 20} MB are free, {FREE_BYTES >> 20} needed"
        )


def choose_case(options: Options, base: Manifest | None) -> str:
    """Whether labels are folded: unless a charset has letters of both cases, or the base none."""
    if options.charset is None:
        return base.case if base else "lower"
    both = options.charset not in {options.charset.lower(), options.charset.upper()}
    return "as-is" if both else "lower"


def choose_task(options: Options, base: Manifest | None, loaded: Corpus) -> Task:
    """Charset and lengths: as told, else the base's, else what the labels have.

    Raises:
        DatasetError: when labels without characters leave nothing to choose.
    """
    case = choose_case(options, base)
    lengths = [len(label) for label in loaded.labels if label]
    if not lengths:
        raise DatasetError(
            f"none of {len(loaded.samples)} files has a label: expected LABEL.png or LABEL_x.png"
        )
    if options.charset is not None:
        folded = options.charset.lower() if case == "lower" else options.charset
        charset = "".join(dict.fromkeys(folded))
    else:
        charset = base.charset if base else "".join(sorted(set("".join(loaded.labels))))
    if options.lengths is not None:
        shortest, longest = options.lengths
    else:
        shortest = base.min_length if base else min(lengths)
        longest = base.length if base else max(lengths)
    return Task(charset, longest, shortest, case)


def choose_head_weights(options: Options, task: Task) -> tuple[float, ...]:
    """One weight a head, all of them one unless told otherwise.

    Raises:
        DatasetError: when there are more or fewer than heads.
    """
    weights = options.head_weights or (1.0,) * task.length
    if len(weights) != task.length:
        raise DatasetError(
            f"expected {task.length} head weights, one a character, got {len(weights)}"
        )
    return weights


def choose_architecture(options: Options, base: Manifest | None) -> str:
    """The base's architecture, or the one asked for.

    Raises:
        BundleError: when they differ.
    """
    if base and options.architecture not in {None, base.architecture}:
        raise BundleError(
            f"the base {base.name!r} is a {base.architecture}, not a {options.architecture}: "
            "leave out --architecture, or --base"
        )
    return base.architecture if base else options.architecture or DEFAULT_ARCHITECTURE


def split(loaded: Corpus) -> tuple[Corpus, Corpus | None]:
    """What is trained on, and the holdout if there are labels enough for one."""
    held = loaded.held_out()
    if len(held) < HOLDOUT_FROM or not held.any():
        return loaded, None
    return loaded.pick(~held), loaded.pick(held)


def describe(train_on: Corpus, held: Corpus | None, task: Task) -> str:
    """A line on what is about to be learnt."""
    text = f"{len(train_on.samples)} images of {task.lengths} characters out of {len(task.charset)}"
    if held is None:
        return (
            f"{text}; fewer than {HOLDOUT_FROM}: all are trained on, for a fixed time, no holdout"
        )
    return f"{text}, and {len(held.samples)} held out"


def choose_schedule(
    count: int, *, seconds: float, known: bool, holdout: bool, epochs: int | None
) -> Schedule:
    """How long to train, and how fast.

    Args:
        count: images to train on.
        seconds: at most.
        known: whether a base knows the features already.
        holdout: whether epochs can be compared.
        epochs: passes over the images; ``None`` chooses.
    """
    from trainer.loop import Schedule  # noqa: PLC0415

    batch = 32 if count < HOLDOUT_FROM else 64
    one_pass = math.ceil(count / batch)
    epoch_steps = max(one_pass, 40)
    if known:
        steps = max(400 if count < HOLDOUT_FROM else 600, 8 * one_pass)
    else:
        steps = max(1500, SCRATCH_PASSES * one_pass)
    if epochs is not None:
        epoch_steps, steps = one_pass, epochs * one_pass
    return Schedule(
        steps=steps,
        epoch_steps=epoch_steps,
        batch=batch,
        learning_rate=1e-3 if known else 2e-3,
        seconds=seconds,
        patience=8 if holdout else None,
    )


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
        "versions": {name: metadata.version(name) for name in ("tensorflow", "keras", "numpy")},
    }


def measure(
    model: keras.Model,
    manifest: Manifest,
    *,
    base: Bundle | None,
    train_on: Corpus,
    held: Corpus | None,
    history: tuple[Epoch, ...],
) -> Fitted:
    """Convert a network, calibrate it, and compare it with its base on the holdout."""
    from trainer.export import litert_logits, pack  # noqa: PLC0415

    shown = held or train_on
    packed = pack(model, manifest, golden_images(shown))
    if held is None:
        calibration = {"method": "inherited from the base" if base else "none"}
        manifest = replace(packed.manifest, calibration=calibration, accuracy={"n": 0})
        return Fitted(replace(packed, manifest=manifest), None, None, history)
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
    return Fitted(replace(packed, manifest=manifest), before, after, history)


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


def golden_images(shown: Corpus) -> list[bytes]:
    """A few small images, spread over the corpus, that prove a bundle's parts belong together."""
    small = [sample.data for sample in shown.samples if len(sample.data) <= MAX_GOLDEN_BYTES]
    every = max(1, len(small) // GOLDEN_IMAGES)
    return small[::every][:GOLDEN_IMAGES]


def summary(fitted: Fitted, folder: Path) -> str:
    """The last lines of a fit."""
    rows = []
    if fitted.after:
        low, high = fitted.after.interval
        before = f"{fitted.before.exact_match:.4f}" if fitted.before else "not comparable"
        rows = [
            f"before   {before}" if fitted.before else "before   nothing to compare with",
            f"after    {fitted.after.exact_match:.4f} (95 %: {low:.4f} to {high:.4f}), "
            f"exact match on {fitted.after.n} held out",
            f"calibration error {fitted.after.calibration_error:.4f}, "
            f"coverage at 99 % {fitted.after.coverage:.4f}",
        ]
    else:
        rows = [f"not measured: fewer than {HOLDOUT_FROM} labels"]
    return "\n".join([*rows, f"written  {folder}"])
