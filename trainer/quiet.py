"""Keeps native libraries' chatter off the terminal, and Ctrl-C off what must not be cut short."""

from __future__ import annotations

import os
import signal
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


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore Ctrl-C for a moment, here and in processes that are started meanwhile."""
    try:
        kept = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:  # not in the main thread, where no Ctrl-C arrives either
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, kept)


def import_tensorflow() -> None:
    """Import TensorFlow and Keras without their greetings.

    Raises:
        ModuleNotFoundError: when one of them is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet():
        import keras  # noqa: F401, PLC0415
        import tensorflow  # noqa: F401, PLC0415
