"""Keeps the chatter of native libraries off the terminal; Python's own messages still get there."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def quiet() -> Iterator[None]:
    """Send what native code writes to standard error nowhere, for a while.

    TensorFlow logs devices and instruction sets before any of its settings can stop it, and LiteRT
    has no setting at all.
    """
    try:
        kept = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def import_tensorflow() -> None:
    """Import TensorFlow and Keras without their greetings.

    Raises:
        ModuleNotFoundError: when one of them is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet():
        import keras  # noqa: F401, PLC0415
        import tensorflow  # noqa: F401, PLC0415
