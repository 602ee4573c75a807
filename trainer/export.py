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
from trainer.quiet import quiet

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import keras
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

MAX_MODEL_BYTES = 3 << 20
MAX_VERSION_BYTES = 8 << 20
#: How far a probability may move when the weights are quantised.
QUANTISATION_TOLERANCE = 0.1


@dataclass(frozen=True)
class Packed:
    """A bundle's version in memory, not written yet."""

    manifest: Manifest
    files: dict[str, bytes]

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


def to_tflite(model: keras.Model) -> bytes:
    """Convert to LiteRT: batch of one, weights quantised to 8 bits, built-in operators only.

    Args:
        model: float32 input of shape (batch, 32, 90, 1), float32 logits (batch, heads, classes).

    Returns:
        The model file; logits leave it before any temperature.

    """
    import tensorflow as tf  # noqa: PLC0415

    image = tf.TensorSpec((1, HEIGHT, WIDTH, 1), tf.float32, name="image")
    infer = tf.function(lambda pixels: model(pixels, training=False), input_signature=[image])
    holder = tf.Module()  # keeps the variables alive; a Keras model alone loses them here
    holder.held = [variable.value for variable in model.variables]
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [infer.get_concrete_function()], holder
    )
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    with quiet():
        content: bytes = converter.convert()
    return content


def litert_logits(
    content: bytes, images: Iterable[NDArray[np.floating[Any]]]
) -> NDArray[np.float32]:
    """Run a model file on prepared images, one by one on one thread, as the crawl does.

    Args:
        content: what `to_tflite` returned.
        images: float arrays of shape (32, 90).

    Returns:
        Logits, float32 of shape (images, heads, classes).
    """
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415

    with quiet():
        interpreter = Interpreter(model_content=content, num_threads=1)
        interpreter.allocate_tensors()
    (entry,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    logits = []
    for pixels in images:
        interpreter.set_tensor(entry["index"], pixels.astype(np.float32)[None, :, :, None])
        interpreter.invoke()
        logits.append(interpreter.get_tensor(output["index"])[0])
    return np.stack(logits) if logits else np.zeros((0, *output["shape"][1:]), np.float32)


def keras_logits(model: keras.Model, images: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Run a Keras model on prepared images, float of shape (images, 32, 90)."""
    batches = [
        np.asarray(model(images[i : i + 256, :, :, None].astype(np.float32), training=False))
        for i in range(0, len(images), 256)
    ]
    return np.concatenate(batches)


def check_conversion(
    content: bytes, model: keras.Model, images: NDArray[np.floating[Any]]
) -> float:
    """Compare a model file with the network that it was made from.

    Args:
        content: what `to_tflite` returned.
        model: the network itself.
        images: float arrays, shape (images, 32, 90).

    Returns:
        The largest difference between two probabilities.

    Raises:
        BundleError: when one moved by more than 0.1, or when quantisation changed what a head reads
            although Keras preferred it by more than that.
    """
    if not len(images):
        return 0.0
    ours, theirs = softmax(litert_logits(content, images)), softmax(keras_logits(model, images))
    distance = float(np.abs(ours - theirs).max())
    if not distance <= QUANTISATION_TOLERANCE:  # also when it is not a number
        raise BundleError(
            f"quantised weights move a probability by {distance:.3f}, "
            f"at most {QUANTISATION_TOLERANCE} is accepted: the network was not trained properly"
        )
    best = np.sort(theirs, axis=-1)
    clear = best[..., -1] - best[..., -2] > QUANTISATION_TOLERANCE
    changed = int(((ours.argmax(-1) != theirs.argmax(-1)) & clear).sum())
    if changed:
        raise BundleError(f"quantised weights change what {changed} heads read with a clear lead")
    return distance


def pack(model: keras.Model, manifest: Manifest, golden_images: Sequence[bytes] = ()) -> Packed:
    """Make a version of a bundle in memory.

    Args:
        model: the trained network; a mixed-precision one is rebuilt in float32.
        manifest: what is said of it; files and golden images are filled in.
        golden_images: original bytes of a few images; their probabilities go into the manifest.

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
    content = to_tflite(model)
    pixels = np.array([prepare(image) for image in golden_images]).reshape(-1, HEIGHT, WIDTH)
    check_conversion(content, model, pixels)
    golden = tuple(
        Golden(
            image=image,
            text=decode_logits(logits, manifest).text,
            probabilities=tuple(tuple(round(float(p), 4) for p in row) for row in softmax(logits)),
        )
        for image, logits in zip(golden_images, litert_logits(content, pixels), strict=True)
    )
    files = {MODEL: content, WEIGHTS: weights_file(model)}
    return Packed(replace(manifest, golden=golden), files)


def weights_file(model: keras.Model) -> bytes:
    """The content of ``weights.keras``: architecture and float32 weights, without an optimizer."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / WEIGHTS
        model.save(path)
        return path.read_bytes()


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
    for line in packed.oversize():
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
