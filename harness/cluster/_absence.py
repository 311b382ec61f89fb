"""What a process that watches others has to know of itself: for how long it was not there."""

from __future__ import annotations

import time

__all__ = ["Absence"]


class Absence:
    """For how long a loop that waits a moment in each round was stopped, as by Ctrl-Z, or busy with something else.

    Args:
        wait: seconds that it waits at most.
    """

    def __init__(self, wait: float) -> None:
        self._wait = wait
        self._last = time.monotonic()

    def seconds(self) -> float:
        """Since the last call, or the beginning; without the wait itself."""
        before, self._last = self._last, time.monotonic()
        return max(0.0, self._last - before - self._wait)
