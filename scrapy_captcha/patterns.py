"""Regular expressions with a deadline, for texts that strangers write.

Python's own matcher cannot be stopped, and takes a minute and a half for as little as
``wrong.*code`` on 1 MiB that says "wrong" all over.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import regex

#: For one search, of the process's own time.
SECONDS = 0.1


class PatternTimeout(Exception):  # noqa: N818 - an outcome
    """A search was not over in time."""


@dataclass(frozen=True)
class Pattern:
    """One of Python's regular expressions.

    :raises ValueError: when the text is none
    """

    text: str

    def __post_init__(self) -> None:
        try:
            re.compile(self.text)
            _ = self._compiled
        except (re.error, regex.error) as e:
            raise ValueError(str(e)) from None

    def search(self, text: str) -> bool:
        """Whether it is found somewhere in a text.

        :raises PatternTimeout: when that cannot be told in time
        """
        try:
            return self._compiled.search(text, timeout=SECONDS) is not None
        except (TimeoutError, MemoryError):
            raise PatternTimeout(f"{self.text!r} took more than {SECONDS} s") from None

    @cached_property
    def _compiled(self) -> regex.Pattern[str]:
        return regex.compile(self.text, regex.V0)
