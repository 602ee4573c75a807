"""Image bytes -> text, on LiteRT; thread-safe, and free of Scrapy and TensorFlow."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, replace
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Protocol

import numpy as np

from scrapy_captcha import image
from scrapy_captcha.bundle import MODEL, Bundle, open_bundle
from scrapy_captcha.errors import BundleError, ImageError
from scrapy_captcha.graph import check_graph

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable
    from concurrent.futures import Executor

    from numpy.typing import NDArray

    from scrapy_captcha.bundle import Manifest

#: The name that stands for the shipped models, and those models.
AUTO, FOUR, ANY_LENGTH = "auto", "alnum4", "alnum8"
FOUR_LENGTH = 4
#: How much likelier four characters are than another number, before an image is seen.
SPECIALIST_PRIOR = 8.0
#: Lengths seen long ago count less: about the last hundred images matter.
FADING = 0.99
_TINY = np.float32(1e-12)

#: Logits of a trained network stay far below; what is above, or no number, says nothing.
MAX_LOGIT = 1e4
#: How far a golden probability may be from the one that the bundle states.
GOLDEN_TOLERANCE = 0.02


@dataclass(frozen=True)
class Recognition:
    """What a model read.

    :param text: the characters, in the bundle's case
    :param confidence: calibrated probability, 0 to 1, that the whole text is right
    :param characters: each character with its own probability
    :param model_hash: what identifies the model that read it; empty where none did
    """

    text: str
    confidence: float
    characters: tuple[tuple[str, float], ...]
    model_hash: str = ""


class Readable(Protocol):
    """What a model can read; a :class:`scrapy_captcha.bundle.Manifest` says it, too."""

    @property
    def name(self) -> str:
        """Of the model."""

    @property
    def charset(self) -> str:
        """The characters that it knows."""

    @property
    def length(self) -> int:
        """The most characters."""

    @property
    def min_length(self) -> int:
        """The least."""

    @property
    def case(self) -> str:
        """``"lower"`` when it reads upper case as lower case, else ``"as-is"``."""


class Reader(Protocol):
    """Whatever turns image bytes into a :class:`Recognition`; it may block."""

    @property
    def manifest(self) -> Readable:
        """What it can read."""

    @property
    def model_hash(self) -> str:
        """What identifies the model."""

    @property
    def threads(self) -> Executor | None:
        """Where it is to read; ``None`` for anywhere, as it takes next to no time."""

    def read(
        self,
        image_bytes: bytes,
        charset: str | None = None,
        length: int | None = None,
        deadline: float = math.inf,
    ) -> Recognition:
        """Read one image.

        :param deadline: :func:`time.monotonic` from when on nobody waits for it any more
        """


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
        self.threads = None
        self._lock = threading.Lock()
        content = bundle.read(MODEL)
        try:
            check_graph(content, self.manifest.length, self.manifest.classes)
            self._interpreter = Interpreter(model_content=content, num_threads=1)
            self._interpreter.allocate_tensors()
            (entry,) = self._interpreter.get_input_details()
            (output,) = self._interpreter.get_output_details()
            self._input, self._output = entry["index"], output["index"]
            self.logits(np.ones((image.HEIGHT, image.WIDTH), np.float32))
        except (ValueError, RuntimeError) as e:
            raise BundleError(f"{bundle.folder / MODEL} does not load: {e}") from None
        self._check_golden()

    @classmethod
    def load(
        cls, name_or_path: str | os.PathLike[str] = "auto", length: int | None = None
    ) -> Recognizer:
        """Load a shipped model by its name, or a bundle by its path.

        :param name_or_path: ``"auto"`` is the shipped model for the length: ``alnum4`` for four
            characters, ``alnum8`` for other lengths, and both when it is not known: each image
            then tells by itself, at twice the time
        :param length: the number of characters of all texts, if it is known
        :raises BundleError: when it is missing, damaged or fails its golden images
        """
        return load_reader(str(name_or_path), length, lambda name: Recognizer(open_bundle(name)))

    def read(
        self,
        image_bytes: bytes,
        charset: str | None = None,
        length: int | None = None,
        deadline: float = math.inf,  # noqa: ARG002 - it takes a millisecond
    ) -> Recognition:
        """Read one image.

        :param image_bytes: PNG, JPEG, GIF, WEBP or BMP (:func:`scrapy_captcha.image.decode`)
        :param charset: only these characters are possible; folded to the bundle's case
        :param length: exactly so many characters; needed by no fixed-length model
        :param deadline: not looked at, for it is read at once
        :raises ImageError: when the bytes are not an acceptable image
        :raises ValueError: when the model cannot read that charset or length
        """
        return self.read_pixels(image.prepare(image_bytes), charset, length)

    def read_pixels(
        self, pixels: NDArray[np.float32], charset: str | None, length: int | None
    ) -> Recognition:
        """Read a prepared image, float32 of shape (32, 90)."""
        read = decode_logits(self.logits(pixels), self.manifest, charset, length)
        return replace(read, model_hash=self.model_hash)

    def read_many(
        self, images: Iterable[bytes], charset: str | None = None, length: int | None = None
    ) -> list[Recognition]:
        """Read several images; the first unacceptable one raises."""
        return [self.read(image_bytes, charset, length) for image_bytes in images]

    def logits(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """The network's raw output.

        :param pixels: float32 of shape (32, 90), as :func:`scrapy_captcha.image.prepare` gives
        :return: float32 of shape (heads, classes), before the temperature
        :raises ImageError: when they are no numbers, or far from what a network gives
        """
        with self._lock:
            self._interpreter.set_tensor(self._input, pixels[None, :, :, None])
            self._interpreter.invoke()
            result: NDArray[np.float32] = self._interpreter.get_tensor(self._output)[0]
        if not np.abs(result).max() <= MAX_LOGIT:
            raise ImageError(f"the model {self.manifest.name!r} gives no probabilities for it")
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


class EitherRecognizer(Recognizer):
    """A model of many lengths, and one of a single length, which reads what has that length better.

    :param remembers: whether lengths that were likely before are likelier now, as the images of one
        site mostly have the same number of characters; else each image tells by itself
    """

    def __init__(
        self, general: Recognizer, specialist: Recognizer, *, remembers: bool = False
    ) -> None:
        self.bundle, self.manifest = general.bundle, general.manifest
        self.model_hash = f"{general.model_hash}+{specialist.model_hash}"
        self.threads = None
        self._general, self._specialist = general, specialist
        own, manifest = specialist.manifest.length, general.manifest
        self._prior = {
            n: SPECIALIST_PRIOR if n == own else 1.0
            for n in range(manifest.min_length, manifest.length + 1)
        }
        self._seen = dict.fromkeys(self._prior, 0.0) if remembers else None
        self._lock = threading.Lock()

    def logits(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the model of many lengths says."""
        return self._general.logits(pixels)

    def read_pixels(
        self, pixels: NDArray[np.float32], charset: str | None, length: int | None
    ) -> Recognition:
        """Read a prepared image, float32 of shape (32, 90)."""
        own, sure, logits = self._specialist.manifest.length, 1.0, None
        if length is None:
            logits = self.logits(pixels)
            length, sure = self._choose_length(length_chances(logits, self.manifest))
        if length == own:
            read = self._specialist.read_pixels(pixels, charset, length)
        else:
            logits = self.logits(pixels) if logits is None else logits
            read = decode_logits(logits, self.manifest, charset, length)
        return replace(read, confidence=read.confidence * sure, model_hash=self.model_hash)

    def _choose_length(self, chances: dict[int, float]) -> tuple[int, float]:
        """The likeliest length, and its probability, from an image's and what is known already."""
        with self._lock:
            seen = self._seen or dict.fromkeys(self._prior, 0.0)
            weights = {n: chance * (self._prior[n] + seen[n]) for n, chance in chances.items()}
            total = sum(weights.values()) or 1.0
            if self._seen is not None:
                for n, weight in weights.items():
                    self._seen[n] = self._seen[n] * FADING + weight / total
        length, weight = max(weights.items(), key=itemgetter(1))
        return length, weight / total


def load_reader(
    name: str, length: int | None, load: Callable[[str], Recognizer], *, remembers: bool = False
) -> Recognizer:
    """What a model's name stands for, ``"auto"`` included.

    :param load: loads a shipped name or a path
    :param remembers: of an :class:`EitherRecognizer`
    """
    if name != AUTO:
        return load(name)
    if length is None:
        return EitherRecognizer(load(ANY_LENGTH), load(FOUR), remembers=remembers)
    return load(FOUR if length == FOUR_LENGTH else ANY_LENGTH)


def length_chances(logits: NDArray[np.float32], manifest: Manifest) -> dict[int, float]:
    """How probable each length is, whatever the characters.

    :param logits: float32 of shape (heads, classes), before the temperature
    """
    if manifest.min_length == manifest.length:
        return {manifest.length: 1.0}
    return _length_chances(softmax(logits / np.float32(manifest.temperature)), manifest)


def _length_chances(probabilities: NDArray[np.float32], manifest: Manifest) -> dict[int, float]:
    blanks = probabilities[:, -1].tolist()
    chances = {
        n: math.prod([1 - chance for chance in blanks[:n]]) * math.prod(blanks[n:])
        for n in range(manifest.min_length, manifest.length + 1)
    }
    total = sum(chances.values()) or 1.0
    return {n: chance / total for n, chance in chances.items()}


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities along the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: NDArray[np.float32] = powers / powers.sum(axis=-1, keepdims=True)
    return result


def allowed_classes(manifest: Readable, charset: str | None) -> NDArray[np.bool_] | None:
    """Which characters of a model a charset allows, or ``None`` for all of them.

    :param charset: folded to the bundle's case first, so A-Z on a lower-case bundle is fine
    :return: bool of shape (characters,), not to be written to
    :raises ValueError: when the model cannot read a character of it
    """
    if charset is None:
        return None
    try:
        return _allowed(manifest.charset, charset.lower() if manifest.case == "lower" else charset)
    except KeyError as e:
        raise ValueError(
            f"expected a charset within {manifest.charset!r} of the model {manifest.name!r}, "
            f"got {charset!r}: it does not know {e.args[0]!r}"
        ) from None


@lru_cache(maxsize=256)
def _allowed(known: str, charset: str) -> NDArray[np.bool_] | None:
    wanted = set(charset)
    unknown = wanted - set(known)
    if unknown or not wanted:
        raise KeyError("".join(sorted(unknown)))
    mask = np.array([character in wanted for character in known])
    return None if mask.all() else mask


def check_length(manifest: Readable, length: int | None) -> None:
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
    known = manifest.charset
    if allowed is not None:
        scaled[:, : len(known)][:, ~allowed] = -np.inf
    probabilities = softmax(scaled)
    sure, count = 1.0, manifest.length
    if manifest.min_length < manifest.length:
        if length is None:
            lengths = _length_chances(probabilities, manifest)
            count, sure = max(lengths.items(), key=itemgetter(1))
        else:
            count = length
        # what is not blank is one of the characters
        probabilities = probabilities[:count, :-1]
        probabilities = probabilities / np.maximum(probabilities.sum(axis=1, keepdims=True), _TINY)
    best = probabilities.argmax(axis=1).tolist()
    chances = probabilities.max(axis=1).tolist()
    read = tuple([(known[i], chance) for i, chance in zip(best, chances, strict=True)])
    text = "".join([character for character, _ in read])
    return Recognition(text, sure * math.prod(chances), read)
