"""A trained network -> a bundle that the crawl can load, checked against Keras on the way."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scrapy_captcha.bundle import MODEL, WEIGHTS, Golden, Manifest, open_bundle, write_version
from scrapy_captcha.errors import BundleError
from scrapy_captcha.image import HEIGHT, WIDTH, prepare
from scrapy_captcha.recognizer import decode_logits, softmax
from trainer.conversion import MAX_MODEL_BYTES, convert, litert_logits
from trainer.quiet import quiet

if TYPE_CHECKING:
    from collections.abc import Sequence

    import keras

    from trainer.corpus import Corpus

logger = logging.getLogger(__name__)

MAX_VERSION_BYTES = 8 << 20


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

    def write(self, out: Path) -> Path:
        """Write it as a new version of the bundle at ``out`` and make it the current one."""
        return write_version(out, self.manifest, self.files)


def to_float32(model: keras.Model, architecture: str) -> keras.Model:
    """The same network computing in float32.

    Args:
        model: a network of ``trainer.networks``, perhaps trained under a mixed policy.
        architecture: the name that ``networks.build`` knows it by.

    Returns:
        ``model`` itself if every layer computes in float32 already, else a copy that does.
    """
    import keras  # noqa: PLC0415

    from trainer import networks  # noqa: PLC0415

    if all(layer.compute_dtype in {None, "float32"} for layer in model.layers):
        return model
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        _, heads, classes = model.output_shape
        copy = networks.build(architecture, heads=heads, classes=classes)
    finally:
        keras.config.set_dtype_policy(policy)
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
        golden_images: original bytes of a few images; their probabilities go into the manifest.
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
    pixels = np.array([prepare(image) for image in golden_images]).reshape(-1, HEIGHT, WIDTH)
    converted = convert(model, manifest, pixels, shown)
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
    notes = tuple(f"{line}: {converted.precision} weights are used" for line in converted.refused)
    return Packed(
        replace(manifest, golden=golden, provenance={**manifest.provenance, "export": export}),
        {MODEL: converted.content, WEIGHTS: weights_file(model)},
        notes,
    )


def weights_file(model: keras.Model) -> bytes:
    """The content of ``weights.keras``: architecture and float32 weights, without an optimizer.

    Raises:
        BundleError: when there is no room for a temporary copy.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / WEIGHTS
            model.save(path)
            return path.read_bytes()
    except OSError as e:
        raise BundleError(f"cannot write to {tempfile.gettempdir()}: {e}") from None


def load_weights(content: bytes) -> keras.Model:
    """Load ``weights.keras``, whose size and sha256 `Bundle.read` has checked, in safe mode.

    Raises:
        BundleError: when Keras cannot load it.
    """
    import keras  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / WEIGHTS
        path.write_bytes(content)
        try:
            return keras.saving.load_model(path, compile=False, safe_mode=True)
        except Exception as e:  # noqa: BLE001 - Keras raises many kinds for a file it cannot read
            raise BundleError(f"Keras cannot load {WEIGHTS}: {str(e)[:300]}") from None


def write_bundle(
    model: keras.Model,
    out: Path,
    *,
    name: str,
    charset: str,
    length: int,
    min_length: int,
    architecture: str,
    provenance: dict[str, Any],
    accuracy: dict[str, Any],
    temperature: float = 1.0,
    golden_images: Sequence[bytes] = (),
    calibration: dict[str, Any] | None = None,
    case: str | None = None,
) -> Path:
    """Convert, check and write a network as a new version of the bundle at ``out``.

    Args:
        model: the trained network.
        out: the bundle's folder, made if missing.
        name: the bundle's name.
        charset: the characters in the order of the classes.
        length: number of heads.
        min_length: shortest text.
        architecture: the name that ``networks.build`` knows the network by.
        provenance: how it was made: recipe, seed, versions.
        accuracy: what was measured, as in ``{"exact_match": 0.98, "n": 500}``.
        temperature: what the logits are divided by before they are probabilities.
        golden_images: original bytes of a few images, kept in the manifest with what is read.
        calibration: how well the confidence fits.
        case: "lower" or "as-is"; derived from the charset if ``None``.

    Returns:
        The folder of the new version.

    Raises:
        BundleError: when the conversion changes what the network says, or ``out`` is not writable.
    """
    manifest = Manifest(
        name=name,
        charset=charset,
        length=length,
        min_length=min_length,
        architecture=architecture,
        case=case or ("lower" if charset == charset.lower() else "as-is"),
        temperature=temperature,
        accuracy=accuracy,
        calibration=calibration or {},
        provenance=provenance,
    )
    packed = pack(model, manifest, golden_images)
    for line in (*packed.notes, *packed.oversize()):
        logger.warning("%s", line)
    return packed.write(out)


def export(model: str, out: Path, format_: str) -> Path:
    """Take a model out of its bundle, its size and sha256 checked.

    Args:
        model: a shipped name or the path of a bundle.
        out: a folder, made if missing.
        format_: "tflite", "keras", or "onnx", which is converted from Keras.

    Returns:
        The file that was written.

    Raises:
        BundleError: when the bundle is damaged, a converter is missing, or ``out`` is not writable.
    """
    bundle = open_bundle(model)
    name = bundle.manifest.name
    suffix = Path(WEIGHTS if format_ == "keras" else MODEL).suffix
    target = out / f"{name}{'.onnx' if format_ == 'onnx' else suffix}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        if format_ == "onnx":
            _write_onnx(load_weights(bundle.read(WEIGHTS)), target)
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
            raise BundleError("ONNX needs converters: pip install tf2onnx onnx") from None
        target.write_bytes(path.read_bytes())
