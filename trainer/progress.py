"""What a terminal, or a log file, is told while a network learns."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

    from trainer.loop import Epoch


class Lines:
    """One line an epoch."""

    def say(self, text: str) -> None:
        """Print a line."""
        print(text, flush=True)

    def step(self, progress: float) -> None:
        """Nothing: a log wants no moving bar."""

    def epoch(self, epoch: Epoch) -> None:
        """Print what came of an epoch."""
        line = f"epoch {epoch.number:3}  step {epoch.step:5}  loss {epoch.loss:.4f}"
        if epoch.exact_match is not None:
            line += f"  holdout exact match {epoch.exact_match:.4f}{' *' if epoch.best else '  '}"
        self.say(f"{line}  {epoch.seconds:.0f} s")

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was."""


class Bar(Lines):
    """The same above a progress bar."""

    def __init__(self) -> None:
        from rich.progress import Progress  # noqa: PLC0415 - comes with Keras

        self._progress: Any = Progress(transient=True)
        self._task = self._progress.add_task("training", total=1.0)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(text, markup=False, highlight=False)

    def step(self, progress: float) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=progress)

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()


def for_output() -> Lines:
    """A bar on a terminal, lines anywhere else."""
    return Bar() if sys.stdout.isatty() else Lines()
