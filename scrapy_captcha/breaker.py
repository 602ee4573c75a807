"""Stops what is hopeless: after so many failed solves in a row, a site is left alone."""

from __future__ import annotations

from time import monotonic

#: Seconds after which one solve may probe a site whose breaker is open.
PROBE_AFTER = 300.0


class Breaker:
    """The breaker of one site.

    :param failures: failed solves in a row after which it opens

    :ivar openings: how often it has opened
    """

    def __init__(self, failures: int) -> None:
        self.openings = 0
        self._limit = failures
        self._failed = 0
        self._opened: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether solves are refused; false for the one probe that is due."""
        if self._opened is None:
            return False
        if monotonic() - self._opened < PROBE_AFTER:
            return True
        self._opened = monotonic()
        return False

    @property
    def refuses(self) -> bool:
        """Whether it is open and no probe is due."""
        return self._opened is not None and monotonic() - self._opened < PROBE_AFTER

    def succeed(self) -> None:
        """A solve has succeeded."""
        self._failed = 0
        self._opened = None

    def fail(self) -> bool:
        """A solve has failed; whether that opened the breaker."""
        self._failed += 1
        if self._opened is None and self._failed < self._limit:
            return False
        newly = self._opened is None
        self.openings += newly
        self._opened = monotonic()
        return newly
