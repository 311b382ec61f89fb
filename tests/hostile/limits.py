"""What reading one file may cost at most: address space beyond what the process has, and processor time."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["TooMuch", "bounded"]

_MEMORY = 1 << 30
_SECONDS = 5.0
_HANGS = 60.0


class TooMuch(BaseException):
    """More than reading may cost; no error that what is tested would take for one of the file's."""


@contextmanager
def bounded() -> Iterator[None]:
    """Raise `MemoryError` or `TooMuch` within it where reading takes too much, or waits for a pipe."""
    statistics = Path("/proc/self/statm")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if statistics.is_file():
        used = int(statistics.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, hard))
    before = {number: signal.signal(number, _stop) for number in (signal.SIGPROF, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_PROF, _SECONDS)
    signal.setitimer(signal.ITIMER_REAL, _HANGS)
    try:
        yield
    finally:
        for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _stop(number: int, frame: object) -> None:
    raise TooMuch(f"more than {_SECONDS:g} s of processor time, or waiting for something that never comes")
