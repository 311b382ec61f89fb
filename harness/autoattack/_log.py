"""What the drop-in says, where the reference says it: on stdout, and in a file."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from harness.engine.types import AttackProgress

__all__ = ["Log", "Progress"]


class Log:
    """Where the reference's own logger is; it writes to stdout and to a file.

    Attributes:
        log_path: the file; None for none.
    """

    def __init__(self, log_path: Path | None) -> None:
        self.log_path = log_path

    def log(self, message: str) -> None:
        """Write one line."""
        sys.stdout.write(message + "\n")
        sys.stdout.flush()
        if self.log_path is not None:
            with self.log_path.open("a", encoding="utf-8") as file:
                file.write(message + "\n")


class Progress:
    """Says now and then how many samples an attack has broken, as the reference does after every batch."""

    def __init__(self, logger: Log) -> None:
        self.logger = logger
        self.step, self.before, self.shown = "", 0, 0.0

    def __call__(self, tick: AttackProgress) -> None:
        if tick.step != self.step:
            self.step, self.before, self.shown = tick.step, tick.surviving, time.monotonic()
        elif time.monotonic() >= self.shown + _PAUSE:
            self.shown = time.monotonic()
            broken = self.before - tick.surviving
            self.logger.log(
                f"{tick.step} - {tick.done:.0%} done - {broken} out of {self.before} successfully perturbed"
            )


_PAUSE = 10.0
"""Seconds between two lines on the progress of one attack."""
