"""The trainer's thread answers every request, whatever becomes of the process."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import pytest

from scrapy_captcha import retraining
from scrapy_captcha.retraining import Answer, Request, Trainer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REQUEST = Request("dataset", "base", "out")
ECHO = """
import sys
for line in sys.stdin:
    sys.stdout.buffer.write(b'\\xff not UTF-8\\n{"event": "trained", "version": "v"}\\n')
    sys.stdout.flush()
"""


def use(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retraining, "COMMAND", (sys.executable, "-c", code))


@pytest.fixture
def trainer(tmp_path: Path) -> Iterator[Trainer]:
    trainer = Trainer(tmp_path)
    yield trainer
    trainer.close()


def ask(trainer: Trainer) -> Answer:
    trainer.ask("shop.example", REQUEST)
    deadline = time.monotonic() + 30
    while (answer := trainer.poll()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not trainer.busy
    return answer


def test_what_is_not_text_is_skipped(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    use(ECHO, monkeypatch)
    assert ask(trainer).version == "v"


def test_a_training_without_an_end_is_ended_and_the_next_one_begins_anew(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    use("import time; time.sleep(3600)", monkeypatch)
    monkeypatch.setattr(retraining, "LONGEST", 0.5)
    assert "no end after 0.5 s" in ask(trainer).error
    use(ECHO, monkeypatch)
    monkeypatch.setattr(retraining, "LONGEST", 30)
    assert ask(trainer).version == "v"


def test_an_unexpected_error_is_an_answer(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Answer:
        raise ValueError("I/O operation on closed file")

    use(ECHO, monkeypatch)
    with monkeypatch.context() as patched:
        patched.setattr(trainer, "_talk", fail)
        assert "closed file" in ask(trainer).error
    assert ask(trainer).version == "v"
