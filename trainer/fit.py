"""Teach a reader one site's captchas, from labelled images."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scrapy_captcha.bundle import (
    MODEL,
    WEIGHTS,
    Bundle,
    Manifest,
    described,
    open_bundle,
    safe_name,
)
from scrapy_captcha.page import check_place
from trainer import corpus
from trainer.champion import judge, present, readings
from trainer.checkpoint import Checkpoint, cache_folder, identity
from trainer.evaluate import score
from trainer.finish import finish, golden_images, provenance, versions
from trainer.outcome import Fitted
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
    origin,
    remaining,
    split,
)
from trainer.quiet import import_tensorflow
from trainer.rejections import Rejected, load_rejected
from trainer.replay import drawing
from trainer.report import Report

if TYPE_CHECKING:
    from collections.abc import Sequence

    import keras

    from trainer.corpus import Corpus, Task
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
        rejected: images of which only wrong readings are known.
        champion: the version that is there already and has to be beaten.
    """

    options: Options
    base: Bundle | None
    loaded: Corpus
    task: Task
    emphasis: Emphasis
    architecture: str
    parts: Split
    rejected: Rejected
    champion: Bundle | None

    @property
    def learn_from(self) -> Rejected | None:
        """The rejected images that are learnt from, if any are."""
        if not self.options.rejected or not len(self.rejected):
            return None
        chosen = self.rejected.pick(~self.rejected.held_out())
        return chosen if len(chosen) else None

    @property
    def compare_on(self) -> Rejected:
        """The rejected images that champion and challenger are compared on."""
        if not self.options.rejected:
            return self.rejected
        return self.rejected.pick(self.rejected.held_out())

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
    champion = present(options.out)
    job = Job(
        options=options,
        base=base,
        loaded=loaded,
        task=task,
        emphasis=choose_emphasis(options, task, parts.train_on),
        architecture=choose_architecture(options, manifest, task),
        parts=parts,
        rejected=load_rejected(options.datasets if options.rejected or champion else (), task),
        champion=champion,
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
    doubted = corpus.doubt(job.loaded.conflicts, job.task)
    reporter.say("\n".join([*job.loaded.notes, *doubted, describe(job.parts, job.task)]))
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
    refused = job.learn_from.digests if job.learn_from else ()
    checkpoint = Checkpoint(
        identity(options, job.base, job.loaded, job.task, refused), cache_folder()
    )
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
        rejected=job.learn_from,
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
        name=safe_name(job.options.out.resolve().name),
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
        "rejected images trained on": len(job.learn_from) if job.learn_from else 0,
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
    read = readings(base, manifest, held.images) if base and held else None
    before = score(read, held.labels) if read and held else None
    comparison = (
        judge(job.champion, manifest, packed.files[MODEL], held, job.compare_on)
        if job.champion
        else None
    )
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
        job.champion,
        comparison,
        checkpoint,
    )
