"""The article's network by the article's recipe, and the default, on the same images of one style.

    python benchmarks/networks.py --network four_head_vgg --minutes 25 [--precision mixed_bfloat16]
    python benchmarks/networks.py --network four_head_compact --minutes 8
    python benchmarks/networks.py --throughput 60 [--json]

Trains a network on 100,000 images (drawn at the first run, see one_style.py) and reads 10,000 that
it has not seen. Minutes are minutes of training; measurements come on top. The same command goes on
after a kill from its last measurement, and with more minutes after its end. The result is printed
as JSON, added to results.jsonl in the folder of the runs, and drawn into comparison.png there
beside those of the other runs.

With --throughput, each network alone trains in each precision for so many seconds: for an idle
machine. The exit code is 1 when the default, by its own recipe, trains on less than four times as
many images a second as the article's network at its fastest.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from one_style import CHARSET, LENGTH, Images, add_options, open_images

from scrapy_captcha.image import HEIGHT, WIDTH
from scrapy_captcha.intervals import wilson
from trainer.quiet import import_tensorflow

import_tensorflow()

from recipes import BATCH, PRECISIONS, RATE, Article, Default, Learner  # noqa: E402

from trainer.conversion import exact_match  # noqa: E402
from trainer.conversion import keras_logits as logits_of  # noqa: E402
from trainer.pretrain import Plan  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

ARTICLE, DEFAULT = "four_head_vgg", "four_head_compact"
#: Unseen images that are read on the way; all of them at the end.
PART = 512
#: Network, recipe and precision of each measurement of throughput.
CASES = (
    *((ARTICLE, "article", precision) for precision in PRECISIONS),
    *((DEFAULT, "article", precision) for precision in PRECISIONS),
    (DEFAULT, "own", "mixed_bfloat16"),
)


def learner(
    network: str,
    recipe: str,
    precision: str,
    *,
    seed: int,
    minutes: float = math.inf,
    steps: float = math.inf,
    rate: float = RATE,
) -> Learner:
    """A network before its first step; minutes or steps are where its own recipe ends."""
    if recipe == "article":
        return Article(network, precision, heads=LENGTH, classes=len(CHARSET), seed=seed, rate=rate)
    plan = Plan(
        architecture=network,
        charset=CHARSET,
        length=(LENGTH, LENGTH),
        minutes=minutes,
        seed=seed,
        workers=0,
    )
    return Default(plan, steps)


class Order:
    """Batches of all images in a new order every epoch; the same ones for the same step."""

    def __init__(self, images: Images, seed: int) -> None:
        self._images, self._seed = images, seed
        self.steps = len(images.pixels) // BATCH
        self._epoch = -1
        self._order: NDArray[np.int64] = np.empty(0, np.int64)

    def batch(self, step: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Pixels and labels of a step."""
        epoch, at = divmod(step, self.steps)
        if epoch != self._epoch:
            rng = np.random.default_rng((self._seed, epoch))
            self._epoch, self._order = epoch, rng.permutation(len(self._images.pixels))
        pick = self._order[at * BATCH : (at + 1) * BATCH]
        return self._images.pixels[pick], self._images.labels[pick]


def train(
    training: Learner,
    images: Images,
    run: Path,
    *,
    seed: int,
    minutes: float,
    epochs: float,
    every: float,
    report: Callable[[str], None],
) -> list[dict[str, float]]:
    """Train until the minutes or the epochs are over.

    Args:
        training: what learns, a new one.
        images: what it learns from, and is measured by.
        run: a file's path without its ending: beside it are the checkpoint and the measurements.
        seed: of the order of the images.
        minutes: of training alone.
        epochs: passes through the images.
        every: seconds of training between measurements.
        report: gets a line for each.

    Returns:
        The measurements.

    """
    order = Order(images, seed)
    checkpoint, record = run.with_suffix(".npz"), run.with_suffix(".json")
    curve: list[dict[str, float]] = []
    if checkpoint.exists():
        training.restore(checkpoint)
        curve = [
            point
            for point in json.loads(record.read_text())["curve"]
            if point["step"] <= training.step
        ]
        report(f"going on from step {training.step}, {training.seconds / 60:.1f} min")
    part = (images.unseen_pixels[:PART], images.unseen_labels[:PART])
    losses: list[float] = []
    measured, begun = training.seconds, training.step
    while training.seconds < minutes * 60 and training.step < epochs * order.steps:
        start = time.perf_counter()
        losses.append(training.update(*order.batch(training.step)))
        training.seconds += time.perf_counter() - start
        over = training.seconds >= minutes * 60 or training.step >= epochs * order.steps
        if training.seconds - measured < every and not over:
            continue
        score = exact_match(logits_of(training.reader(), part[0]), part[1])
        speed = (training.step - begun) * BATCH / (training.seconds - measured)
        loss = float(np.mean(losses))
        report(
            f"{training.seconds / 60:6.1f} min  step {training.step:6d}"
            f"  epoch {training.step / order.steps:6.2f}  loss {loss:.4f}"
            f"  exact match {score:.4f} of {len(part[0])}  {speed:.0f} images/s"
        )
        curve.append(
            {
                "seconds": round(training.seconds, 1),
                "step": training.step,
                "loss": round(loss, 4),
                "exact_match": round(score, 4),
            }
        )
        write(record, {"result": None, "curve": curve})
        training.save(checkpoint)
        losses, measured, begun = [], training.seconds, training.step
    return curve


def write(path: Path, value: Any) -> None:
    """Write JSON, in one go."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value))
    partial.replace(path)


def result_of(training: Learner, images: Images) -> dict[str, Any]:
    """How well it reads all the unseen images, and what that took."""
    model = training.reader()
    begin = time.perf_counter()
    logits = logits_of(model, images.unseen_pixels)
    reading = time.perf_counter() - begin
    count = len(logits)
    hits = round(exact_match(logits, images.unseen_labels) * count)
    shown = training.step * BATCH
    return {
        "exact_match": round(hits / count, 4),
        "n": count,
        "interval_95": [round(bound, 4) for bound in wilson(hits, count)],
        "per_position": [
            round(float(share), 4)
            for share in (logits.argmax(-1) == images.unseen_labels).mean(axis=0)
        ],
        "seconds": round(training.seconds, 1),
        "images": len(images.pixels),
        "images_shown": shown,
        "epochs": round(shown / len(images.pixels), 2),
        "images_per_second": round(shown / max(training.seconds, 1e-9), 1),
        "images_read_per_second": round(count / reading, 1),
        "parameters": model.count_params(),
        "processors": os.cpu_count(),
    }


def plot(runs: Path) -> Path:
    """Exact match by time and by images shown, of every run in a folder."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - the extra `dev` has it

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    by_time, by_images = figure.subplots(1, 2, sharey=True)
    for path in sorted(runs.glob("*.json")):
        kept = json.loads(path.read_text())
        points = [point | {"share": 100 * point["exact_match"]} for point in kept["curve"]]
        label = path.stem
        if kept["result"]:
            label += f": {100 * kept['result']['exact_match']:.2f} %"
        shares = [0.0, *(point["share"] for point in points)]
        minutes = [0.0, *(point["seconds"] / 60 for point in points)]
        shown = [0.0, *(point["step"] * BATCH / 1000 for point in points)]
        by_time.plot(minutes, shares, marker=".", label=label)
        by_images.plot(shown, shares, marker=".", label=label)
    by_time.set(xlabel="minutes of training", ylabel="exact match, %", ylim=(-2, 102))
    by_images.set(xlabel="images shown, thousands")
    for axes in (by_time, by_images):
        axes.grid(visible=True, alpha=0.3)
    by_time.legend(loc="lower right", fontsize="small")
    figure.savefig(runs / "comparison.png", dpi=130)
    return runs / "comparison.png"


def compare(options: argparse.Namespace) -> int:
    """Train one network and say how well it reads."""
    own = options.network == DEFAULT
    recipe = "own" if own else "article"
    precision = options.precision or ("mixed_bfloat16" if own else "float32")
    images = open_images(
        options.images,
        train=options.train,
        unseen=options.unseen,
        seed=options.seed,
        workers=options.workers,
    )
    runs: Path = options.runs or options.images / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    run = runs / f"{options.network}-{precision}{'' if own else f'-{options.rate:.0e}'}"
    training = learner(
        options.network,
        recipe,
        precision,
        seed=options.seed,
        minutes=options.minutes,
        steps=options.epochs * (len(images.pixels) // BATCH),
        rate=options.rate,
    )
    curve = train(
        training,
        images,
        run,
        seed=options.seed,
        minutes=options.minutes,
        epochs=options.epochs,
        every=options.every,
        report=lambda line: print(line, file=sys.stderr, flush=True),
    )
    result = {"network": options.network, "recipe": recipe, "precision": precision}
    result |= {} if own else {"rate": options.rate}
    result |= result_of(training, images)
    write(run.with_suffix(".json"), {"result": result, "curve": curve})
    with (runs / "results.jsonl").open("a") as file:
        file.write(json.dumps(result) + "\n")
    print(json.dumps(result), flush=True)
    print(plot(runs), file=sys.stderr)
    return 0


def throughput(seconds: float) -> list[dict[str, Any]]:
    """Images a second of each network alone, in turn."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (BATCH, HEIGHT, WIDTH), np.uint8)
    labels = rng.integers(0, len(CHARSET), (BATCH, LENGTH), np.int32)
    rows = []
    for network, recipe, precision in CASES:
        training = learner(network, recipe, precision, seed=0, minutes=1.0)
        for _ in range(3):  # traces it, and warms up
            training.update(pixels, labels)
        begin, steps = time.perf_counter(), 0
        while (taken := time.perf_counter() - begin) < seconds or not steps:
            training.update(pixels, labels)
            steps += 1
        rows.append(
            {
                "network": network,
                "recipe": recipe,
                "precision": precision,
                "images_per_second": round(steps * BATCH / taken, 1),
            }
        )
    return rows


def main() -> int:
    """Parse the options, then train or measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--network", choices=(ARTICLE, DEFAULT))
    what.add_argument("--throughput", type=float, metavar="SECONDS")
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--epochs", type=float, default=math.inf)
    parser.add_argument(
        "--precision", choices=PRECISIONS, help="of the article's network (default: float32)"
    )
    parser.add_argument("--rate", type=float, default=RATE, help="of the article's Adam")
    parser.add_argument("--every", type=float, default=60, help="seconds between measurements")
    parser.add_argument("--runs", type=Path, help="folder of results (default: beside the images)")
    parser.add_argument("--min-ratio", type=float, default=4, help="of the throughputs")
    parser.add_argument("--json", action="store_true")
    add_options(parser)
    options = parser.parse_args()
    if options.throughput:
        rows = throughput(options.throughput)
        fastest = max(row["images_per_second"] for row in rows if row["network"] == ARTICLE)
        ratio = rows[-1]["images_per_second"] / fastest
        if options.json:
            print(json.dumps({"rows": rows, "ratio": round(ratio, 2)}))
        else:
            for row in rows:
                print(
                    f"{row['network']:>18} {row['recipe']:>8} {row['precision']:>15}"
                    f" {row['images_per_second']:8.1f} images/s"
                )
            print(f"the default by its own recipe: {ratio:.1f} times the article's network")
        return int(ratio < options.min_ratio)
    if math.isinf(options.minutes) and math.isinf(options.epochs):
        parser.error("expected --minutes or --epochs with --network")
    if options.network == DEFAULT and options.precision == "float32":
        parser.error("the default's own recipe trains in mixed_bfloat16")
    try:
        return compare(options)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last measurement", file=sys.stderr)
        return 130
    except (OSError, ValueError) as e:
        sys.exit(str(e))


if __name__ == "__main__":
    sys.exit(main())
