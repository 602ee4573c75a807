"""What a killed fit needs to go on where it was, kept in the user's cache folder meanwhile."""

from __future__ import annotations

import hashlib
import json
import os
import time
import zipfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.finish import versions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from scrapy_captcha.bundle import Bundle
    from trainer.corpus import Corpus, Task
    from trainer.loop import Training
    from trainer.plan import Options

#: Seconds between two checkpoints, at least.
EVERY = 15.0
#: Checkpoints that nobody came back for are deleted after so many seconds.
FORGOTTEN = 7 * 86400.0


def cache_folder() -> Path:
    """Where checkpoints are kept."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "scrapy-captcha" / "fits"


def identity(
    options: Options,
    base: Bundle | None,
    loaded: Corpus,
    task: Task,
    rejected: Iterable[str] = (),
) -> dict[str, Any]:
    """What two runs must have in common for the second to go on where the first was stopped.

    Args:
        options: what was asked for.
        base: what is started from.
        loaded: the labelled images.
        task: what is read.
        rejected: the sha256 of the rejected images that are learnt from.
    """
    images = hashlib.sha256()
    for sample in loaded.samples:
        images.update(f"{sample.digest} {sample.label}\n".encode())
    images.update("\n".join(rejected).encode())
    return {
        "options": {**asdict(options), "out": str(options.out.resolve()), "report": None},
        "base": base.hash if base else None,
        "images": images.hexdigest(),
        "task": asdict(task),
        "versions": versions(),
    }


class Checkpoint:
    """The state of one fit, found again by whoever starts the very same fit.

    Args:
        identity: all that makes the fit what it is; any JSON.
        folder: where it is kept.
    """

    def __init__(self, identity: Mapping[str, Any], folder: Path) -> None:
        text = json.dumps(identity, sort_keys=True)
        self.path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz"
        self._saved = time.monotonic()

    def restore(self, training: Training) -> bool:
        """Bring a fresh training to where the killed one was, if there was one."""
        try:
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            training.restore(json.loads(str(arrays.pop("progress"))), arrays)
        except FileNotFoundError:
            return False
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            self.remove()  # written by another version, or damaged
            return False
        return True

    def save(self, training: Training) -> None:
        """Keep the state, at most every 15 seconds until the end of the training.

        A folder that refuses is nobody's problem.
        """
        if time.monotonic() - self._saved < EVERY and not training.finished:
            return
        self._saved = time.monotonic()
        progress, arrays = training.state()
        unfinished = self.path.with_suffix(f".{os.getpid()}.unfinished")
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._forget_old()
            try:
                with unfinished.open("wb") as f:
                    np.savez(f, progress=json.dumps(progress), **arrays)  # type: ignore[arg-type]
                unfinished.replace(self.path)
            finally:
                unfinished.unlink(missing_ok=True)

    def remove(self) -> None:
        """Forget it."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _forget_old(self) -> None:
        for path in self.path.parent.iterdir():
            if time.time() - path.stat().st_mtime > FORGOTTEN:
                path.unlink(missing_ok=True)
