"""``weights.keras``: written as Keras writes it, read without letting Keras make anything of it.

A ``.keras`` file is a zip of a network's description, which may name any class, and of an HDF5
file, which may declare arrays of any size and point to other files. So the description is only
looked at: the network is built here, by the name of its architecture, and gets arrays that are as
large as its own weights.
"""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scrapy_captcha.bundle import WEIGHTS
from scrapy_captcha.errors import BundleError
from trainer.zips import NO_ZIP, open_zip

if TYPE_CHECKING:
    import keras

    from scrapy_captcha.bundle import Manifest

DESCRIPTION, ARRAYS = "config.json", "model.weights.h5"
MEMBERS = {DESCRIPTION, ARRAYS, "metadata.json"}
#: Of the zip: three members' names, and whatever remark; of a description, which has 50 kB; of what
#: HDF5 adds to the arrays, a tenth of this.
MAX_DIRECTORY_BYTES = 128 << 10
MAX_DESCRIPTION_BYTES = MAX_EXTRA_BYTES = 1 << 20
#: What makes a layer large, in its description.
SIZES = ("units", "filters", "kernel_size", "pool_size", "output_shape", "target_shape")
#: Groups and arrays of an HDF5 file; a network has two or three hundred.
MAX_ENTRIES = 1000


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


def load_weights(content: bytes, manifest: Manifest) -> keras.Model:
    """The network that a manifest describes, with the weights of a ``weights.keras``.

    Args:
        content: the file, whose size and sha256 `Bundle.read` has checked.
        manifest: names the architecture, which must be one of this version's.

    Raises:
        BundleError: when it holds anything else than that network's layers and weights.
    """
    from trainer import networks  # noqa: PLC0415

    heads, classes = manifest.length, manifest.classes
    least = 4 * networks.HEAD_FEATURES.get(manifest.architecture, 0) * heads * classes
    if least > len(content):  # before so much memory is taken
        raise BundleError(
            f"cannot load {WEIGHTS}: {manifest.architecture} with {heads} heads of {classes} "
            f"classes has more than {least} bytes of weights, the file {len(content)}"
        )
    with networks.computing_in("float32"):
        model = networks.build(manifest.architecture, heads=heads, classes=classes)
    try:
        description, arrays = _members(content, model)
        _check_layers(description, model)
        _check_arrays(arrays, model)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / ARRAYS
            path.write_bytes(arrays)
            model.load_weights(path)
    except BundleError as e:
        raise BundleError(f"cannot load {WEIGHTS}: {e}") from None
    except Exception as e:  # noqa: BLE001 - Keras and h5py raise many kinds for odd files
        raise BundleError(
            f"cannot load {WEIGHTS}, whose network is not {manifest.architecture} of this version: "
            f"{type(e).__name__}: {str(e)[:300]}"
        ) from None
    return model


def _members(content: bytes, model: keras.Model) -> tuple[bytes, bytes]:
    """The description and the arrays of a ``.keras`` file, which Keras stores uncompressed."""
    try:
        with open_zip(io.BytesIO(content), MAX_DIRECTORY_BYTES) as archive:
            _check_members(archive.infolist(), 4 * model.count_params() + MAX_EXTRA_BYTES)
            return archive.read(DESCRIPTION), archive.read(ARRAYS)
    except BundleError:
        raise
    except NO_ZIP as e:
        raise BundleError(
            f"it is not a .keras file ({e}); others (.h5, pickles) are never read"
        ) from None


def _check_members(members: list[zipfile.ZipInfo], most: int) -> None:
    found = {info.filename: info for info in members}
    if set(found) != MEMBERS or len(members) != len(MEMBERS):
        names = ", ".join(sorted(found))
        raise BundleError(f"expected {', '.join(sorted(MEMBERS))} in it, got {names[:300]}")
    for info in members:
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise BundleError(f"its {info.filename} is compressed")
        limit = most if info.filename == ARRAYS else MAX_DESCRIPTION_BYTES
        if info.file_size > limit:
            raise BundleError(
                f"its {info.filename} has {info.file_size} bytes, expected at most {limit}"
            )


def _check_layers(description: bytes, model: keras.Model) -> None:
    """The layers that the file describes must be those of the network, in kind and size."""
    expected = Counter(map(_sizes, json.loads(model.to_json())["config"]["layers"]))
    try:
        found = Counter(map(_sizes, json.loads(description)["config"]["layers"]))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as e:
        raise BundleError(f"its {DESCRIPTION} makes no sense: {type(e).__name__}: {e}") from None
    if found != expected:
        others = ", ".join(found - expected) or "too few layers"
        raise BundleError(f"{model.name} has other layers than {others[:300]}")


def _sizes(layer: dict[str, Any]) -> str:
    """A layer's class, and what makes it large."""
    config = layer["config"]
    sizes = [f"{key}={config[key]}" for key in SIZES if key in config]
    return f"{layer['class_name']}({', '.join(sizes)})"


def _check_arrays(arrays: bytes, model: keras.Model) -> None:
    """The arrays of an HDF5 file must lie in it as they are, and have the network's shapes."""
    import h5py  # noqa: PLC0415

    shapes: list[tuple[int, ...]] = []
    with h5py.File(io.BytesIO(arrays), "r") as file:
        groups, entries = [file], 0
        while groups:
            group = groups.pop()
            entries += len(group)
            if entries > MAX_ENTRIES:  # before h5py lists their names
                raise BundleError(f"its {ARRAYS} has more than {MAX_ENTRIES} entries")
            for name in group:
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise BundleError(f"its {ARRAYS} points elsewhere")
                entry = group[name]
                if isinstance(entry, h5py.Group):
                    groups.append(entry)
                else:
                    shapes.append(_plain(entry))
    expected = [tuple(weight.shape) for weight in model.weights]
    if sorted(shapes) != sorted(expected):
        other = next((shape for shape in shapes if shape not in expected), len(shapes))
        raise BundleError(f"its weights are not those of {model.name} in this version ({other})")


def _plain(entry: Any) -> tuple[int, ...]:
    """The shape of an array of float32 that is stored whole, in the file itself."""
    where = entry.id.get_create_plist()
    stored = not entry.is_virtual and not entry.external and where.get_nfilters() == 0
    if not stored or entry.dtype != "float32" or entry.id.get_storage_size() != entry.nbytes:
        raise BundleError(f"its {ARRAYS} has something else than stored arrays of float32")
    return tuple(int(side) for side in entry.shape)
