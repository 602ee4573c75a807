"""``weights.keras`` files that ask for too much: a good one goes in, a bad one comes out.

Where code could run, it would make the file whose path is given.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    Evil = Callable[[bytes, Path], bytes]

CONFIG, ARRAYS = "config.json", "model.weights.h5"
#: An array of the network, and its place in the file.
KERNEL = "layers/conv2d/vars/0"


def packed(content: bytes, how: int = zipfile.ZIP_STORED, **members: bytes | None) -> bytes:
    """The archive with members replaced, added, or (``None``) left out; ``__`` stands for a dot."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts: dict[str, bytes | None] = {name: archive.read(name) for name in archive.namelist()}
    parts |= {name.replace("__", "."): data for name, data in members.items()}
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", how) as archive:
        for name, data in parts.items():
            if data is not None:
                archive.writestr(name, data)
    return made.getvalue()


def described(content: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    """The archive with another description of the network."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        config = json.loads(archive.read(CONFIG))
    change(config)
    return packed(content, config__json=json.dumps(config).encode())


def stored(content: bytes, change: Callable[[h5py.File], Any]) -> bytes:
    """The archive with other arrays."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ARRAYS
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            path.write_bytes(archive.read(ARRAYS))
        with h5py.File(path, "r+") as file:
            change(file)
        return packed(content, model__weights__h5=path.read_bytes())


def layer(kind: str, module: str = "keras.layers", **config: Any) -> dict[str, Any]:
    return {
        "module": module,
        "class_name": kind,
        "config": {"name": "evil", "trainable": True, "dtype": "float32", **config},
        "registered_name": None,
        "build_config": {"input_shape": [None, 32, 90, 1]},
        "name": "evil",
        "inbound_nodes": [],
    }


class _Touch:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self._path}",)


def _lambda(path: Path) -> dict[str, Any]:
    code = f"lambda x: __import__('os').system('touch {path}')"
    function = {"class_name": "__lambda__", "config": {"code": code, "defaults": None}}
    return layer("Lambda", function=function)


def _replaced(file: h5py.File, **how: Any) -> None:
    del file[KERNEL]
    file.create_dataset(KERNEL, **how)


def _soft(file: h5py.File) -> None:
    del file[KERNEL]
    file[KERNEL] = h5py.SoftLink("/layers/conv2d_1/vars/0")


def _external(file: h5py.File) -> None:
    del file[KERNEL]
    file[KERNEL] = h5py.ExternalLink("/etc/passwd", "/")


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((3, 3, 1, 16), "float32")
    layout[...] = h5py.VirtualSource("/etc/passwd", "x", (3, 3, 1, 16))
    del file[KERNEL]
    file.create_virtual_dataset(KERNEL, layout)


def _circle(file: h5py.File) -> None:
    file["layers/again"] = file["layers"]


def _traversal(content: bytes, path: Path) -> bytes:
    return packed(content, **{f"../../{path.name}": b"evil", str(path): b"evil"})


def _appended(config: dict[str, Any], more: dict[str, Any]) -> None:
    config["config"]["layers"].append(more)


def _huge(config: dict[str, Any]) -> None:
    for each in config["config"]["layers"]:
        if each["class_name"] == "Dense":
            each["config"]["units"] = 1 << 40


def _bomb(content: bytes, _: Path) -> bytes:
    zeros = bytes(200 << 20)
    return packed(content, zipfile.ZIP_DEFLATED, model__weights__h5=zeros)


def _directory(_: bytes, __: Path) -> bytes:
    """A zip of nothing but 16 MB of entries."""
    entries = b"PK\1\2".ljust(46, b"\0") * (16 << 20 >> 6)
    return entries + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0, 0, len(entries), 0, 0)


def _links(file: h5py.File) -> None:
    for i in range(5000):
        file[f"layers/{i}"] = file["layers/conv2d"]


def _legacy(_: bytes, path: Path) -> bytes:
    """An HDF5 of the older kind, whose Lambda layers Keras ran whatever its safe mode said."""
    made = io.BytesIO()
    with h5py.File(made, "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": {}})
        file.attrs["keras_version"] = "2.4.0"
        file["evil"] = np.frombuffer(str(_lambda(path)).encode(), np.uint8)
    return made.getvalue()


WEIGHTS_FILES: dict[str, Evil] = {
    "a Lambda layer": lambda c, p: described(c, lambda d: _appended(d, _lambda(p))),
    "a class of another module": lambda c, p: described(
        c, lambda d: _appended(d, layer("run", "subprocess", args=["touch", str(p)]))
    ),
    "a Torch module, which is unpickled": lambda c, p: described(
        c, lambda d: _appended(d, layer("TorchModuleWrapper", module=repr(pickle.dumps(_Touch(p)))))
    ),
    "a vocabulary from a file": lambda c, _: described(
        c, lambda d: _appended(d, layer("StringLookup", vocabulary="/etc/passwd"))
    ),
    "layers of 2^40 units": lambda c, _: described(c, _huge),
    "a description nested 400,000 deep": lambda c, _: packed(
        c, config__json=b"[" * 400_000 + b"]" * 400_000
    ),
    "a description that is none": lambda c, _: packed(c, config__json=b'"evil"'),
    "paths elsewhere": _traversal,
    "assets": lambda c, _: packed(c, **{"assets/evil": b"evil"}),
    "arrays as npz": lambda c, p: packed(
        c, model__weights__h5=None, model__weights__npz=pickle.dumps(_Touch(p))
    ),
    "200 MB in 200 kB": _bomb,
    "a directory of 12 MB": _directory,
    "a description of 12 MB": lambda c, _: packed(c, config__json=b"[" + b"[]," * (4 << 20)),
    "arrays of 60 MB": lambda c, _: packed(c, model__weights__h5=bytes(60 << 20)),
    "a group of 5000 links": lambda c, _: stored(c, _links),
    "a pickle": lambda _, p: pickle.dumps(_Touch(p)),
    "an HDF5 of the older kind": _legacy,
    "arrays that are a pickle": lambda c, p: packed(c, model__weights__h5=pickle.dumps(_Touch(p))),
    "cut off": lambda c, _: c[: len(c) // 2],
    "an array of 4 TB": lambda c, _: stored(
        c, lambda f: _replaced(f, shape=(1 << 40,), dtype="f4", chunks=(1 << 20,))
    ),
    "an array of 4 GB, compressed": lambda c, _: stored(
        c, lambda f: _replaced(f, shape=(1 << 30,), dtype="f4", chunks=True, compression="gzip")
    ),
    "an array that was not written": lambda c, _: stored(
        c, lambda f: _replaced(f, shape=(3, 3, 1, 16), dtype="f4")
    ),
    "an array of another shape": lambda c, _: stored(
        c, lambda f: _replaced(f, data=np.zeros((9, 16), np.float32))
    ),
    "an array of texts": lambda c, _: stored(c, lambda f: _replaced(f, data=["evil"] * 144)),
    "an array in another file": lambda c, _: stored(
        c,
        lambda f: _replaced(f, shape=(3, 3, 1, 16), dtype="f4", external=[("/etc/passwd", 0, 576)]),
    ),
    "a link within": lambda c, _: stored(c, _soft),
    "a link to another file": lambda c, _: stored(c, _external),
    "an array made of other files": lambda c, _: stored(c, _virtual),
    "a group within itself": lambda c, _: stored(c, _circle),
}
