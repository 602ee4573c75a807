"""How many labels a site takes: `fit` and the article's network, on the same labelled images.

    python benchmarks/labels.py SET... [--labels 50 300 1000] [--seeds 0 1 2] [--minutes 3]
        [--how base scratch article] [--base alnum4] [--replay 0 0.25] [--others SET[=CHARSET]...]
        [--merge 0o,1il] [--json]

A set is a folder or zip of LABEL.png or LABEL_x.png. Of its images, in an order that the seed says,
the first 500 are the test, and the next so many the labels.

- base: `python -m trainer fit --base alnum4`, as a user would.
- scratch: the same without a base.
- article: the article's network by its recipe (Adam, no augmentation), in mixed bfloat16, for as
  long as `--minutes` says, from nothing.

With --others, each model that `fit` made reads other sets as well: what it has forgotten of them.
Each result is a line: exact match, the same with look-alikes merged, the calibration error of the
confidence, seconds.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import numpy as np

from scrapy_captcha import Recognizer
from scrapy_captcha.image import prepare
from scrapy_captcha.naming import image_suffix
from scrapy_captcha.recognizer import Recognition
from trainer.arguments import groups
from trainer.corpus import Sample, Task, encode, gather
from trainer.evaluate import evaluate, score

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainer.evaluate import Score

TEST = 500
ALNUM = "0123456789abcdefghijklmnopqrstuvwxyz"
ARTICLE = "article"


def put(samples: Sequence[Sample], folder: Path) -> Path:
    """Write images as the plain format has them."""
    folder.mkdir()
    for number, sample in enumerate(samples):
        name = f"{sample.label}_{number:05d}{image_suffix(sample.data)}"
        (folder / name).write_bytes(sample.data)
    return folder


def fit(
    train: Sequence[Sample], folder: Path, base: str | None, options: argparse.Namespace
) -> Path:
    """Run the command line's `fit`; the bundle's folder."""
    out = folder / "model"
    command = [sys.executable, "-m", "trainer", "fit", "--out", str(out), "--report", "none"]
    command += ["--dataset", str(put(train, folder / "train")), "--seed", str(options.seed)]
    command += ["--minutes", str(options.minutes), "--replay", str(options.replayed)]
    command += ["--base", base] if base else ["--charset", ALNUM]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"{' '.join(command)}\n{ended.stdout}{ended.stderr}")
    return out


def article(
    train: Sequence[Sample], test: Sequence[Sample], options: argparse.Namespace
) -> tuple[Score, int]:
    """Train the article's network for the minutes; its score, and the steps it made."""
    from recipes import BATCH, Article  # noqa: PLC0415 - imports TensorFlow

    from trainer.conversion import keras_logits  # noqa: PLC0415

    length = len(train[0].label)
    task = Task(ALNUM, length, length, "lower")

    def pixels(samples: Sequence[Sample]) -> np.ndarray[Any, np.dtype[np.uint8]]:
        return np.stack([np.rint(prepare(s.data) * 255).astype(np.uint8) for s in samples])

    learner = Article(
        "four_head_vgg",
        "mixed_bfloat16",
        heads=length,
        classes=len(ALNUM),
        seed=options.seed,
    )
    images, labels = pixels(train), encode([s.label.lower() for s in train], task)
    rng, begin = np.random.default_rng(options.seed), time.monotonic()
    while time.monotonic() - begin < options.minutes * 60:
        pick = rng.permutation(len(images))[:BATCH]
        learner.update(images[pick], labels[pick])
    best = keras_logits(learner.reader(), pixels(test)).argmax(-1)
    texts = ["".join(ALNUM[i] for i in row) for row in best]
    readings = [Recognition(text, 0.0, ()) for text in texts]
    return score(readings, [s.label.lower() for s in test], options.merge or ()), learner.step


def forgotten(bundle: Path, sets: Sequence[str]) -> dict[str, float]:
    """Exact match of a bundle on other sets."""
    recognizer, found = Recognizer.load(bundle), {}
    for each in sets:
        path, _, charset = each.partition("=")
        hits = [
            recognizer.read(s.data, charset=charset or None).text == s.label.lower()
            for s in gather([path])[:TEST]
        ]
        found[Path(path).stem] = round(mean(hits), 4)
    return found


def run(path: str, how: str, labels: int, options: argparse.Namespace) -> dict[str, Any]:
    """One training and its measurement."""
    samples = gather([path])
    random.Random(options.seed).shuffle(samples)
    test, train = samples[:TEST], samples[TEST : TEST + labels]
    row: dict[str, Any] = {"set": Path(path).stem, "how": how, "labels": len(train)}
    row |= {"seed": options.seed, "replay": options.replayed}
    begin = time.monotonic()
    if how == ARTICLE:
        found, row["steps"] = article(train, test, options)
        row["seconds"] = round(time.monotonic() - begin)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            bundle = fit(train, folder, options.base if how == "base" else None, options)
            row["seconds"] = round(time.monotonic() - begin)
            tested = [str(put(test, folder / "test"))]
            found = evaluate(tested, str(bundle), merge=options.merge or ()).score
            if options.others:
                row["others"] = forgotten(bundle, options.others)
    row["exact_match"] = round(found.exact_match, 4)
    if how != ARTICLE:
        row["calibration_error"] = round(found.calibration_error, 4)
    if found.merged_hits is not None:
        row["exact_match_merged"] = round(found.merged_hits / found.n, 4)
    return row


def main() -> int:
    """Train and measure in every combination that was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="+", metavar="SET")
    parser.add_argument("--labels", type=int, nargs="+", default=[50, 300, 1000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument(
        "--how", nargs="+", choices=("base", "scratch", ARTICLE), default=["base", ARTICLE]
    )
    parser.add_argument("--base", default="alnum4", metavar="BUNDLE")
    parser.add_argument("--replay", type=float, nargs="+", default=[0.0])
    parser.add_argument("--others", nargs="+", default=[], metavar="SET[=CHARSET]")
    parser.add_argument("--merge", type=groups, metavar="0o,1il")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.others and "base" in options.how:
        before = json.dumps({"before": forgotten(Path(options.base), options.others)})
        print(before, flush=True)
    for path, how, labels, seed in product(
        options.sets, options.how, options.labels, options.seeds
    ):
        for replayed in options.replay if how != ARTICLE else [0.0]:
            options.seed, options.replayed = seed, replayed
            row = run(path, how, labels, options)
            print(
                json.dumps(row)
                if options.json
                else "  ".join(f"{name} {value}" for name, value in row.items()),
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
