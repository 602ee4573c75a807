"""What a fit is going to do, worked out and checked before any work is done."""

from __future__ import annotations

import errno
import math
import shutil
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

import numpy as np

from scrapy_captcha.bundle import MAX_CHARSET, MAX_HEADS
from scrapy_captcha.errors import BundleError, DatasetError
from scrapy_captcha.versions import check_place
from trainer.corpus import Task, check_labels, encode, fold_case, name_some
from trainer.finish import SEEN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from scrapy_captcha.bundle import Manifest
    from trainer.corpus import Corpus, Sample

#: Fewer labels than this are all trained on, for a fixed time.
HOLDOUT_FROM = 200
#: A holdout smaller than this says nothing.
MIN_HOLDOUT = 10
DEFAULT_ARCHITECTURE = "four_head_compact"
#: The one with a layer that counts, and the longest text that can be read well without.
COUNTING, UNCOUNTED = "many_head_compact", 4
#: What a version takes on the disk at most, several times over.
FREE_BYTES = 32 << 20
#: What a full disk, or a used-up quota, says.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
SCRATCH_PASSES = 30
#: An epoch is a pass over the images, but has at least and at most so many steps.
EPOCH_STEPS = (40, 300)
LABEL_SMOOTHING = 0.05
#: Balanced weights of characters stay within this factor of the mean, either way.
BALANCE = 3.0
#: Seconds that are left for measuring and writing when training ends.
RESERVED = 12.0


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
        class_weights: weights of characters in the loss, "balanced" for rare ones above frequent
            ones, ``None`` for all the same.
        label_smoothing: share of a label that is spread over all classes.
        replay: share of a batch that is synthetic.
        rejected: weight of the loss of rejected guesses.
        report: where the page on the fit goes; ``None`` for nowhere.
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
    class_weights: Mapping[str, float] | str | None = None
    label_smoothing: float = LABEL_SMOOTHING
    replay: float = 0.0
    rejected: float = 0.0
    report: Path | None = None


@dataclass(frozen=True)
class Emphasis:
    """What counts how much in the loss.

    Args:
        heads: one weight a position.
        classes: one weight a class, of mean one over the labels; ``None`` for all the same.
        label_smoothing: share of a label that is spread over all classes.
        rejected: weight of the loss of rejected guesses.
    """

    heads: tuple[float, ...]
    classes: tuple[float, ...] | None = None
    label_smoothing: float = 0.0
    rejected: float = 0.0


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Args:
        steps: number of steps if time allows.
        epoch_steps: steps between two looks at the holdout.
        batch: images a step.
        learning_rate: the peak.
        seconds: when they run out the learning rate has come down all the same.
        patience: epochs without a better holdout before the second half ends early.
        replayed: how many of a batch are synthetic.
    """

    steps: int
    epoch_steps: int
    batch: int
    learning_rate: float
    seconds: float
    patience: int
    replayed: int = 0

    @property
    def own(self) -> int:
        """How many of a batch are the site's own."""
        return self.batch - self.replayed


def check_out(out: Path) -> None:
    """Make sure that a bundle could be written there, before any work is done.

    Raises:
        BundleError: when something else is there.
        DatasetError: when the disk is nearly full.
    """
    check_place(out)
    parents = (out.absolute(), *out.absolute().parents)
    existing = next(folder for folder in parents if folder.exists())
    try:
        with TemporaryFile(dir=existing):  # permissions do not say all, /proc has them
            pass
    except OSError as e:
        if e.errno not in FULL:
            raise BundleError(
                f"cannot write a bundle to {out}: {existing} is not a writable folder"
            ) from None
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


def check_task(task: Task, loaded: Corpus) -> None:
    """Make sure that a bundle can be made for it.

    Raises:
        DatasetError: when there are too few or too many characters or heads, or labels that do not
            fit; files are named.
    """
    if len(task.charset) < 2:
        raise DatasetError(
            f"all {len(loaded.samples)} images have no other character than {task.charset!r}: "
            "there is nothing to tell apart"
        )
    if len(task.charset) > MAX_CHARSET:
        raise DatasetError(
            f"expected at most {MAX_CHARSET} different characters, got {len(task.charset)}"
        )
    if task.length > MAX_HEADS:
        long = [s.name for s in loaded.samples if len(s.label) > MAX_HEADS]
        raise DatasetError(
            f"expected labels of at most {MAX_HEADS} characters, {len(long)} of "
            f"{len(loaded.samples)} are longer: {name_some(long)}"
        )
    check_labels(loaded.samples, task)


def choose_emphasis(options: Options, task: Task, train_on: Corpus) -> Emphasis:
    """What counts how much: the same for all unless told otherwise.

    Raises:
        DatasetError: when there are more or fewer weights than heads, or a weight for a character
            outside the charset.
    """
    heads = options.head_weights or (1.0,) * task.length
    if len(heads) != task.length:
        raise DatasetError(
            f"expected {task.length} head weights, one a character, got {len(heads)}"
        )
    if options.class_weights is None:
        return Emphasis(heads, None, options.label_smoothing, options.rejected)
    counts = np.bincount(encode(train_on.labels, task).ravel(), minlength=task.classes)
    if isinstance(options.class_weights, str):
        fair = counts.sum() / max(1, np.count_nonzero(counts))
        weights = np.clip(fair / np.maximum(counts, 1), 1 / BALANCE, BALANCE)
    else:
        asked = {fold_case(c, task.case): w for c, w in options.class_weights.items()}
        if strange := sorted(set(asked) - set(task.charset)):
            raise DatasetError(
                f"expected weights of characters in the charset {task.charset}, "
                f"got some of {', '.join(strange)}"
            )
        blank = [1.0] * (task.classes - len(task.charset))
        weights = np.array([asked.get(c, 1.0) for c in task.charset] + blank)
    weights = weights * counts.sum() / (weights * counts).sum()
    classes = tuple(round(float(w), 4) for w in weights)
    return Emphasis(heads, classes, options.label_smoothing, options.rejected)


def default_architecture(lengths: tuple[int, int], base: Manifest | None = None) -> str:
    """The base's architecture, or without a base what suits the shortest and longest text."""
    if base:
        return base.architecture
    shortest, longest = lengths
    return COUNTING if longest > UNCOUNTED or shortest < longest else DEFAULT_ARCHITECTURE


def choose_architecture(options: Options, base: Manifest | None, task: Task) -> str:
    """The base's architecture, or from scratch the one asked for or the default.

    Raises:
        BundleError: when they differ.
    """
    if base and options.architecture not in {None, base.architecture}:
        raise BundleError(
            f"the base {base.name!r} is a {base.architecture}, not a {options.architecture}: "
            "leave out --architecture, or --base"
        )
    return options.architecture or default_architecture((task.min_length, task.length), base)


@dataclass(frozen=True)
class Split:
    """Images by what they are for.

    Args:
        train_on: what is learnt from.
        held: the holdout, if there are images enough for one.
        unfit: images that belong into the holdout by their hash and are trained on all the same.
        known: how many of those the base was trained on.
    """

    train_on: Corpus
    held: Corpus | None
    unfit: Corpus
    known: int

    @property
    def marks(self) -> list[str]:
        """What a manifest keeps of the unfit ones, for the fits that start from it."""
        return [mark(sample) for sample in self.unfit.samples]

    @property
    def reason(self) -> str:
        """Why there is no holdout."""
        if len(self.train_on.samples) < HOLDOUT_FROM:
            return f"fewer than {HOLDOUT_FROM} labels"
        return f"fewer than {MIN_HOLDOUT} images for a holdout"

    @property
    def warning(self) -> str | None:
        """A line on images that the base knows, if there are any."""
        if not self.known:
            return None
        return (
            f"{self.known} images that would be held out are trained on, as the base was trained "
            f"on them when there were fewer than {HOLDOUT_FROM}: "
            "to measure on those, too, start from a shipped model"
        )


def mark(sample: Sample) -> str:
    """What a manifest remembers an image by."""
    return sample.digest[:16]


def split(loaded: Corpus, base: Manifest | None = None, more: Iterable[str] = ()) -> Split:
    """Choose the holdout, if there are labels enough for one.

    Nothing that the base was trained on is in it: it would look better than it is, beside the new
    model and in its confidence.

    Args:
        loaded: the images.
        base: what the network started from.
        more: marks of what it has learnt from since.
    """
    belongs = loaded.held_out()
    seen = {*more, *(base.provenance.get(SEEN, ()) if base else ())}
    known = np.array([mark(sample) in seen for sample in loaded.samples], bool) & belongs
    held = belongs & ~known
    if len(held) < HOLDOUT_FROM or held.sum() < MIN_HOLDOUT:
        held = np.zeros_like(held)
    return Split(
        train_on=loaded.pick(~held),
        held=loaded.pick(held) if held.any() else None,
        unfit=loaded.pick(belongs & ~held),
        known=int(known.sum()),
    )


def describe(parts: Split, task: Task) -> str:
    """What is about to be learnt."""
    count = len(parts.train_on.samples)
    text = f"{count} images of {task.lengths} characters out of {len(task.charset)}"
    if parts.held is None:
        text += f"; {parts.reason}: all are trained on, for a fixed time, no holdout"
    else:
        text += f", and {len(parts.held.samples)} held out"
    return "\n".join(filter(None, (text, parts.warning)))


def origin(base: Manifest | None, task: Task, architecture: str) -> str:
    """What it starts from, and a second line where another base would be better."""
    if base is None:
        return f"{architecture} from scratch"
    same = (base.charset, base.length, base.min_length)
    if same == (task.charset, task.length, task.min_length):
        return f"from {base.name}"
    text = f"from {base.name}, with new heads for this charset and length"
    if task.length > base.length and base.architecture != COUNTING:
        text += (
            f"\n{base.name} does not count characters and learns texts of {task.lengths} slowly: "
            "--base alnum8 counts"
        )
    return text


def choose_schedule(
    count: int, *, seconds: float, known: bool, epochs: int | None, replay: float = 0.0
) -> Schedule:
    """How long to train, and how fast.

    Args:
        count: images to train on.
        seconds: at most.
        known: whether a base knows the features already.
        epochs: passes over the images; ``None`` chooses.
        replay: share of a batch that is synthetic.
    """
    batch = 32 if count < HOLDOUT_FROM else 64
    replayed = min(batch - 1, round(batch * replay))
    one_pass = math.ceil(count / (batch - replayed))
    epoch_steps = min(max(one_pass, EPOCH_STEPS[0]), EPOCH_STEPS[1])
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
        patience=8,
        replayed=replayed,
    )


def remaining(options: Options, spent: float) -> float:
    """Seconds that training may take, at least a tenth of what was asked for."""
    seconds = options.minutes * 60
    return max(seconds - spent - RESERVED, seconds / 10)
