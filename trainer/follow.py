"""The process that trains beside a crawl: one request a line in, one answer a line out.

It ends when its input does, so a crawl that is killed leaves none behind, and nothing of what it
was doing: a version is on the disk as a whole, or not at all. Standard output carries answers
alone; whatever else is printed goes to standard error.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import queue
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from scrapy_captcha.errors import CaptchaError
from trainer.quiet import import_tensorflow

logger = logging.getLogger(__name__)

#: How much a crawl comes before it.
NICENESS = 10
#: What is being written is finished within so many seconds after the input has ended.
LAST_SECONDS = 30.0


def follow(base: str | None, rejected: float) -> int:
    """Serve requests until there are no more.

    Args:
        base: what the first round is likely to start from; prepared while there is time.
        rejected: weight of the loss of rejected guesses.

    Returns:
        The exit code.

    Raises:
        ModuleNotFoundError: when TensorFlow is not installed.
    """
    answers = take_output()
    if not sys.stdin.isatty():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a crawl's Ctrl-C is the crawl's
    give_way()
    logging.getLogger("trainer").setLevel(logging.INFO)
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()
    whole = threading.Lock()
    threading.Thread(target=listen, args=(requests, whole), daemon=True).start()
    import_tensorflow()
    from trainer.rounds import Request, Rounds  # noqa: PLC0415

    gc.freeze()  # what was imported stays: later collections need not look at it
    rounds = Rounds(rejected, whole)
    answer(answers, {"event": "ready"})
    if base is not None:
        try:
            rounds.warm_up(base)
        except (CaptchaError, OSError) as e:  # whoever asks for it will be told
            logger.warning("%s", e)
    while True:
        gc.collect()  # a conversion leaves a graph of some 30 MB, in a circle
        line = requests.get()
        try:
            answer(answers, rounds.train(Request.parse(line)))
        except BrokenPipeError:
            return 0
        except (CaptchaError, OSError) as e:
            failed = str(e)
        except Exception as e:
            logger.exception("A round failed")
            rounds.forget()
            failed = f"{type(e).__name__}: {e}"
        else:
            continue
        answer(answers, {"event": "failed", "error": " ".join(failed.split())})


def give_way() -> None:
    """Have whatever else wants to run come first, where the system has a way to."""
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    with suppress(OSError, ValueError, AttributeError):
        # Linux weighs sessions first, and nice values only within each of them
        group = Path("/proc/self/autogroup")
        already = int(group.read_text(encoding="ascii").split()[-1])
        if os.getsid(0) == os.getpid() and already < NICENESS:
            group.write_text(f"{NICENESS}", encoding="ascii")


def take_output() -> IO[str]:
    """Standard output for answers alone; from now on, what others print goes to standard error."""
    sys.stdout.flush()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return answers


def answer(answers: IO[str], what: dict[str, Any]) -> None:
    """Write one line."""
    answers.write(json.dumps(what) + "\n")
    answers.flush()


def listen(requests: queue.SimpleQueue[str], whole: threading.Lock) -> None:
    """Take requests in; at their end, end the process, whatever it is doing but writing."""
    for line in sys.stdin:
        if line.strip():
            requests.put(line)
    whole.acquire(timeout=LAST_SECONDS)
    os._exit(0)
