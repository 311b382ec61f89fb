"""How far an evaluation is, shown to whoever asked for it: a live line on a terminal, else lines for a log.

All on stderr, and nothing unless asked for.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from harness.engine.types import AttackProgress
from harness.evaluation.time_left import Estimate, TimeLeft, in_words
from harness.util.text import printable

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["displayed"]

_PAUSE = 30.0
"""Seconds between two lines of one step where there is no terminal: a log shows that a long step lives."""


@contextmanager
def displayed(
    name: str,
    suite: str,
    progress: bool | Callable[[AttackProgress], None] | None = True,
    time_left: TimeLeft | None = None,
) -> Iterator[Callable[[AttackProgress], None] | None]:
    """What an evaluation reports its progress to.

    Args:
        name, suite: what is evaluated by what.
        time_left: estimates how long it goes on; None says nothing of that.
        progress: True shows it; a function is passed on as it is; None and False are silence.
    """
    if not isinstance(progress, bool) or not progress:
        yield progress or None
        return
    label = printable(f"{name}, {suite}")
    if not sys.stderr.isatty():
        yield _Lines(label, time_left or TimeLeft({}))
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[surviving]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield _Bar(bars, label, time_left or TimeLeft({}))


def _left(found: Estimate | None) -> str:
    if found is None:
        return ""
    more = f", {in_words(found.left + found.later)} for all" if found.later else ""
    return f"about {in_words(found.left)} left{more}"


def _whole(found: Estimate) -> str:
    """The whole of a run, in the first words on its time: no sample that survives so far is counted on to break."""
    whole = found.elapsed + found.left
    more = f", {in_words(whole + found.later)} for all" if found.later else ""
    return f"about {in_words(whole)} in all{more}, if no more samples are broken"


class _Lines:
    def __init__(self, label: str, time_left: TimeLeft) -> None:
        self.label = label
        self.time_left = time_left
        self.step = ""
        self.shown = 0.0
        self.foreseen = False

    def __call__(self, tick: AttackProgress) -> None:
        found = self.time_left(tick)
        if found is not None and not self.foreseen:
            self.foreseen = True
            self._write(_whole(found))
        left = _left(found)
        now = time.monotonic()
        if tick.step != self.step:
            self.step, self.shown, done = tick.step, now, ""
        elif now >= self.shown + _PAUSE:
            self.shown, done = now, f", {100 * tick.done:.0f} % done"
        else:
            return
        text = f"{self.time_left.place(tick.step)}{tick.step}: {tick.surviving} of {tick.total} surviving{done}"
        self._write(f"{text}{f', {left}' if left else ''}")

    def _write(self, text: str) -> None:
        sys.stderr.write(f"{self.label}: {text}\n")
        sys.stderr.flush()


class _Bar:
    def __init__(self, bars: Progress, label: str, time_left: TimeLeft) -> None:
        self.bars = bars
        self.label = label
        self.time_left = time_left
        self.step = ""
        self.foreseen = False
        self.task = bars.add_task(label, total=1.0, surviving="", left="")

    def __call__(self, tick: AttackProgress) -> None:
        surviving = f"{tick.surviving} of {tick.total} surviving"
        found = self.time_left(tick)
        left = _left(found)
        if found is not None and not self.foreseen:
            self.foreseen = True
            self.bars.console.print(f"{self.label}: {_whole(found)}", markup=False, highlight=False)
        if tick.step != self.step:
            self.step = tick.step
            self.bars.reset(self.task, description=f"{self.label}: {self.time_left.place(tick.step)}{tick.step}")
        self.bars.update(self.task, completed=tick.done, surviving=surviving, left=left)
