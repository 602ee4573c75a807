"""What a site's verdicts teach a reader, played through on labelled images.

    python benchmarks/ablation.py SET.zip... [--arms confirmed,rejections,uncertain,doubting]
        [--starts weak,fair,shipped] [--seeds 0,1,2] [--images 1200] [--lies 0] [--log FILE]

A reader meets the images of a set one after another, each but once, and is told of each reading
whether it is right, as by a site; after every 25 right ones it is trained as `trainer follow` does.
Nothing is held out by it: 400 images that it never meets say how well it reads.

    confirmed    it learns from the images that it read right
    rejections   and from the readings that were wrong: -log(1 - p(text))
    uncertain    the images that it was least sure of come up more often (P. Stark et al., "Captcha
                 recognition with active deep learning", 2015)
    doubting     images whose label the reader holds for next to impossible by now are left out
                 (for sites that lie: with --lies 0.1 a tenth of the wrong readings are accepted)

    shipped      the reader as it is
    weak, fair   noise on its weights, so much that it reads about 5 % or 30 % of the set

One JSON line a run. With --log, lines go into a file, too, and what is in it is not run again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scrapy_captcha.bundle import MODEL, WEIGHTS, open_bundle
from scrapy_captcha.recognizer import softmax
from scrapy_captcha.versions import write_version
from trainer import corpus
from trainer.conversion import exact_match, keras_logits
from trainer.loop import Labelled
from trainer.rejections import GUESSES, Rejected
from trainer.rounds import STEPS, STEPS_A_LABEL
from trainer.sampling import weighted
from trainer.student import BATCH, Student, task_of
from trainer.transfer import from_base
from trainer.weights import weights_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import keras
    from numpy.typing import NDArray

    from scrapy_captcha.bundle import Bundle

ARMS = ("confirmed", "rejections", "uncertain", "doubting")
STARTS = {"weak": 0.05, "fair": 0.3, "shipped": None}
TEST, PROBE, AFTER = 400, 300, 25
#: The sampling weight of an image that was read with certainty, beside 1 for one that was not.
CERTAIN = 0.1
#: A label is doubted that the reader holds for so many times less likely than its own reading.
DOUBTED = 1e4


@dataclass(frozen=True)
class Run:
    """One way through a set."""

    set: str
    start: str
    arm: str
    seed: int
    images: int
    lies: float
    weight: float


@dataclass
class Told:
    """What the site has said so far: images by their numbers."""

    confirmed: list[int] = field(default_factory=list)
    labels: list[NDArray[np.int32]] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)
    wrong: list[int] = field(default_factory=list)
    guesses: list[NDArray[np.int32]] = field(default_factory=list)


def damaged(base: Bundle, images: Any, classes: Any, share: float, folder: Path) -> Bundle:
    """A base with noise on its weights, so much that it reads about that share of the images."""

    model = from_base(base, task_of(base.manifest))
    whole = model.get_weights()
    rng = np.random.default_rng(7)
    noise = [rng.standard_normal(w.shape).astype(w.dtype) * w.std() for w in whole]

    def spoil(strength: float) -> float:
        kernels = [w.ndim > 1 for w in whole]
        parts = zip(whole, noise, kernels, strict=True)
        model.set_weights([w + strength * n if kernel else w for w, n, kernel in parts])
        return exact_match(keras_logits(model, images), classes)

    low, high = 0.0, 1.5
    for _ in range(8):
        middle = (low + high) / 2
        low, high = (middle, high) if spoil(middle) > share else (low, middle)
    spoil(low)
    files = {MODEL: b"not to be run", WEIGHTS: weights_file(model)}
    return open_bundle(write_version(folder, base.manifest, files))


def play(run: Run, base: Bundle, images: Any, classes: Any) -> dict[str, Any]:
    """A reader's way through a set: images float16 (n, 32, 90), classes int32 (n, heads)."""

    start = time.monotonic()
    test, served = slice(0, TEST), range(TEST, min(len(images), TEST + run.images))
    student = Student(base, run.seed, run.weight if run.arm == "rejections" else 0.0)
    network = student.network()
    liar = random.Random(run.seed)
    told, hits, at = (
        Told(),
        [],
        [(0, exact_match(keras_logits(network, images[test]), classes[test]))],
    )
    new, ahead = 0, iter(())
    for i in served:
        seen = next(ahead, None)
        if seen is None:
            block = range(i, min(i + 50, served.stop))
            ahead = read(network, images[block.start : block.stop], base.manifest.temperature)
            seen = next(ahead)
        guess, confidence = seen
        right = bool((guess == classes[i]).all())
        hits.append(right)
        if right or liar.random() < run.lies:
            told.confirmed.append(i)
            told.labels.append(guess)
            told.confidences.append(confidence)
            new += 1
        else:
            told.wrong.append(i)
            told.guesses.append(guess)
        if new >= AFTER:
            data = Labelled(images[told.confirmed], np.array(told.labels, np.int32))
            steps = min(STEPS[1], max(STEPS[0], STEPS_A_LABEL * new))
            doubts = doubted(network, data) if run.arm == "doubting" else None
            choose = rejected = None
            if doubts is not None and (~doubts).sum() >= AFTER:
                data = Labelled(data.images[~doubts], data.classes[~doubts])
            if run.arm == "uncertain":
                weights = 1.0 - (1.0 - CERTAIN) * np.array(told.confidences)
                choose = weighted(weights, BATCH, (run.seed, student.rounds))
            if run.arm == "rejections" and told.wrong:
                rejected = as_rejected(told, images)
            student.learn(data, steps, rejected=rejected, choose=choose)
            network, new, ahead = student.network(), 0, iter(())
            if len(hits) - at[-1][0] >= 100:
                at.append(
                    (len(hits), exact_match(keras_logits(network, images[test]), classes[test]))
                )
    at.append((len(hits), exact_match(keras_logits(network, images[test]), classes[test])))
    return {
        **asdict(run),
        "per_100": [round(float(np.mean(hits[k : k + 100])), 3) for k in range(0, len(hits), 100)],
        "unseen": [(n, round(share, 4)) for n, share in at],
        "confirmed": len(told.confirmed),
        "rejected": len(told.wrong),
        "false_labels": sum(
            bool((label != classes[i]).any())
            for i, label in zip(told.confirmed, told.labels, strict=True)
        ),
        "rounds": student.rounds,
        "steps": student.steps,
        "seconds": round(time.monotonic() - start, 1),
    }


def read(
    network: keras.Model, images: Any, temperature: float
) -> Iterator[tuple[NDArray[np.int32], float]]:
    """What a network reads in each image, and how sure it is."""

    chances = softmax(keras_logits(network, images) / np.float32(temperature))
    sure = chances.max(axis=-1).prod(axis=-1).tolist()
    return iter(list(zip(chances.argmax(axis=-1).astype(np.int32), sure, strict=True)))


def as_rejected(told: Told, images: Any) -> Rejected:
    """The images that were read wrongly, one reading each."""
    count, heads = len(told.wrong), told.guesses[0].shape[0]
    guesses = np.full((count, GUESSES, heads), -1, np.int32)
    guesses[:, 0] = told.guesses
    return Rejected(tuple(map(str, told.wrong)), ((),) * count, images[told.wrong], guesses)


def doubted(network: keras.Model, data: Any) -> NDArray[np.bool_]:
    """Which labels a network holds for next to impossible."""

    chances = softmax(keras_logits(network, data.images))
    label = np.take_along_axis(chances, data.classes[..., None], axis=-1)[..., 0].prod(axis=-1)
    result: NDArray[np.bool_] = label * DOUBTED < chances.max(axis=-1).prod(axis=-1)
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the options and play what has not been played yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="+", type=Path)
    parser.add_argument("--base", default="alnum4")
    parser.add_argument("--arms", default="confirmed,rejections,uncertain")
    parser.add_argument("--starts", default="weak,fair")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--images", type=int, default=1200, help="that the reader meets, at most")
    parser.add_argument("--lies", type=float, default=0.0, help="share of wrong readings accepted")
    parser.add_argument("--weight", type=float, default=0.3, help="of the loss of rejections")
    parser.add_argument("--log", type=Path)
    options = parser.parse_args(argv)
    if strange := set(options.arms.split(",")) - set(ARMS):
        parser.error(f"expected arms among {', '.join(ARMS)}, got {', '.join(strange)}")
    if strange := set(options.starts.split(",")) - set(STARTS):
        parser.error(f"expected starts among {', '.join(STARTS)}, got {', '.join(strange)}")
    done = set()
    if options.log and options.log.exists():
        lines = map(json.loads, options.log.read_text(encoding="utf-8").splitlines())
        done = {tuple(line[name] for name in Run.__annotations__) for line in lines}

    base = open_bundle(options.base)
    task = task_of(base.manifest)
    for path in options.sets:
        loaded = corpus.load([path], task.case)
        where = np.array([task.reads(text) for text in loaded.labels], bool)
        loaded = loaded.pick(where)
        classes = corpus.encode(loaded.labels, task)
        probe = slice(TEST, TEST + PROBE)
        for start, seed in itertools.product(options.starts.split(","), options.seeds.split(",")):
            order = np.random.default_rng(int(seed)).permutation(len(classes))
            images, texts = loaded.images[order], classes[order]
            runs = [
                Run(path.stem, start, arm, int(seed), options.images, options.lies, options.weight)
                for arm in options.arms.split(",")
            ]
            left = [run for run in runs if tuple(asdict(run).values()) not in done]
            if not left:
                continue
            with tempfile.TemporaryDirectory() as folder:
                share = STARTS[start]
                reader = base
                if share is not None:
                    reader = damaged(
                        base, images[probe], texts[probe], share, Path(folder) / "base"
                    )
                for run in left:
                    line = json.dumps(play(run, reader, images, texts))
                    print(line, flush=True)
                    if options.log:
                        with options.log.open("a", encoding="utf-8") as log:
                            log.write(line + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
