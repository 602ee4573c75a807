"""A model on disk: manifest, weights, and golden images that prove the two belong together.

A bundle is a folder of versions with a file ``CURRENT`` that names one of them, or a plain
version folder. A version holds ``bundle.json``, ``model.tflite`` and ``weights.keras``; each
file's size and sha256 stand in the manifest and are checked before a byte of it is interpreted.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scrapy_captcha.durable import open_file
from scrapy_captcha.errors import BundleError
from scrapy_captcha.image import HEIGHT, PREPROCESSING, WIDTH

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = 1
MANIFEST = "bundle.json"
CURRENT = "CURRENT"
MODEL = "model.tflite"
WEIGHTS = "weights.keras"
MAX_MANIFEST_BYTES = 1 << 20
MAX_CURRENT_BYTES = 1 << 10
MAX_FILE_BYTES = 64 << 20
#: Room for the largest weights that fit in ``weights.keras``, stored in half as many bytes.
MAX_MODEL_BYTES = 32 << 20
MAX_HEADS = 32
MAX_CHARSET = 4096
#: Each is read when the model is loaded, which takes a quarter of a second for the worst image.
MAX_GOLDEN = 16
TEMPERATURES = (0.01, 100.0)
CASES = ("lower", "as-is")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Golden:
    """An image and what the model said of it when the bundle was written.

    :param image: the original bytes
    :param text: the text that was read
    :param probabilities: one row a head, one column a class, before any mask or temperature
    """

    image: bytes
    text: str
    probabilities: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class FileEntry:
    """Size in bytes and sha256 (hex) of one file of a version."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """What a model reads and how it was made.

    :param charset: the characters in the order of the classes
    :param length: number of heads
    :param min_length: shortest text; below ``length``, one more class, the last, means "no
        character here", and texts are left-aligned
    :param temperature: what the logits are divided by before they are probabilities
    """

    name: str
    charset: str
    length: int
    min_length: int
    architecture: str
    preprocessing: str = PREPROCESSING
    input_size: tuple[int, int] = (HEIGHT, WIDTH)
    case: str = "lower"
    temperature: float = 1.0
    accuracy: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    files: dict[str, FileEntry] = field(default_factory=dict)
    golden: tuple[Golden, ...] = ()

    @property
    def classes(self) -> int:
        """Number of classes of a head, the blank included."""
        return len(self.charset) + (self.min_length < self.length)

    def to_json(self) -> str:
        """The text of ``bundle.json``."""
        data = {"format": FORMAT, **asdict(self)}
        data["golden"] = [
            {**golden, "image": base64.b64encode(golden["image"]).decode()}
            for golden in data["golden"]
        ]
        return json.dumps(data, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Parse and validate the text of a ``bundle.json``.

        :raises BundleError: naming what was expected and what came
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as e:
            raise BundleError(f"{MANIFEST} is not JSON: {e}") from None
        if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
            raise BundleError(f"expected a {MANIFEST} of format {FORMAT}")
        try:
            data["files"] = {name: FileEntry(**entry) for name, entry in data["files"].items()}
            data["input_size"] = tuple(data["input_size"])
            data["golden"] = tuple(_golden(entry) for entry in data["golden"])
            manifest = cls(**data)
            manifest._check()
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as e:
            if isinstance(e, BundleError):
                raise
            raise BundleError(f"{MANIFEST} is malformed: {type(e).__name__}: {e}") from None
        return manifest

    def _check(self) -> None:
        low, high = TEMPERATURES
        checks = {
            "a name that is a file's name": isinstance(self.name, str)
            and self.name == safe_name(self.name),
            f"a charset of 2 to {MAX_CHARSET} different printable characters": isinstance(
                self.charset, str
            )
            and 2 <= len(self.charset) <= MAX_CHARSET
            and self.charset.isprintable()
            and len(set(self.charset)) == len(self.charset),
            f"1 <= min_length <= length <= {MAX_HEADS}": type(self.length) is int
            and type(self.min_length) is int
            and 1 <= self.min_length <= self.length <= MAX_HEADS,
            f"preprocessing {PREPROCESSING!r} of {(HEIGHT, WIDTH)} pixels; retrain the model": (
                self.preprocessing == PREPROCESSING and self.input_size == (HEIGHT, WIDTH)
            ),
            f"case to be one of {CASES}": self.case in CASES,
            f"a temperature of {low} to {high}": isinstance(self.temperature, int | float)
            and low <= self.temperature <= high,
            "an architecture": isinstance(self.architecture, str) and bool(self.architecture),
            f"a file {MODEL}": MODEL in self.files,
            "file names without folders": all(NAME.fullmatch(name) for name in self.files),
            f"files of at most {MAX_FILE_BYTES} bytes, {MODEL} of {MAX_MODEL_BYTES}": all(
                type(entry.bytes) is int and 0 <= entry.bytes <= _most(name)
                for name, entry in self.files.items()
            ),
            "a sha256 of 64 hexadecimal digits for each file": all(
                isinstance(entry.sha256, str) and _SHA256.fullmatch(entry.sha256)
                for entry in self.files.values()
            ),
            "objects for accuracy, calibration and provenance": all(
                isinstance(data, dict)
                for data in (self.accuracy, self.calibration, self.provenance)
            ),
            f"at most {MAX_GOLDEN} golden images": len(self.golden) <= MAX_GOLDEN,
            "golden probabilities of one row a head and one column a class": all(
                len(golden.probabilities) == self.length
                and all(len(row) == self.classes for row in golden.probabilities)
                for golden in self.golden
            ),
        }
        wrong = [expected for expected, holds in checks.items() if not holds]
        if wrong:
            raise BundleError(f"bundle {str(self.name)[:100]!r}: expected {'; '.join(wrong)}")


def _most(name: str) -> int:
    return MAX_MODEL_BYTES if name == MODEL else MAX_FILE_BYTES


def safe_name(text: str) -> str:
    """A name for a model that is also the name of a file, wherever it is written to."""
    kept = "".join("_" if c in "/\\:" or not c.isprintable() else c for c in text[:100])
    return kept or "model"


def _golden(entry: dict[str, Any]) -> Golden:
    try:
        image = base64.b64decode(entry["image"], validate=True)
    except binascii.Error as e:
        raise BundleError(f"{MANIFEST}: a golden image is not base64: {e}") from None
    rows = tuple(tuple(float(p) for p in row) for row in entry["probabilities"])
    return Golden(image, str(entry["text"]), rows)


@dataclass(frozen=True)
class Bundle:
    """One version of a model, its manifest checked, its files not yet read."""

    folder: Path
    manifest: Manifest

    @cached_property
    def hash(self) -> str:
        """What identifies the model in the dataset: the first 16 digits of its sha256."""
        return self.manifest.files[MODEL].sha256[:16]

    def read(self, name: str) -> bytes:
        """One file of the version, its size and sha256 checked.

        :raises BundleError: when it is missing or not the file that the manifest describes
        """
        entry = self.manifest.files.get(name)
        if entry is None:
            raise BundleError(f"{self.folder} lists no file {name}")
        path = self.folder / name
        data = _content(path, _most(name), entry.bytes)
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise BundleError(f"{path} does not have the sha256 that {MANIFEST} states")
        return data


def _content(path: Path, most: int, exactly: int | None = None) -> bytes:
    """What is in a file, its size checked before it is read; links are followed, to files alone.

    :raises BundleError: when it is no file, or has another size
    """
    try:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            if exactly is not None and size != exactly:
                raise BundleError(f"expected {exactly} bytes in {path}, got {size}")
            if size > most:
                raise BundleError(f"{path} is larger than {most} bytes")
            return file.read(size)
    except OSError as e:
        raise BundleError(f"cannot read {path}: {e}") from None


def shipped_folder() -> Path:
    """Where the models that come with the package are: in the wheel, or in the repository."""
    here = Path(__file__).resolve().parent
    inside = here / "models"
    return inside if inside.is_dir() else here.parent / "models"


def shipped_names() -> list[str]:
    """Names that :func:`resolve` knows without a path."""
    folder = shipped_folder()
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if is_bundle(entry))


def is_bundle(folder: Path) -> bool:
    """Whether a folder holds a model: a bundle with a current version, or one version.

    What a first write that was killed left behind is none.
    """
    return (folder / CURRENT).is_file() or (folder / MANIFEST).is_file()


def resolve(name_or_path: str | os.PathLike[str]) -> Path:
    """The version folder behind a shipped name ("alnum4") or the path of a bundle.

    A bare name that is also a folder here means the shipped model; ``./alnum4`` is the folder.

    :raises BundleError: when there is no such bundle; it lists the shipped names
    """
    text = os.fspath(name_or_path)
    shipped = shipped_names()
    try:
        folder = shipped_folder() / text if text in shipped else Path(text).expanduser()
        there = folder.is_dir()
    except (OSError, RuntimeError, ValueError) as e:  # too long, nobody's home, a zero byte
        raise BundleError(f"no model {text[:200]!r}: {e}") from None
    if not there:
        what = "that is a file; " if folder.is_file() else ""
        raise BundleError(
            f"no model {text!r}: {what}expected one of {', '.join(shipped) or 'no shipped names'}, "
            "or the folder of a bundle (other files are never loaded, and nothing is downloaded)"
        )
    if (folder / MANIFEST).is_file():
        return folder
    if not (folder / CURRENT).is_file():
        raise BundleError(f"{folder} holds neither {MANIFEST} nor {CURRENT}")
    version = _content(folder / CURRENT, MAX_CURRENT_BYTES).decode(errors="replace").strip()
    if not NAME.fullmatch(version):
        raise BundleError(f"{folder / CURRENT} names {version!r}, which is not a version folder")
    return folder / version


def open_bundle(name_or_path: str | os.PathLike[str]) -> Bundle:
    """Resolve a bundle and read its manifest.

    :raises BundleError: when it is missing or malformed
    """
    folder = resolve(name_or_path)
    path = folder / MANIFEST
    try:
        text = _content(path, MAX_MANIFEST_BYTES).decode()
    except UnicodeDecodeError as e:
        raise BundleError(f"cannot read {path}: {e}") from None
    return Bundle(folder, Manifest.from_json(text))


def described(manifest: Manifest, files: Mapping[str, bytes]) -> Manifest:
    """A manifest with the sizes and hashes of its files, checked to be one that can be opened.

    :raises BundleError: naming what was expected
    """
    entries = {
        name: FileEntry(hashlib.sha256(data).hexdigest(), len(data)) for name, data in files.items()
    }
    manifest = replace(manifest, files=entries)
    manifest._check()
    try:
        size = len(manifest.to_json().encode())
    except UnicodeEncodeError as e:
        raise BundleError(f"bundle {manifest.name!r} cannot be described in UTF-8: {e}") from None
    if size > MAX_MANIFEST_BYTES:
        raise BundleError(
            f"bundle {manifest.name!r}: expected a {MANIFEST} of at most {MAX_MANIFEST_BYTES} "
            f"bytes, got {size}"
        )
    return manifest
