"""A round of training in a crawl: what is stored by now -> a challenger, or why there is none."""

from __future__ import annotations

import gc
import json
import logging
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scrapy_captcha.bundle import MODEL, WEIGHTS, Manifest, open_bundle, safe_name
from scrapy_captcha.errors import CaptchaError, DatasetError
from scrapy_captcha.recognizer import ANY_LENGTH, AUTO, FOUR, FOUR_LENGTH
from trainer import corpus
from trainer.champion import judge
from trainer.conversion import to_tflite
from trainer.finish import Finished, finish, golden_images, provenance
from trainer.loop import Labelled, label
from trainer.plan import check_out, split
from trainer.rejections import load_rejected
from trainer.student import Student, task_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from scrapy_captcha.bundle import Bundle
    from trainer.corpus import Corpus, Task
    from trainer.plan import Split

logger = logging.getLogger(__name__)

#: Steps of a round for each label that is new, and how many at least and at most.
STEPS_A_LABEL, STEPS = 4, (80, 150)
#: A round learns from so many images at most, the newest ones, and looks at so many rejected ones.
NEWEST, NEWEST_REJECTED = 20_000, 2_000
#: Without a holdout, a conversion is checked on so many of the images.
CHECKED = 64


@dataclass(frozen=True)
class Request:
    """What a crawl asks for.

    Args:
        dataset: the site's folder.
        base: the bundle that reads the site now, a shipped name, or "auto".
        out: where the site's bundle is, or will be.
        seed: of the training.
        restart: start from the base, whatever was learnt since.
    """

    dataset: Path
    base: str
    out: Path
    seed: int = 0
    restart: bool = False

    @classmethod
    def parse(cls, line: str) -> Request:
        """A request from its line of JSON.

        Raises:
            CaptchaError: naming what was expected.
        """
        try:
            found = json.loads(line)
            dataset, base, out = (found[key] for key in ("dataset", "base", "out"))
            seed, restart = found.get("seed", 0), found.get("restart", False)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            seed = None
        if (
            type(seed) is not int
            or not 0 <= seed < 1 << 31
            or type(restart) is not bool
            or not all(isinstance(text, str) and text for text in (dataset, base, out))
        ):
            raise CaptchaError(
                'expected {"dataset": FOLDER, "base": BUNDLE, "out": FOLDER, "seed": 0, '
                f'"restart": false}}, got {line.strip()[:200]}'
            )
        return cls(Path(dataset), base, Path(out), seed, restart)


@dataclass
class Site:
    """What is known of the site that is being learnt.

    Args:
        folder: its dataset.
        known: the images of the last round, prepared, by their sha256.
        models: hashes of what the student started from and of what came of it.
        learnt: sha256 of the images that it learnt from last.
        marks: of those that could have been held out.
    """

    folder: Path
    known: dict[str, NDArray[np.float16]] = field(default_factory=dict)
    models: set[str] = field(default_factory=set)
    learnt: set[str] = field(default_factory=set)
    marks: set[str] = field(default_factory=set)

    def keep(self, digests: Iterable[str]) -> None:
        """Forget all images but these."""
        self.known = {digest: self.known[digest] for digest in digests}


class Rounds:
    """Trains one site after another; what it knows of the last one stays in memory.

    Args:
        rejected: weight of the loss of rejected guesses.
        whole: entered while something is done that must not be cut short.
    """

    def __init__(
        self, rejected: float = 0.0, whole: AbstractContextManager[Any] | None = None
    ) -> None:
        self._rejected = rejected
        self._whole = whole or nullcontext()
        self._student: Student | None = None
        self._site: Site | None = None

    def warm_up(self, base: str) -> None:
        """Do now what a first round from a base would have to do before it learns.

        Args:
            base: a shipped name, the path of a bundle, or "auto" for the one of four characters.
        """
        bundle = open_bundle(FOUR if base == AUTO else base)
        student = Student(bundle, 0, self._rejected)
        heads = student.task.length
        blank = Labelled(np.ones((1, 32, 90), np.float16), np.zeros((1, heads), np.int32))
        student.learn(blank, 1)
        to_tflite(student.network())
        student.start(bundle, 0)
        self._student = student

    def train(self, request: Request) -> dict[str, Any]:
        """A round.

        Returns:
            What is answered to the crawl.

        Raises:
            CaptchaError: when there is nothing to learn from, the base is damaged, or the disk
                refuses.
        """
        start = time.monotonic()
        check_out(request.out)
        if self._site is None or self._site.folder != request.dataset:
            self._site = Site(request.dataset)
        site = self._site
        base, loaded = self._load(request, site)
        in_use = {sample.digest for sample in loaded.samples}
        loaded = fitting(loaded, task_of(base.manifest))
        student = self._student_for(base, request, site)
        parts, labels = split(loaded, student.base.manifest, site.marks), len(loaded.samples)
        del loaded  # the parts are copies
        rejected = load_rejected(
            [request.dataset] if self._rejected or parts.held else [],
            student.task,
            site.known,
            newest=NEWEST_REJECTED,
        )
        site.keep(in_use.union(rejected.digests))
        held_out = rejected.held_out() if self._rejected else np.ones(len(rejected), bool)
        learn_from = rejected.pick(~held_out)
        steps = choose_steps(parts.train_on, site.learnt)
        name = request.dataset.name
        logger.info("%s: learning from %d labels, %d steps", name, labels, steps)
        loss = student.learn(
            label(parts.train_on, student.task),
            steps,
            rejected=learn_from if len(learn_from) else None,
        )
        site.learnt = {sample.digest for sample in parts.train_on.samples}
        site.marks |= set(parts.marks)
        with self._whole:
            trained = time.monotonic() - start
            finished = self._finish(request, student, parts, site, trained)
            manifest, files = finished.packed.manifest, finished.packed.files
            found = judge(base, manifest, files[MODEL], parts.held, rejected.pick(held_out))
            version = None
            if found and found.better is False:
                self.forget()  # it went astray: the next one starts from the champion
            else:
                version = finished.packed.write(request.out, promoted=False)
                site.models.add(open_bundle(version).hash)
        seconds = time.monotonic() - start
        logger.info(
            "%s: loss %.3f, %.1f s of which %.1f after the training, %s",
            *(name, loss, seconds, seconds - trained),
            version.name if version else "worse than what reads now",
        )
        return {
            "event": "trained",
            "version": version.name if version else None,
            "model": open_bundle(version).hash if version else None,
            "labels": labels,
            "rejections": len(rejected),
            "held_out": len(parts.held.samples) if parts.held else 0,
            "seconds": round(seconds, 2),
            "steps": steps,
            "table": found.as_dict() if found else None,
            "better": found.better if found else None,
        }

    def forget(self) -> None:
        """Have the next round start from its base, as after a restart."""
        if self._site:
            self._site.models.clear()

    def _load(self, request: Request, site: Site) -> tuple[Bundle, Corpus]:
        """The base, and the site's images."""
        name = request.base
        manifest = open_bundle(FOUR if name == AUTO else name).manifest
        loaded = corpus.load([request.dataset], manifest.case, site.known, newest=NEWEST)
        if name == AUTO:
            four = all(len(text) == FOUR_LENGTH for text in loaded.labels)
            name = FOUR if four else ANY_LENGTH
        base = open_bundle(name)
        for file in (MODEL, WEIGHTS):
            base.read(file)
        return base, loaded

    def _student_for(self, base: Bundle, request: Request, site: Site) -> Student:
        """The student as it is, if it comes from that base or the base from it, else a new one."""
        student = self._student
        if student and not request.restart and base.hash in site.models:
            return student
        if student and student.can_start_from(base):
            student.start(base, request.seed)
        else:
            self._student = student = None
            gc.collect()  # before memory is taken for the next one
            student = Student(base, request.seed, self._rejected)
        self._student = student
        site.models = {base.hash}
        site.learnt.clear()
        site.marks.clear()
        return student

    def _finish(
        self, request: Request, student: Student, parts: Split, site: Site, seconds: float
    ) -> Finished:
        """The student as a version of a bundle."""
        base, train_on, held = student.base, parts.train_on, parts.held
        few = np.arange(len(train_on.samples)) < CHECKED
        shown = held or train_on.pick(few)
        network = student.network()
        manifest = Manifest(
            name=safe_name(request.out.resolve().name),
            charset=student.task.charset,
            length=student.task.length,
            min_length=student.task.min_length,
            architecture=student.architecture,
            case=student.task.case,
            temperature=base.manifest.temperature,
            provenance=provenance(
                "follow",
                base,
                trained_on=len(train_on.samples),
                held_out=len(held.samples) if held else 0,
                seed=student.seed,
                steps=student.steps,
                seconds=seconds,
                seen=site.marks,
                rounds=student.rounds,
            ),
            calibration={"method": "inherited from the base"},
            accuracy={"n": 0},
        )
        golden = golden_images(network, shown)
        on = "holdout" if held else None
        return finish(network, manifest, shown, golden_images=golden, on=on)


def fitting(loaded: Corpus, task: Task) -> Corpus:
    """The images whose labels a task has classes for; the others wait for another base.

    Raises:
        DatasetError: when fewer than two are left.
    """
    fits = np.array([task.reads(text) for text in loaded.labels], bool)
    if fits.sum() < 2:
        raise DatasetError(
            f"expected at least 2 labels of {task.lengths} characters out of {task.charset}, "
            f"got {fits.sum()} of {len(fits)}"
        )
    if fits.all():
        return loaded
    logger.info("%d labels are of another length or charset", (~fits).sum())
    return loaded.pick(fits)


def choose_steps(train_on: Corpus, learnt: Iterable[str]) -> int:
    """How long a round is: the more new labels, the longer."""
    new = len({sample.digest for sample in train_on.samples}.difference(learnt))
    least, most = STEPS
    return min(most, max(least, STEPS_A_LABEL * new))
