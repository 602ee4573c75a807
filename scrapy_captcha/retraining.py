"""The trainer: one process beside a crawl, asked in JSON, a line a request and a line an answer.

A thread starts it, writes to it and waits for what it says, so the crawl's own thread never waits:
it asks, and polls for what has come of it. The process dies with the crawl, because its standard
input ends then, and may die by itself: the next request starts another one.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from scrapy_captcha.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger(__name__)

#: A group of its own, because Ctrl-C in the terminal is for the crawl; low priority.
_ON_WINDOWS = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0) | getattr(
    subprocess, "BELOW_NORMAL_PRIORITY_CLASS", 0
)
#: Seconds that the process has to end by itself when the spider closes.
PATIENCE = 2.0
#: Seconds after which a training that has not ended never will; one takes seconds, or minutes.
LONGEST = 900.0
LOG = "trainer.log"
#: The process; ``-P`` keeps the folder that the crawl was started in out of its imports.
COMMAND: Sequence[str] = (sys.executable, "-P", "-m", "trainer", "follow")


@dataclass(frozen=True)
class Request:
    """What to train.

    :param dataset: the site's folder
    :param base: the bundle that is reading now
    :param out: where the new version goes, without becoming the current one
    :param restart: start from ``base`` again instead of from what is in the process's memory
    """

    dataset: str
    base: str
    out: str
    seed: int = 0
    restart: bool = False

    def to_json(self) -> str:
        """One line."""
        return json.dumps(vars(self)) + "\n"


@dataclass(frozen=True)
class Answer:
    """What came of a request.

    :param key: of the site
    :param error: why nothing came of it
    :param version: the name of the new version, if one was written
    :param said: the process's own words
    """

    key: str
    error: str = ""
    version: str | None = None
    said: dict[str, Any] | None = None

    @property
    def labels(self) -> int:
        """How many images the training learnt from; 0 when it does not say."""
        labels = (self.said or {}).get("labels")
        return labels if type(labels) is int and labels > 0 else 0


def check() -> None:
    """Make sure that this Python can train.

    :raises ConfigError: when TensorFlow or the trainer is missing; it says what to do
    """
    missing = [name for name in ("tensorflow", "keras") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"CAPTCHA_RETRAIN_AFTER: {' and '.join(missing)} not installed here; "
            "pip install 'scrapy-captcha[train]', or drop CAPTCHA_RETRAIN_AFTER"
        )
    spec, ours = _trainer(), Path(__file__).resolve().parents[1] / "trainer" / "__init__.py"
    if spec is None:
        raise ConfigError(
            "CAPTCHA_RETRAIN_AFTER: the package 'trainer' that belongs to scrapy-captcha is "
            "missing; install scrapy-captcha again, or drop CAPTCHA_RETRAIN_AFTER"
        )
    if spec != ours:
        raise ConfigError(
            f"CAPTCHA_RETRAIN_AFTER: {spec} hides the package 'trainer' that belongs to "
            "scrapy-captcha; rename it, or take its folder out of PYTHONPATH"
        )


def _trainer() -> Path | None:
    """Where the process finds its package: as we do, but for the folders that ``-P`` leaves out."""
    entries = list(sys.path)
    left_out = []
    for place in (Path.cwd(), Path(sys.argv[0]).resolve().parent):
        entry = next((entry for entry in entries if Path(entry).resolve() == place), None)
        if entry is not None:
            entries.remove(entry)  # once: it may be an installed package's as well
            left_out.append(entry)
    for entry in [*entries, *filter(None, left_out)]:
        spec = PathFinder.find_spec("trainer", [entry])
        if spec is not None and spec.origin is not None:
            return Path(spec.origin).resolve()
    return None


class Trainer:
    """The trainer of one crawl; nothing runs before :meth:`start`.

    :param folder: of the dataset; the process's own log goes there
    """

    def __init__(self, folder: Path) -> None:
        self.log = folder / LOG
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._asked: SimpleQueue[tuple[str, Request] | None] = SimpleQueue()
        self._answers: SimpleQueue[Answer] = SimpleQueue()
        self._base = ""
        self.busy = False

    def start(self, base: str) -> None:
        """Have the process come up, so that it is there when it is wanted.

        :param base: the bundle that it is likely to begin with
        """
        if self._thread is None:
            self._base = base
            self._thread = threading.Thread(target=self._serve, name="trainer", daemon=True)
            self._thread.start()

    def ask(self, key: str, request: Request) -> None:
        """Train, once; not to be called while it is busy."""
        self.busy = True
        self.start(request.base)
        self._asked.put((key, request))

    def poll(self) -> Answer | None:
        """What has come of the last request, once."""
        if self._answers.empty():
            return None
        self.busy = False
        return self._answers.get()

    def close(self) -> None:
        """End the process, whatever it is doing; this blocks for seconds at most."""
        with self._lock:
            self._closed = True
            process = self._process
        self._asked.put(None)
        if process is not None:
            _end(process)
        if self._thread is not None:
            self._thread.join(PATIENCE)
        if process is not None and process.stdout is not None:
            process.stdout.close()

    # -- in the thread

    def _serve(self) -> None:
        try:
            self._running()
        except Exception as e:  # noqa: BLE001 - the thread has to be there for requests
            logger.error("Cannot start the trainer: %(e)s", {"e": e})
        while (asked := self._asked.get()) is not None:
            key, request = asked
            self._base = request.base
            try:
                self._answers.put(self._train(key, request))
            except Exception as e:  # noqa: BLE001 - whatever it is, it is the answer
                self._give_up()
                self._answers.put(Answer(key, f"cannot talk to the trainer: {e}"))

    def _train(self, key: str, request: Request) -> Answer:
        process = self._running()
        if process is None:
            return Answer(key, "the spider is closing")
        overdue = threading.Event()

        def give_up() -> None:
            overdue.set()
            process.kill()

        watchdog = threading.Timer(LONGEST, give_up)
        watchdog.daemon = True
        watchdog.start()
        try:
            answer = self._talk(process, key, request)
        finally:
            watchdog.cancel()
        if overdue.is_set():
            return Answer(key, f"no end after {LONGEST:g} s; {self.log} may say why")
        return answer

    def _talk(self, process: subprocess.Popen[str], key: str, request: Request) -> Answer:
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(OSError):  # then it says no more, either
            process.stdin.write(request.to_json())
            process.stdin.flush()
        for line in process.stdout:
            try:
                said = json.loads(line)
                event = said["event"]
            except (ValueError, TypeError, KeyError):
                continue  # somebody printed something
            if event == "trained":
                return Answer(key, version=said.get("version"), said=said)
            if event == "failed":
                return Answer(key, str(said.get("error")))
        code = _end(process)
        return Answer(key, f"the trainer ended with code {code}; {self.log} may say why")

    def _running(self) -> subprocess.Popen[str] | None:
        """The process, started if there is none; none when it is not to be started any more."""
        with self._lock:
            if self._closed:
                return None
            if self._process is not None and self._process.poll() is None:
                return self._process
            if self._process is not None and self._process.stdout is not None:
                self._process.stdout.close()
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(  # noqa: S603 - our own words
                    [*COMMAND, "--base", self._base],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    encoding="utf-8",
                    errors="replace",
                    # Ctrl-C in the terminal is for the crawl, which ends this one
                    start_new_session=True,
                    creationflags=_ON_WINDOWS,
                )
            return self._process

    def _give_up(self) -> None:
        """End the process, whose next answer might be that to the last request."""
        with self._lock:
            process = self._process
        if process is not None:
            with suppress(Exception):
                _end(process)


def _end(process: subprocess.Popen[str]) -> int:
    """Have a process end, gently at first; its exit code."""
    assert process.stdin is not None
    with suppress(OSError):
        process.stdin.close()  # which it takes for a wish
    try:
        return process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
