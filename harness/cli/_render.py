"""How things are shown: tables and JSON on stdout, progress on stderr."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from harness.util.text import printable

if TYPE_CHECKING:
    from rich.progress import Progress

    from harness.engine.types import AttackProgress

__all__ = ["percent", "print_json", "print_line", "print_table", "progress"]

_LONGEST = 10_000

_PAUSE = 30.0
"""Seconds between two lines of one step where there is no terminal: a log shows that a long step lives."""


def print_json(value: Any) -> None:
    """One JSON value on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def print_line(text: str = "", *, err: bool = False) -> None:
    """A line without markup or wrapping, so that paths stay whole; characters that a terminal acts on are escaped."""
    print(
        "\n".join(printable(line, longest=_LONGEST) for line in text.split("\n")),
        file=sys.stderr if err else sys.stdout,
    )


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """A table on stdout; columns named in ``right`` are aligned to the right. None is left empty."""
    # most commands print no table, and help never does
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for position, name in enumerate(header):
        justify: Literal["left", "right"] = "right" if name in right else "left"
        table.add_column(Text(name), justify=justify, overflow="fold", no_wrap=position == 0)
    for row in rows:
        # Text, because names come from files and may look like markup
        table.add_row(*(Text("" if cell is None else printable(cell, longest=_LONGEST)) for cell in row))
    # into a file or a pipe there is no width to respect, and one row stays one line
    width = Console().width if sys.stdout.isatty() else 10_000
    text = io.StringIO()
    Console(file=text, width=width, color_system=None, highlight=False).print(table)
    print("\n".join(line.rstrip() for line in text.getvalue().splitlines() if line.strip()))


def percent(value: float) -> str:
    """A fraction as a percentage: "97.8 %"."""
    return f"{100 * value:.1f} %"


@contextmanager
def progress(label: str) -> Iterator[Callable[[AttackProgress], None]]:
    """Shows what an evaluation is doing: a live line on a terminal, else one line a step and, in a long one,
    one every half minute. All on stderr."""
    if not sys.stderr.isatty():
        yield _Lines(label)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[surviving]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield _Bar(bars, label)


class _Lines:
    def __init__(self, label: str) -> None:
        self.label = label
        self.step = ""
        self.shown = 0.0

    def __call__(self, tick: AttackProgress) -> None:
        now = time.monotonic()
        if tick.step != self.step:
            self.step, self.shown, done = tick.step, now, ""
        elif now >= self.shown + _PAUSE:
            self.shown, done = now, f", {100 * tick.done:.0f} % done"
        else:
            return
        print_line(f"{self.label}: {tick.step}: {tick.surviving} of {tick.total} surviving{done}", err=True)


class _Bar:
    def __init__(self, bars: Progress, label: str) -> None:
        self.bars = bars
        self.label = label
        self.step = ""
        self.task = bars.add_task(label, total=1.0, surviving="")

    def __call__(self, tick: AttackProgress) -> None:
        surviving = f"{tick.surviving} of {tick.total} surviving"
        if tick.step != self.step:
            self.step = tick.step
            # every step runs at a pace of its own, so its time left is counted from its own start
            self.bars.reset(self.task, description=f"{self.label}: {tick.step}")
        self.bars.update(self.task, completed=tick.done, surviving=surviving)
