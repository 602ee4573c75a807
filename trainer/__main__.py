"""``python -m trainer``: what it does is in `trainer.cli`, which takes a moment to import."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED = 130
#: What a shell says of a command whose reader has left.
CLOSED = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    try:
        from trainer.cli import run  # noqa: PLC0415 - Ctrl-C meanwhile is answered, too

        code = run(argv)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output has seen enough
        sys.stdout = None
        return CLOSED
    except KeyboardInterrupt as e:
        print(": ".join(["interrupted", *map(str, e.args)]), file=sys.stderr)
        # after one that fell into what exec() runs, Python ends by the signal, whatever is returned
        eval("0")  # noqa: S307 - makes it forget that
        return INTERRUPTED
    return code


if __name__ == "__main__":
    sys.exit(main())
