"""Image bytes -> text, on LiteRT; thread-safe, and free of Scrapy and TensorFlow."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from scrapy_captcha import image
from scrapy_captcha.bundle import MODEL, Bundle, open_bundle, shipped_names
from scrapy_captcha.errors import BundleError, ImageError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from scrapy_captcha.bundle import Manifest

#: How far a golden probability may be from the one that the bundle states.
GOLDEN_TOLERANCE = 0.02


@dataclass(frozen=True)
class Recognition:
    """What a model read.

    :param text: the characters, in the bundle's case
    :param confidence: calibrated probability, 0 to 1, that the whole text is right
    :param characters: each character with its own probability
    """

    text: str
    confidence: float
    characters: tuple[tuple[str, float], ...]


class Reader(Protocol):
    """Whatever turns image bytes into a :class:`Recognition`; it may block."""

    @property
    def model_hash(self) -> str:
        """What identifies the model in the dataset."""

    def read(
        self, image_bytes: bytes, charset: str | None = None, length: int | None = None
    ) -> Recognition:
        """Read one image."""


class Recognizer:
    """A loaded model.

    >>> recognizer = Recognizer.load("alnum4")
    >>> recognizer.read(open("1a8m.png", "rb").read()).text
    '1a8m'
    """

    def __init__(self, bundle: Bundle) -> None:
        from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 - 0.14 s, only if used

        self.bundle = bundle
        self.manifest: Manifest = bundle.manifest
        self.model_hash = bundle.hash
        self._lock = threading.Lock()
        content = bundle.read(MODEL)
        try:
            self._interpreter = Interpreter(model_content=content, num_threads=1)
            self._interpreter.allocate_tensors()
            (entry,) = self._interpreter.get_input_details()
            (output,) = self._interpreter.get_output_details()
        except (ValueError, RuntimeError) as e:
            raise BundleError(f"{bundle.folder / MODEL} does not load: {e}") from None
        self._input, self._output = entry["index"], output["index"]
        shapes = tuple(entry["shape"]), tuple(output["shape"])
        expected = (
            (1, image.HEIGHT, image.WIDTH, 1),
            (1, self.manifest.length, self.manifest.classes),
        )
        if shapes != expected:
            raise BundleError(f"{bundle.folder / MODEL}: expected shapes {expected}, got {shapes}")
        self._check_golden()

    @classmethod
    def load(cls, name_or_path: str | os.PathLike[str] = "auto") -> Recognizer:
        """Load a shipped model by its name, or a bundle by its path.

        :param name_or_path: ``"auto"`` is the shipped ``alnum4``
        :raises BundleError: when it is missing, damaged or fails its golden images
        """
        return cls(open_bundle(choose_model(str(name_or_path), None)))

    def read(
        self, image_bytes: bytes, charset: str | None = None, length: int | None = None
    ) -> Recognition:
        """Read one image.

        :param image_bytes: PNG, JPEG, GIF, WEBP or BMP (:func:`scrapy_captcha.image.decode`)
        :param charset: only these characters are possible; folded to the bundle's case
        :param length: exactly so many characters; needed by no fixed-length model
        :raises ImageError: when the bytes are not an acceptable image
        :raises ValueError: when the model cannot read that charset or length
        """
        return decode_logits(
            self.logits(image.prepare(image_bytes)), self.manifest, charset, length
        )

    def read_many(
        self, images: Iterable[bytes], charset: str | None = None, length: int | None = None
    ) -> list[Recognition]:
        """Read several images; the first unacceptable one raises."""
        return [self.read(image_bytes, charset, length) for image_bytes in images]

    def logits(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """The network's raw output.

        :param pixels: float32 of shape (32, 90), as :func:`scrapy_captcha.image.prepare` gives
        :return: float32 of shape (heads, classes), before the temperature
        """
        with self._lock:
            self._interpreter.set_tensor(self._input, pixels[None, :, :, None])
            self._interpreter.invoke()
            result: NDArray[np.float32] = self._interpreter.get_tensor(self._output)[0]
        return result

    def _check_golden(self) -> None:
        for golden in self.manifest.golden:
            try:
                found = softmax(self.logits(image.prepare(golden.image)))
            except ImageError as e:
                raise BundleError(f"{self.bundle.folder}: a golden image: {e}") from None
            distance = float(np.abs(found - np.array(golden.probabilities)).max())
            if not distance <= GOLDEN_TOLERANCE:
                raise BundleError(
                    f"{self.bundle.folder}: the golden image {golden.text!r} gives probabilities "
                    f"{distance:.3f} away from those in the manifest (at most {GOLDEN_TOLERANCE})"
                )


def choose_model(name: str, length: int | None) -> str:
    """What ``"auto"`` stands for: alnum4 for four characters, alnum8 for other lengths."""
    if name != "auto":
        return name
    if length not in {None, 4} and "alnum8" in shipped_names():
        return "alnum8"
    return "alnum4"


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities along the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: NDArray[np.float32] = powers / powers.sum(axis=-1, keepdims=True)
    return result


def allowed_classes(manifest: Manifest, charset: str | None) -> NDArray[np.bool_] | None:
    """Which classes a charset allows, or ``None`` for all of them.

    :param charset: folded to the bundle's case first, so A-Z on a lower-case bundle is fine
    :raises ValueError: when the model cannot read a character of it
    """
    if charset is None:
        return None
    wanted = set(charset.lower() if manifest.case == "lower" else charset)
    unknown = wanted - set(manifest.charset)
    if unknown or not wanted:
        raise ValueError(
            f"expected a charset within {manifest.charset!r} of the model {manifest.name!r}, "
            f"got {charset!r}: it does not know {''.join(sorted(unknown))!r}"
        )
    return np.array([character in wanted for character in manifest.charset])


def check_length(manifest: Manifest, length: int | None) -> None:
    """Raise ``ValueError`` when the model cannot read texts of that length."""
    if length is not None and not manifest.min_length <= length <= manifest.length:
        lengths = (
            f"{manifest.length}"
            if manifest.min_length == manifest.length
            else f"{manifest.min_length} to {manifest.length}"
        )
        raise ValueError(
            f"the model {manifest.name!r} reads {lengths} characters, not {length}: name a model "
            "for that length or train one"
        )


def decode_logits(
    logits: NDArray[np.float32],
    manifest: Manifest,
    charset: str | None = None,
    length: int | None = None,
) -> Recognition:
    """Logits of shape (heads, classes) -> the most probable text that the constraints allow.

    :raises ValueError: when the model cannot read that charset or length
    """
    check_length(manifest, length)
    allowed = allowed_classes(manifest, charset)
    scaled = logits / np.float32(manifest.temperature)
    if allowed is not None:
        scaled[:, : len(manifest.charset)][:, ~allowed] = -np.inf
    probabilities = softmax(scaled)
    characters = probabilities[:, : len(manifest.charset)]
    best = characters.argmax(axis=1)
    chances = characters[np.arange(len(best)), best]
    if manifest.min_length == manifest.length:
        count, confidence = manifest.length, float(chances.prod())
    else:
        lengths = [length] if length is not None else range(manifest.min_length, len(best) + 1)
        blank = probabilities[:, -1]
        whole = [float(chances[:n].prod() * blank[n:].prod()) for n in lengths]
        count = list(lengths)[int(np.argmax(whole))]
        total = sum(whole) if length is not None else 1.0
        confidence = max(whole) / total if total > 0 else 0.0
    read = tuple(
        (manifest.charset[i], float(p)) for i, p in zip(best[:count], chances, strict=False)
    )
    return Recognition("".join(character for character, _ in read), confidence, read)
