"""The test's side of ``driver.py``: jobs out, results back."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: What nobody may ever see in a crawl's log.
TROUBLE = ("Traceback", "Unhandled", "never retrieved", "DeprecationWarning")
DRIVER = Path(__file__).with_name("driver.py")
JOB_SECONDS = 180.0
DEFAULTS: dict[str, Any] = {
    "ADDONS": {"scrapy_captcha.Addon": 500},
    "CONCURRENT_REQUESTS": 8,
    "CONCURRENT_REQUESTS_PER_DOMAIN": 8,
    "DOWNLOAD_DELAY": 0,
    "TELNETCONSOLE_ENABLED": False,
    "CLOSESPIDER_TIMEOUT": 120,
}


@dataclass(frozen=True)
class Crawl:
    """What a crawl came to, as the spider and its log saw it."""

    items: list[dict[str, Any]]
    failures: list[dict[str, Any]]
    signals: list[list[str]]
    stats: dict[str, Any]
    finish_reason: str | None
    log: list[str]
    error: str | None = None

    @property
    def names(self) -> list[str]:
        return sorted(item["name"] or "" for item in self.items)

    @property
    def reasons(self) -> list[str]:
        """Why pages ended at their errback, in alphabetical order."""
        return sorted(failure["reason"] or failure["text"] for failure in self.failures)

    @property
    def captcha(self) -> dict[str, Any]:
        """The ``captcha/...`` stats but seconds and those by site, without their prefix."""
        return {
            name.removeprefix("captcha/"): value
            for name, value in self.stats.items()
            if name.startswith("captcha/")
            and not name.startswith("captcha/site/")
            and name != "captcha/seconds"
        }

    @property
    def trouble(self) -> list[str]:
        return [line for line in self.log if any(word in line for word in TROUBLE)]

    def site_stats(self, site: str) -> dict[str, Any]:
        prefix = f"captcha/site/{site}/"
        return {k.removeprefix(prefix): v for k, v in self.stats.items() if k.startswith(prefix)}

    def signalled(self, name: str) -> Counter[str]:
        return Counter(signal[1] for signal in self.signals if signal[0] == name)


@dataclass(frozen=True)
class Job:
    """What to crawl.

    :param requests: URLs, or dicts of the arguments of a request
    :param trainer: the command to start in place of the real trainer
    """

    requests: list[Any]
    settings: dict[str, Any] = field(default_factory=dict)
    trainer: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        requests = [r if isinstance(r, dict) else {"url": r} for r in self.requests]
        settings = {**DEFAULTS, **self.settings}
        return json.dumps({"requests": requests, "settings": settings, "trainer": self.trainer})


class Driver:
    """A process that runs one crawl after the other."""

    def __init__(self, stderr: Path) -> None:
        self.stderr = stderr
        with stderr.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, DRIVER, "serve"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def open_files(self) -> list[str]:
        """Where the process's file descriptors lead; Linux only."""
        links = Path(f"/proc/{self._process.pid}/fd").iterdir()
        return [str(link.readlink()) for link in links if link.is_symlink()]

    def run(self, job: Job) -> Crawl:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        watchdog = threading.Timer(JOB_SECONDS, self._process.kill)
        watchdog.start()
        try:
            self._process.stdin.write(job.to_json() + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        finally:
            watchdog.cancel()
        if not line:
            raise RuntimeError(f"the crawl did not end: {self.stderr.read_text()[-5000:]}")
        return Crawl(**json.loads(line))

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


class Process:
    """One crawl in a process of its own, that can be watched and interrupted.

    :ivar log: what it has said on stderr, line by line
    """

    def __init__(self, job: Job) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, DRIVER, "once"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.popen.stdin is not None
        self.popen.stdin.write(job.to_json())
        self.popen.stdin.close()
        self.log: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stderr is not None
        with self.popen.stderr as stderr:
            for line in stderr:
                with self._news:
                    self.log.append(line)
                    self._news.notify_all()

    def says(self, text: str, seconds: float) -> bool:
        """Wait until a text appears in the log; whether it did."""
        with self._news:
            return self._news.wait_for(lambda: any(text in line for line in self.log), seconds)

    def result(self) -> Crawl:
        """Wait for the end of the crawl."""
        assert self.popen.stdout is not None
        watchdog = threading.Timer(JOB_SECONDS, self.popen.kill)
        watchdog.start()
        try:
            with self.popen.stdout as stdout:
                *_, last = ("", *stdout)
            self.popen.wait()
            self._reader.join()
        finally:
            watchdog.cancel()
        log = "".join(self.log)
        if not last:
            raise RuntimeError(f"no result: {log[-5000:]}")
        for word in TROUBLE:
            assert word not in log, log
        return Crawl(**json.loads(last))
