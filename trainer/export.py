"""A trained network -> a bundle that the crawl can load, checked against Keras on the way."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scrapy_captcha.bundle import (
    MANIFEST,
    MAX_GOLDEN,
    MAX_MANIFEST_BYTES,
    MODEL,
    WEIGHTS,
    Golden,
    Manifest,
    open_bundle,
)
from scrapy_captcha.errors import BundleError
from scrapy_captcha.graph import check_graph
from scrapy_captcha.image import HEIGHT, WIDTH, prepare
from scrapy_captcha.recognizer import decode_logits, softmax
from scrapy_captcha.versions import write_version
from trainer.conversion import convert, litert_logits
from trainer.quiet import quiet
from trainer.weights import load_weights, weights_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    import keras

    from trainer.corpus import Corpus

#: What the files of a shipped bundle keep within.
MAX_MODEL_BYTES = 3 << 20
MAX_VERSION_BYTES = 8 << 20
#: How long golden images may make a manifest; the rest is for what is measured later.
MAX_GOLDEN_MANIFEST = MAX_MANIFEST_BYTES - (64 << 10)


@dataclass(frozen=True)
class Packed:
    """A bundle's version in memory, not written yet.

    Args:
        notes: what the user should know of the conversion, a line each.
    """

    manifest: Manifest
    files: dict[str, bytes]
    notes: tuple[str, ...] = ()

    def oversize(self) -> list[str]:
        """A line for each limit of the shipped bundles that it exceeds."""
        sizes = {
            MODEL: (len(self.files[MODEL]), MAX_MODEL_BYTES),
            "the version": (sum(map(len, self.files.values())), MAX_VERSION_BYTES),
        }
        return [
            f"{name} takes {size} bytes, more than the {limit} of a shipped bundle"
            for name, (size, limit) in sizes.items()
            if size > limit
        ]

    def write(self, out: Path, *, promoted: bool = True) -> Path:
        """Write it as a new version of the bundle at ``out``.

        Args:
            out: the bundle's folder.
            promoted: make it the current one, else it is a challenger.
        """
        return write_version(out, self.manifest, self.files, promoted=promoted)


def to_float32(model: keras.Model, architecture: str) -> keras.Model:
    """The same network computing in float32.

    Args:
        model: a network of ``trainer.networks``, perhaps trained under a mixed policy.
        architecture: the name that ``networks.build`` knows it by.

    Returns:
        ``model`` itself if every layer computes in float32 already, else a copy that does.
    """
    from trainer import networks  # noqa: PLC0415

    if all(layer.compute_dtype in {None, "float32"} for layer in model.layers):
        return model
    _, heads, classes = model.output_shape
    with networks.computing_in("float32"):
        copy = networks.build(architecture, heads=heads, classes=classes)
    copy.set_weights(model.get_weights())
    return copy


def pack(
    model: keras.Model,
    manifest: Manifest,
    golden_images: Sequence[bytes] = (),
    shown: Corpus | None = None,
) -> Packed:
    """Make a version of a bundle in memory.

    Args:
        model: the trained network; a mixed-precision one is rebuilt in float32.
        manifest: what is said of it; files and golden images are filled in.
        golden_images: original bytes of a few images, the best first; they and their probabilities
            go into the manifest, as many as it has room for.
        shown: images on which the conversion must not change the exact match.

    Raises:
        BundleError: when the conversion changes what the network says.
        ImageError: when a golden image cannot be decoded.
    """
    if model.output_shape[1:] != (manifest.length, manifest.classes):
        raise BundleError(
            f"expected logits of shape {(manifest.length, manifest.classes)} for charset and "
            f"length, got {model.output_shape[1:]}"
        )
    model = to_float32(model, manifest.architecture)
    golden_images = golden_images[:MAX_GOLDEN]
    pixels = np.array([prepare(image) for image in golden_images]).reshape(-1, HEIGHT, WIDTH)
    converted = convert(model, manifest, pixels, shown)
    check_graph(converted.content, manifest.length, manifest.classes)
    golden = tuple(
        Golden(
            image=image,
            text=decode_logits(logits, manifest).text,
            probabilities=tuple(tuple(round(float(p), 4) for p in row) for row in softmax(logits)),
        )
        for image, logits in zip(
            golden_images, litert_logits(converted.content, pixels), strict=True
        )
    )
    export = {"weights": converted.precision, "exact_match": converted.exact_match}
    manifest = replace(manifest, provenance={**manifest.provenance, "export": export})
    notes = [f"{line}: {converted.precision} weights are used" for line in converted.refused]
    while golden and len(replace(manifest, golden=golden).to_json().encode()) > MAX_GOLDEN_MANIFEST:
        golden = golden[:-1]
    if len(golden) < len(golden_images):
        notes.append(
            f"{MANIFEST} has room for {len(golden)} of {len(golden_images)} golden images only"
        )
    return Packed(
        replace(manifest, golden=golden),
        {MODEL: converted.content, WEIGHTS: weights_file(model)},
        tuple(notes),
    )


def export(model: str, out: Path, format_: str) -> Path:
    """Take a model out of its bundle, its size and sha256 checked.

    Args:
        model: a shipped name or the path of a bundle.
        out: a folder, made if missing.
        format_: "tflite", "keras", or "onnx", which is converted from Keras.

    Returns:
        The file that was written.

    Raises:
        BundleError: when the bundle is damaged, a converter is missing or fails, or ``out`` is not
            writable.
    """
    bundle = open_bundle(model)
    name = bundle.manifest.name
    suffix = Path(WEIGHTS if format_ == "keras" else MODEL).suffix
    target = out / f"{name}{'.onnx' if format_ == 'onnx' else suffix}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        if format_ == "onnx":
            _write_onnx(load_weights(bundle.read(WEIGHTS), bundle.manifest), target)
        else:
            target.write_bytes(bundle.read(WEIGHTS if format_ == "keras" else MODEL))
    except OSError as e:
        raise BundleError(f"cannot write {target}: {e}") from None
    return target


def _write_onnx(model: keras.Model, target: Path) -> None:
    import keras  # noqa: PLC0415

    image = {"shape": (1, HEIGHT, WIDTH, 1), "dtype": "float32", "name": "image"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        try:
            with quiet():
                model.export(
                    path, format="onnx", verbose=False, input_signature=[keras.InputSpec(**image)]
                )
        except ImportError:
            raise BundleError("ONNX needs converters: pip install 'scrapy-captcha[onnx]'") from None
        except Exception as e:  # noqa: BLE001 - converters raise many kinds
            raise BundleError(
                f"cannot be converted to ONNX: {type(e).__name__}: {str(e)[:300]}"
            ) from None
        target.write_bytes(path.read_bytes())
