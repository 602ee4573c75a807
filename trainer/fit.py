"""Teach a reader one site's captchas, from labelled images."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scrapy_captcha.bundle import MODEL, WEIGHTS, Bundle, Manifest, described, open_bundle
from scrapy_captcha.page import check_place
from scrapy_captcha.recognizer import decode_logits
from trainer import corpus
from trainer.checkpoint import Checkpoint, cache_folder
from trainer.conversion import litert_logits
from trainer.evaluate import Score, score
from trainer.finish import finish, golden_images, provenance, versions
from trainer.plan import (
    Emphasis,
    Options,
    Schedule,
    Split,
    check_out,
    check_task,
    choose_architecture,
    choose_case,
    choose_emphasis,
    choose_schedule,
    choose_task,
    describe,
    identity,
    origin,
    remaining,
    split,
)
from trainer.quiet import import_tensorflow
from trainer.replay import drawing
from trainer.report import Report

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import keras

    from trainer.corpus import Corpus, Task
    from trainer.export import Packed
    from trainer.loop import Epoch, Labelled, Training
    from trainer.progress import Lines
    from trainer.replay import Drawing

#: Replay is waited for at most so long, and at most for this share of the time.
REPLAY_SECONDS = 30.0
REPLAY_SHARE = 0.15


@dataclass(frozen=True)
class Job:
    """A fit that can be done: all that can be checked without TensorFlow has been.

    Args:
        base: what it starts from, if anything.
        parts: what is trained on, and the holdout if there are images enough for one.
    """

    options: Options
    base: Bundle | None
    loaded: Corpus
    task: Task
    emphasis: Emphasis
    architecture: str
    parts: Split

    @property
    def train_on(self) -> Corpus:
        """What is learnt from."""
        return self.parts.train_on

    @property
    def held(self) -> Corpus | None:
        """The holdout, if there is one."""
        return self.parts.held

    @property
    def shown(self) -> Corpus:
        """What the result is shown on: the holdout, or without one what it was trained on."""
        return self.held or self.train_on


@dataclass(frozen=True)
class Fitted:
    """A trained challenger, not written yet.

    Args:
        packed: the new version of the bundle.
        before: the base on the holdout, if there are both and it can read the task.
        after: the challenger on the same images, through LiteRT.
        report: the page on it.
        checkpoint: what the training would go on from; to be removed once all is written.
    """

    packed: Packed
    before: Score | None
    after: Score | None
    report: Report
    checkpoint: Checkpoint


def prepare(options: Options) -> Job:
    """Load and check everything that a fit needs.

    Raises:
        DatasetError: when the images or their labels do not fit, or there is too little disk.
        BundleError: when the base is missing or damaged, or ``out`` is no place for a bundle.
    """
    check_out(options.out)
    if options.report and options.report.parent != options.out:
        check_place(options.report)
    base = open_bundle(options.base) if options.base else None
    if base:
        for name in (MODEL, WEIGHTS):
            base.read(name)  # what is damaged is found now, not after training
    manifest = base.manifest if base else None
    loaded = corpus.load(options.datasets, choose_case(options, manifest))
    task = choose_task(options, manifest, loaded)
    check_task(task, loaded)
    parts = split(loaded, manifest)
    job = Job(
        options=options,
        base=base,
        loaded=loaded,
        task=task,
        emphasis=choose_emphasis(options, task, parts.train_on),
        architecture=choose_architecture(options, manifest),
        parts=parts,
    )
    described(manifest_of(job, {}), {MODEL: b""})  # else nobody could open what is written
    return job


def fit(options: Options, reporter: Lines) -> Fitted:
    """Train a bundle on labelled images; everything that can be wrong is checked first.

    Args:
        options: what to train on, from and for how long.
        reporter: told what is going on.

    Raises:
        DatasetError: when the images or their labels do not fit, or there is too little disk.
        BundleError: when the base is missing or damaged, ``out`` is no place for a bundle, or no
            conversion says what the network says.
        ModuleNotFoundError: when TensorFlow is not installed.
    """
    start = time.monotonic()
    job = prepare(options)
    reporter.say("\n".join([*job.loaded.notes, describe(job.parts, job.task)]))
    with drawing(job.task, options.seed, options.replay) as started:
        import_tensorflow()
        import keras  # noqa: PLC0415

        from trainer.transfer import faster, fresh, from_base  # noqa: PLC0415

        reporter.say(origin(job.base.manifest if job.base else None, job.task, job.architecture))
        keras.utils.set_random_seed(options.seed)
        model = from_base(job.base, job.task) if job.base else fresh(job.architecture, job.task)
        student = faster(model, job.architecture)
        replay = take(started, options, reporter)
    schedule = choose_schedule(
        len(job.train_on.samples),
        seconds=remaining(options, time.monotonic() - start),
        known=job.base is not None,
        epochs=options.epochs,
        replay=options.replay if replay else 0.0,
    )
    checkpoint = Checkpoint(identity(options, job.base, job.loaded, job.task), cache_folder())
    training = learn(
        job, student, schedule, replay=replay, checkpoint=checkpoint, reporter=reporter
    )
    model.set_weights(student.get_weights())
    return measure(job, model, schedule, training.history, checkpoint)


def take(started: Drawing | None, options: Options, reporter: Lines) -> Labelled | None:
    """The images for replay, with a line on them; none are no reason to give up."""
    from trainer.loop import Labelled  # noqa: PLC0415

    if started is None:
        return None
    drawn = started.take(min(REPLAY_SECONDS, REPLAY_SHARE * options.minutes * 60))
    if drawn.problem:
        reporter.say(f"replay: {drawn.problem}")
    if not len(drawn.images):
        reporter.say("replay: going on without synthetic images")
        return None
    return Labelled(drawn.images, drawn.classes)


def learn(
    job: Job,
    student: keras.Model,
    schedule: Schedule,
    *,
    replay: Labelled | None,
    checkpoint: Checkpoint,
    reporter: Lines,
) -> Training:
    """Train, from the checkpoint of a fit that was stopped if there is one."""
    from trainer.loop import Learner, Training, label  # noqa: PLC0415

    training = Training(
        Learner(student, job.emphasis),
        label(job.train_on, job.task),
        label(job.held, job.task) if job.held else None,
        schedule,
        job.options.seed,
        replay=replay,
    )
    if checkpoint.restore(training):
        reporter.say(f"going on after epoch {len(training.history)} of a fit that was stopped")
    try:
        training.run(reporter, lambda: checkpoint.save(training))
    except KeyboardInterrupt:
        if checkpoint.path.exists():
            reporter.say("stopped; the same command will go on from the last checkpoint")
        raise
    return training


def manifest_of(job: Job, made: dict[str, Any]) -> Manifest:
    """What can be said of the new version before it is measured."""
    return Manifest(
        name=job.options.out.resolve().name,
        charset=job.task.charset,
        length=job.task.length,
        min_length=job.task.min_length,
        architecture=job.architecture,
        case=job.task.case,
        temperature=job.base.manifest.temperature if job.base else 1.0,
        provenance=made,
        calibration={"method": "inherited from the base" if job.base else "none"},
        accuracy={"n": 0},
    )


def settings(job: Job, schedule: Schedule, manifest: Manifest) -> dict[str, object]:
    """What a fit was made with, for its report."""
    made, emphasis = manifest.provenance, job.emphasis
    characters = zip(job.task.charset, emphasis.classes or (), strict=False)
    return {
        "datasets": ", ".join(job.options.datasets),
        "base": f"{made['base']['name']} ({made['base']['model']})" if made["base"] else "none",
        "architecture": job.architecture,
        "images trained on": made["trained_on"],
        "images held out": made["held_out"],
        "characters": job.task.charset,
        "length": job.task.lengths,
        "case": job.task.case,
        "seed": made["seed"],
        "steps": f"{made['steps']} of {schedule.steps}",
        "seconds of training": made["seconds"],
        "batch": f"{schedule.own} of the site and {schedule.replayed} drawn",
        "highest learning rate": schedule.learning_rate,
        "weights of positions": ", ".join(f"{weight:g}" for weight in emphasis.heads),
        "weights of characters": ", ".join(f"{c} {w:g}" for c, w in characters) or "the same",
        "label smoothing": emphasis.label_smoothing,
        "weights in the model file": made["export"]["weights"],
        "temperature": manifest.temperature,
    }


def measure(
    job: Job,
    model: keras.Model,
    schedule: Schedule,
    history: Sequence[Epoch],
    checkpoint: Checkpoint,
) -> Fitted:
    """Convert a network, calibrate it, and compare it with its base on the holdout."""
    base, held, shown = job.base, job.held, job.shown
    made = provenance(
        "fit",
        base,
        trained_on=len(job.train_on.samples),
        held_out=len(held.samples) if held else 0,
        seed=job.options.seed,
        steps=history[-1].step if history else 0,
        seconds=history[-1].seconds if history else 0.0,
        seen=job.parts.marks,
    )
    finished = finish(
        model,
        manifest_of(job, made),
        shown,
        golden_images=golden_images(model, shown),
        on="holdout" if held else None,
    )
    packed, manifest, after = finished.packed, finished.packed.manifest, finished.score
    before = score_base(base, manifest, held) if base and held else None
    doubt = after.calibration_warning if held else None
    few = f"{job.parts.reason.capitalize()}: nothing was held out, so nothing is measured."
    warning = job.parts.warning
    return Fitted(
        packed,
        before,
        after if held else None,
        Report(
            title=manifest.name,
            about=f"{after.n} images {'held out' if held else 'that it was trained on'}",
            samples=shown.samples,
            readings=finished.readings,
            score=after,
            measured=held is not None,
            before=before,
            history=history,
            notes=[
                *([] if held else [few]),
                *([warning] if warning else []),
                *([doubt] if doubt else []),
                *job.loaded.notes,
                *packed.notes,
            ],
            settings=settings(job, schedule, manifest),
            versions=versions(),
        ),
        checkpoint,
    )


def score_base(base: Bundle, manifest: Manifest, held: Corpus) -> Score | None:
    """The base on the holdout, told the charset and length; ``None`` if it cannot read those."""
    length = manifest.length if manifest.length == manifest.min_length else None
    logits = litert_logits(base.read(MODEL), held.images)
    try:
        readings = [decode_logits(row, base.manifest, manifest.charset, length) for row in logits]
    except ValueError:
        return None
    return score(readings, held.labels)


def summary(fitted: Fitted, folder: Path) -> str:
    """The last lines of a fit."""
    lines = list(fitted.packed.notes)
    if fitted.after is None:
        found = fitted.report.score
        lines.append(
            f"not measured: nothing was held out "
            f"(reads {found.hits} of the {found.n} images that it was trained on)"
        )
    else:
        low, high = fitted.after.interval
        before = f"{fitted.before.exact_match:.4f}" if fitted.before else "nothing to compare with"
        lines += [
            f"before   {before}",
            f"after    {fitted.after.exact_match:.4f} (95 %: {low:.4f} to {high:.4f}), "
            f"exact match on {fitted.after.n} held out",
            f"calibration error {fitted.after.calibration_error:.4f}, "
            f"coverage at 99 % {fitted.after.coverage:.4f}",
        ]
        if doubt := fitted.after.calibration_warning:
            lines.append(doubt)
    return "\n".join([*lines, *fitted.packed.oversize(), f"written  {folder}"])
