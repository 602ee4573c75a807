"""Networks of the default's kind with other channels, all trained on the same drawn captchas.

    python benchmarks/variants.py 16/32,32/64,64-128,128/192,192 16/32/48,48-96,96/128,128 \
        --drawn drawn.npz [--sets SET[=CHARSET]...] [--images 160000] [--steps 2200]
        [--length 3-8] [--counting] [--json]

A number is a 3x3 convolution with so many channels, "/" halves rows and columns after it, "-" rows
alone, "," nothing. --counting adds the layer that counts. The images are drawn once and kept in
--drawn. Each network makes the same steps of 128 of them in the same order, by the recipe of
`python -m trainer pretrain`, then reads 4,096 others, and real ones if there are sets of LABEL.png.
Milliseconds are LiteRT's for one image on one thread.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any

import numpy as np

from scrapy_captcha.bundle import Manifest
from scrapy_captcha.errors import ImageError
from scrapy_captcha.image import prepare
from scrapy_captcha.recognizer import decode_logits
from trainer.arguments import lengths
from trainer.corpus import gather
from trainer.quiet import import_tensorflow

import_tensorflow()

from recipes import BATCH, Default  # noqa: E402

from trainer import networks, synthesis  # noqa: E402
from trainer.conversion import exact_match, keras_logits, litert_logits, to_tflite  # noqa: E402
from trainer.drawing import ALNUM  # noqa: E402
from trainer.pretrain import Plan  # noqa: E402

if TYPE_CHECKING:
    import keras
    from numpy.typing import NDArray

UNSEEN = 4096
POOLS = {"/": (2, 2), "-": (2, 1)}


def steps_of(text: str) -> tuple[networks.Step, ...]:
    """The layers that a text stands for.

    >>> steps_of("16/32,32-48")
    (16, (2, 2), 32, 32, (2, 1), 48)
    """
    if not re.fullmatch(r"\d+([/,-]\d+)*", text):
        raise argparse.ArgumentTypeError(f"expected numbers and / , - as in 16/32,32, got {text!r}")
    parts = re.split(r"([/,-])", text)
    return tuple(POOLS[part] if part in POOLS else int(part) for part in parts if part != ",")


def drawn(
    path: Path, count: int, length: tuple[int, int], seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Pixels and labels of so many captchas; drawn at the first call, kept in a file."""
    if not path.exists():
        pixels, labels, have = [], [], 0
        for images, texts in synthesis.chunks(
            seed=seed, charset=ALNUM, length=length, workers=2, start=0, ramp=0
        ):
            pixels.append(images)
            labels.append(texts)
            have += len(images)
            print(f"drawn {have} of {count}", end="\r", file=sys.stderr, flush=True)
            if have >= count:
                break
        part = path.with_name(f"{path.name}.partial")
        with part.open("wb") as file:
            np.savez(file, pixels=np.concatenate(pixels), labels=np.concatenate(labels))
        part.replace(path)
    with np.load(path, allow_pickle=False) as kept:
        if len(kept["pixels"]) < count or kept["labels"].shape[1] != length[1]:
            raise SystemExit(f"{path} holds other images: name another file, or remove it")
        return kept["pixels"][:count], kept["labels"][:count]


def train(
    network: str,
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int32],
    *,
    length: tuple[int, int],
    steps: int,
    seed: int,
) -> keras.Model:
    """A network after its steps: the moving average of its weights."""
    plan = Plan(network, ALNUM, length, minutes=float("inf"), seed=seed, workers=0)
    training = Default(plan, steps)
    rng = np.random.default_rng(seed)
    passes = steps * BATCH // len(pixels) + 1
    order = np.concatenate([rng.permutation(len(pixels)) for _ in range(passes)])
    for step in range(steps):
        pick = order[step * BATCH : (step + 1) * BATCH]
        loss = training.update(pixels[pick], labels[pick])
        if step % 100 == 99:
            print(f"{network}: step {step + 1} of {steps}, loss {loss:.3f}", file=sys.stderr)
    return training.averaged()


def real(model: keras.Model, sets: list[str], limit: int, manifest: Manifest) -> float | None:
    """Mean exact match over sets of real captchas."""
    shares = []
    for each in sets:
        path, _, charset = each.partition("=")
        images, wanted = [], []
        for sample in gather([path])[:limit]:
            try:
                images.append(prepare(sample.data))
            except ImageError:
                continue
            wanted.append(sample.label.lower())
        read = [
            decode_logits(row, manifest, charset or None).text
            for row in keras_logits(model, np.stack(images))
        ]
        shares.append(mean(text == label for text, label in zip(read, wanted, strict=True)))
    return round(mean(shares), 4) if shares else None


def milliseconds(content: bytes) -> float:
    """LiteRT's median for one image."""
    image = np.random.default_rng(0).random((1, 32, 90), np.float32)
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        litert_logits(content, np.repeat(image, 200, axis=0))
        times.append((time.perf_counter() - begin) / 200 * 1000)
    return round(median(times), 3)


def main() -> int:
    """Train and measure one network after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("channels", nargs="+", metavar="CHANNELS")
    parser.add_argument("--drawn", type=Path, required=True, metavar="FILE.npz")
    parser.add_argument("--sets", nargs="*", default=[], metavar="SET[=CHARSET]")
    parser.add_argument("--limit", type=int, default=300, help="images of each set")
    parser.add_argument("--images", type=int, default=160_000)
    parser.add_argument("--steps", type=int, default=2200)
    parser.add_argument("--length", type=lengths, default=(4, 4))
    parser.add_argument("--counting", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        chosen = {text: steps_of(text) for text in options.channels}
    except argparse.ArgumentTypeError as e:
        parser.error(str(e))
    if options.images <= UNSEEN:
        parser.error(f"expected --images above {UNSEEN}")
    pixels, labels = drawn(options.drawn, options.images, options.length, options.seed)
    shortest, longest = options.length
    for text, steps in chosen.items():
        name = f"{text} counting" if options.counting else text
        networks.ARCHITECTURES[name] = partial(
            networks.attentive, steps, "variant", counting=options.counting
        )
        model = train(
            name,
            pixels[UNSEEN:],
            labels[UNSEEN:],
            length=options.length,
            steps=options.steps,
            seed=options.seed,
        )
        manifest = Manifest("variant", ALNUM, longest, shortest, name)
        score = exact_match(keras_logits(model, pixels[:UNSEEN]), labels[:UNSEEN])
        result: dict[str, Any] = {
            "network": name,
            "parameters": model.count_params(),
            "milliseconds": milliseconds(to_tflite(model)),
            "drawn": round(score, 4),
            "real": real(model, options.sets, options.limit, manifest),
        }
        print(
            json.dumps(result)
            if options.json
            else "  ".join(f"{key} {value}" for key, value in result.items()),
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
