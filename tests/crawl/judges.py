"""A site that knows which model an answer comes from, and accepts a share of each one's."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sites import Gate, png

from scrapy_captcha.bundle import MODEL, WEIGHTS, open_bundle
from scrapy_captcha.versions import write_version

if TYPE_CHECKING:
    from collections.abc import Callable

    from sites import Session

    from scrapy_captcha.recognizer import Recognizer

FAKE = Path(__file__).with_name("fake_trainer.py")


def reader_with_another_alphabet(folder: Path, turned: int) -> Path:
    """The shipped model for four characters, but it takes each for another, in its own way."""
    given = open_bundle("alnum4")
    charset = given.manifest.charset
    manifest = replace(given.manifest, charset=charset[turned:] + charset[:turned])
    files = {name: given.read(name) for name in (MODEL, WEIGHTS)}
    # another hash, so that the attempts tell them apart; readers stop before these bytes
    files[MODEL] += bytes(turned)
    write_version(folder, manifest, files)
    return folder


class Judge(Gate):
    """Asks before every page; knows the models by what they read.

    :param shares: by the name of a model, the share of its answers that is accepted; a function of
        how many it has given
    :param readers: the models by name
    :ivar canaries: answers that no model gives
    """

    def __init__(
        self,
        readers: dict[str, Recognizer],
        shares: dict[str, float | Callable[[int], float]],
        *,
        wrong: bool = False,
    ) -> None:
        super().__init__(every=1)
        self.readers = readers
        self.shares = shares
        self.wrong = wrong
        self.answered: list[tuple[str, bool]] = []
        self.canaries = 0
        self._owed = dict.fromkeys(readers, 0.0)
        self._texts: dict[bytes, dict[str, str]] = {}

    def new_image(self, session: Session) -> bytes:
        self._images += 1
        image = png(self._images)
        session.images.append(image)
        session.code_is_out = True
        self._texts[image] = {r.read(image).text: name for name, r in self.readers.items()}
        return image

    def judge(self, session: Session, answer: str) -> bool:
        image = session.images[-1]
        name = self._texts[image].get(answer)
        if not session.code_is_out:
            return False
        session.code_is_out = False
        if name is None:
            self.canaries += 1
            return self.wrong
        share = self.shares[name]
        given = sum(other == name for other, _ in self.answered)
        self._owed[name] += share if isinstance(share, float) else share(given)
        right = self._owed[name] >= 1 - 1e-9
        self._owed[name] -= right
        self.answered.append((name, right))
        (self.accepted if right else self.rejected).append((image, answer))
        return right

    def count(self, name: str) -> int:
        return sum(other == name for other, _ in self.answered)


class Trainer:
    """The fake one of a test: how to start it, and what it was told."""

    def __init__(self, folder: Path, bundle: Path, **options: Any) -> None:
        self.notes = folder / "trainer-notes"
        self.command = [sys.executable, str(FAKE), str(bundle), str(self.notes)]
        for name, value in options.items():
            self.command.append(f"--{name.replace('_', '-')}")
            self.command += [] if value is True else [str(value)]

    def _lines(self) -> list[dict[str, Any]]:
        if not self.notes.exists():
            return []
        return [json.loads(line) for line in self.notes.read_text().splitlines()]

    @property
    def requests(self) -> list[dict[str, Any]]:
        return [line for line in self._lines() if "dataset" in line]

    @property
    def answers(self) -> list[dict[str, Any]]:
        return [line["answered"] for line in self._lines() if "answered" in line]

    @property
    def starts(self) -> list[dict[str, Any]]:
        return [line for line in self._lines() if "pid" in line]

    def alive(self) -> list[int]:
        """Processes of it that still run."""
        return [line["pid"] for line in self.starts if _runs(line["pid"])]


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
