"""Train a bundle on synthetic captchas alone."""

from __future__ import annotations

import math
import os
import random
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from scrapy_captcha.bundle import MODEL, Manifest, described, open_bundle, safe_name
from scrapy_captcha.errors import BundleError, CaptchaError, DatasetError
from scrapy_captcha.image import prepare
from trainer import networks, synthesis
from trainer.archive import damaged, read_archive, write_archive
from trainer.augment import augment
from trainer.batches import BATCH, batches
from trainer.conversion import exact_match
from trainer.conversion import keras_logits as logits_of
from trainer.corpus import Corpus, Sample, Task
from trainer.drawing import ALNUM, Chunk, Synthesizer
from trainer.finish import Finished, finish, golden_images, provenance
from trainer.plan import default_architecture
from trainer.quiet import uninterrupted
from trainer.transfer import from_base

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

PEAK_RATE, LAST_RATE, WEIGHT_DECAY = 2e-3, 1e-5, 0.02
#: The peak for a network that starts from a base.
BASE_RATE = 1e-3
WARM_UP = 0.02
#: Clutter rises from little to full over this share of the time, at some images a second.
RAMP = 0.1
#: Drawn images that the result is measured on, and those of them that are read on the way.
HOLDOUT, LOOKED_AT = 8192, 2048
DECAY = 0.999
EASY = 60


@dataclass(frozen=True)
class Plan:
    """What to train.

    Args:
        architecture: a name in `networks.ARCHITECTURES`.
        charset: the characters, in the order of the classes.
        length: shortest and longest text; if they differ there is a blank class.
        minutes: time on the clock, summed over the runs when one was resumed.
        seed: of images, weights and order.
        workers: processes that draw.
        base: a bundle whose weights it starts from, or ``None``.

    """

    architecture: str
    charset: str
    length: tuple[int, int]
    minutes: float
    seed: int
    workers: int
    base: str | None = None

    @property
    def heads(self) -> int:
        """Characters in the longest text."""
        return self.length[1]

    @property
    def classes(self) -> int:
        """Characters, and the blank if lengths vary."""
        return len(self.charset) + (self.length[0] < self.length[1])

    @property
    def case(self) -> str:
        """Whether labels are lower case or as they are drawn."""
        return "lower" if self.charset == self.charset.lower() else "as-is"

    def manifest(self, name: str) -> Manifest:
        """What can be said of the bundle before it is measured."""
        return Manifest(
            name=safe_name(name),
            charset=self.charset,
            length=self.length[1],
            min_length=self.length[0],
            architecture=self.architecture,
            case=self.case,
        )


def learning_rate(progress: float, peak: float = PEAK_RATE) -> float:
    """Warm up, then fall along a cosine.

    Args:
        progress: 0 at the start, 1 at the end.
        peak: the highest rate.

    """
    if progress < WARM_UP:
        return peak * (0.05 + 0.95 * progress / WARM_UP)
    done = min(1.0, (progress - WARM_UP) / (1 - WARM_UP))
    return LAST_RATE + (peak - LAST_RATE) * (1 + math.cos(math.pi * done)) / 2


class Training:
    """A network in training: weights, their moving average, the optimizer, and how far it got."""

    def __init__(self, plan: Plan) -> None:
        keras.utils.set_random_seed(plan.seed)
        self.plan = plan
        self.base = open_bundle(plan.base) if plan.base is not None else None
        with networks.computing_in("mixed_bfloat16"):
            self.model = networks.build(
                plan.architecture, heads=plan.heads, classes=plan.classes, fused=True
            )
        if self.base is not None:
            task = Task(plan.charset, plan.length[1], plan.length[0], plan.case)
            self.model.set_weights(from_base(self.base, task, plan.architecture).get_weights())
        self.optimizer = keras.optimizers.AdamW(PEAK_RATE, weight_decay=WEIGHT_DECAY)
        self.optimizer.build(self.model.trainable_variables)
        self.average = [tf.Variable(w, trainable=False) for w in self.model.get_weights()]
        self.step, self.seconds, self.chunk = 0, 0.0, 0
        self._update: Callable[..., Any] = tf.function(self._update_eagerly)

    def _update_eagerly(self, pixels: Any, labels: Any, decay: Any, seed: Any) -> Any:
        images = augment(tf.cast(pixels, tf.float32)[..., None] / 255, seed)
        with tf.GradientTape() as tape:
            logits = tf.cast(self.model(images, training=True), tf.float32)
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
            )
        weights = self.model.trainable_variables
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        for mean, weight in zip(self.average, self.model.weights, strict=True):
            mean.assign(mean * decay + tf.cast(weight.value, mean.dtype) * (1 - decay))
        return loss

    @property
    def progress(self) -> float:
        """0 at the start, 1 at the end."""
        return self.seconds / (self.plan.minutes * 60)

    def update(self, pixels: NDArray[np.uint8], labels: NDArray[np.int32]) -> float:
        """One step on a batch; returns its loss."""
        peak = PEAK_RATE if self.plan.base is None else BASE_RATE
        self.optimizer.learning_rate.assign(learning_rate(self.progress, peak))
        decay = min(DECAY, (1 + self.step) / (10 + self.step))
        loss = self._update(
            tf.constant(pixels),
            tf.constant(labels),
            tf.constant(decay, tf.float32),
            tf.constant((self.plan.seed, self.step), tf.int32),
        )
        self.step += 1
        return float(loss)

    def averaged(self) -> keras.Model:
        """A float32 network with the averaged weights."""
        model = networks.build(
            self.plan.architecture, heads=self.plan.heads, classes=self.plan.classes
        )
        model.set_weights([mean.numpy() for mean in self.average])
        return model

    def save(self, path: Path) -> None:
        """Write all of it to a file, which is replaced in one go.

        Raises:
            DatasetError: when the disk refuses; then the file is as it was.

        """
        arrays = {f"weight_{i}": w for i, w in enumerate(self.model.get_weights())}
        arrays |= {f"average_{i}": a.numpy() for i, a in enumerate(self.average)}
        arrays |= {f"slot_{i}": v.numpy() for i, v in enumerate(self.optimizer.variables)}
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "chunk": self.chunk,
            "plan": self.identity(),
        }
        write_archive(path, state, arrays)

    def identity(self) -> dict[str, Any]:
        """What another training must share to go on from this one's checkpoint, as JSON has it.

        Not the time, which may be prolonged, nor the number of processes, which changes nothing.
        """
        plan = asdict(self.plan) | {"length": list(self.plan.length)}
        plan["base"] = self.base.hash if self.base else None
        return {name: plan[name] for name in plan.keys() - {"minutes", "workers"}}

    def restore(self, path: Path) -> None:
        """Go on from a file that `save` wrote.

        Raises:
            BundleError: when it is damaged or of another training; then nothing has changed.

        """
        state, arrays = read_archive(path)
        try:
            step, seconds, chunk = (state[name] for name in ("step", "seconds", "chunk"))
            theirs = dict(state["plan"])
        except (KeyError, TypeError, ValueError) as e:
            raise damaged(path, e) from None
        ours = self.identity()
        if differing := sorted(name for name in ours if theirs.get(name) != ours[name]):
            listed = ", ".join(f"{n} {theirs.get(n)!r} and not {ours[n]!r}" for n in differing)
            raise BundleError(
                f"{path} is the checkpoint of another training, with {listed}: "
                "delete it to start anew, or choose another --out"
            )
        targets = {f"average_{i}": mean for i, mean in enumerate(self.average)}
        targets |= {f"slot_{i}": each for i, each in enumerate(self.optimizer.variables)}
        shapes = {name: tuple(each.shape) for name, each in targets.items()}
        shapes |= {f"weight_{i}": tuple(mean.shape) for i, mean in enumerate(self.average)}
        if shapes != {name: array.shape for name, array in arrays.items()}:
            raise BundleError(f"{path} is a checkpoint of another network: delete it to start anew")
        self.model.set_weights([arrays[f"weight_{i}"] for i in range(len(self.average))])
        for name, target in targets.items():
            target.assign(arrays[name])
        self.step, self.seconds, self.chunk = int(step), float(seconds), int(chunk)


def easy_images(plan: Plan) -> Corpus:
    """Drawn images with little clutter: golden images are chosen from them."""
    drawer, rng = Synthesizer(plan.charset, plan.length), random.Random(plan.seed + 2)
    drawn = [drawer.draw(rng, 0.5) for _ in range(EASY)]
    samples = tuple(Sample("drawn", text, synthesis.encoded(image)) for image, text in drawn)
    return Corpus(samples, np.stack([prepare(s.data) for s in samples]).astype(np.float16), ())


def pretrain(
    *,
    out: Path,
    architecture: str | None = None,
    charset: str = ALNUM,
    length: tuple[int, int] = (4, 4),
    minutes: float = 60,
    seed: int = 1,
    workers: int = 1,
    base: str | None = None,
    checkpoint: Path | None = None,
    report: Callable[[str], None] = print,
    every: float = 150,
) -> Path:
    """Train on synthetic images for some minutes and write the bundle.

    Args:
        out: the bundle's folder; its name becomes the bundle's.
        architecture: a name in `networks.ARCHITECTURES`; ``None`` for the base's, or without a base
            for what suits the lengths.
        charset: the characters, in the order of the classes.
        length: shortest and longest text.
        minutes: time on the clock, summed over the runs when one was resumed.
        seed: of images, weights and order.
        workers: processes that draw.
        base: a bundle to start from, such as that for another length, or of a wider network.
        checkpoint: where to keep what is needed to go on after a kill; if the file exists, the same
            training goes on from there. By default beside ``out``.
        report: gets one line of progress at a time.
        every: seconds between measurements, which are also the checkpoints.

    Returns:
        The folder of the bundle's new version; the checkpoint is deleted once that is written.

    Raises:
        BundleError: when no such bundle can be made, the base or the checkpoint does not fit, or
            ``out`` cannot be written.
        CaptchaError: when the characters cannot be drawn, or a process that draws has ended. What
            was learnt until then is in the checkpoint, as after a `KeyboardInterrupt`.

    """
    if architecture is None:
        known = open_bundle(base).manifest if base is not None else None
        architecture = default_architecture(length, known)
    plan = Plan(architecture, charset, length, minutes, seed, workers, base)
    described(plan.manifest(out.name), {MODEL: b""})  # else nobody could open what is written
    checkpoint = checkpoint or out.with_name(f"{out.name}.checkpoint.npz")
    drawer = Synthesizer(charset, length)
    training = Training(plan)
    if checkpoint.exists():
        training.restore(checkpoint)
        report(f"going on from {checkpoint}: step {training.step}, {training.seconds / 60:.1f} min")
    begun = training.step
    try:
        holdout = drawer.chunk(seed + 1, -1, HOLDOUT, 1.0)
        if training.progress < 1:
            _train(training, holdout, checkpoint, report, every)
        finished = finished_bundle(training, holdout, out.name)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_stop(training, checkpoint, begun)) from None
    except CaptchaError:
        report(_stop(training, checkpoint, begun))
        raise
    for line in (*finished.packed.notes, *finished.packed.oversize()):
        report(line)
    manifest = finished.packed.manifest
    report(
        f"holdout {finished.score.exact_match:.4f}, temperature {manifest.temperature}, "
        f"calibration error {finished.score.calibration_error:.4f}"
    )
    with uninterrupted():
        version = finished.packed.write(out)
        checkpoint.unlink(missing_ok=True)
    return version


def _stop(training: Training, checkpoint: Path, begun: int) -> str:
    """Keep what was learnt since the step that this run began with; returns a line on it."""
    with uninterrupted():
        try:
            if training.step > begun:
                training.save(checkpoint)
        except DatasetError as e:
            return str(e)
    if not checkpoint.exists():
        return "nothing was learnt yet"
    return f"the same command goes on from {checkpoint}"


def finished_bundle(training: Training, holdout: Chunk, name: str) -> Finished:
    """The version of a bundle that a training has come to.

    Args:
        training: its averaged weights are taken.
        holdout: drawn images that it was not trained on.
        name: the bundle's.
    """
    plan, model = training.plan, training.averaged()
    pixels, labels = holdout
    texts = ["".join((plan.charset + " ")[i] for i in row).rstrip() for row in labels]
    shown = Corpus(
        tuple(Sample(f"drawn {i}", text, b"") for i, text in enumerate(texts)),
        (pixels / np.float32(255)).astype(np.float16),
        (),
    )
    made = provenance(
        "pretrain",
        training.base,
        trained_on=training.chunk * synthesis.CHUNK,
        held_out=len(texts),
        seed=plan.seed,
        steps=training.step,
        seconds=training.seconds,
        images_shown=training.step * BATCH,
        processors=os.cpu_count(),
    )
    return finish(
        model,
        replace(plan.manifest(name), provenance=made),
        shown,
        golden_images=golden_images(model, easy_images(plan)),
        on="holdout of drawn images",
    )


def _train(
    training: Training,
    holdout: Chunk,
    checkpoint: Path,
    report: Callable[[str], None],
    every: float,
) -> None:
    plan = training.plan
    pixels, labels = holdout[0][:LOOKED_AT], holdout[1][:LOOKED_AT]
    chunks = synthesis.chunks(
        seed=plan.seed,
        charset=plan.charset,
        length=plan.length,
        workers=plan.workers,
        start=training.chunk,
        ramp=0 if plan.base else round(RAMP * plan.minutes * 60 * 200),
    )
    losses: list[float] = []
    begun, earlier = time.perf_counter(), training.seconds
    measured, steps = begun, training.step
    for images, texts, fresh in batches(chunks, plan.seed + training.step):
        losses.append(training.update(images, texts))
        training.chunk += fresh
        now = time.perf_counter()
        training.seconds = earlier + now - begun
        over = training.progress >= 1
        if now - measured < every and not over:
            continue
        score = exact_match(logits_of(training.averaged(), pixels), labels)
        speed = (training.step - steps) * BATCH / (now - measured)
        report(
            f"{training.seconds / 60:6.1f} min  step {training.step:6d}  loss {np.mean(losses):.4f}"
            f"  holdout {score:.4f}  {speed:.0f} images/s"
        )
        try:
            training.save(checkpoint)
        except DatasetError as e:
            report(f"{e}; going on without")
        losses, measured, steps = [], time.perf_counter(), training.step
        if over:
            return
