"""The file that a base's training goes on from: arrays, and a state as JSON, replaced in one go."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from scrapy_captcha.errors import BundleError, DatasetError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray


def write_archive(path: Path, state: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a file, its folder as well if there is none.

    Raises:
        DatasetError: when the disk refuses; then an older file is as it was, and nothing else left.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                np.savez(file, state=json.dumps(state), **arrays)  # type: ignore[arg-type]
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as e:
        megabytes = (sum(array.nbytes for array in arrays.values()) >> 20) + 1
        raise DatasetError(
            f"cannot write the checkpoint {path}: {e.strerror or e} (it takes {megabytes} MB)"
        ) from None


def read_archive(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The state and the arrays of a file that `write_archive` wrote.

    Raises:
        BundleError: when it is damaged or something else.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        return dict(json.loads(str(arrays.pop("state")))), arrays
    except Exception as e:  # noqa: BLE001 - NumPy raises many kinds for a file it cannot read
        raise damaged(path, e) from None


def damaged(path: Path, error: Exception) -> BundleError:
    """What is said of a file that cannot be gone on from."""
    return BundleError(
        f"{path} is no checkpoint of this version, or damaged ({type(error).__name__}: {error}): "
        "delete it to start anew"
    )
