"""How things are shown: tables and JSON on stdout."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from typing import Any, Literal

from harness.util.text import printable

__all__ = ["percent", "print_json", "print_line", "print_table"]

_LONGEST = 10_000


def print_json(value: Any) -> None:
    """One JSON value on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def print_line(text: str = "", *, err: bool = False) -> None:
    """A line without markup or wrapping, so that paths stay whole; characters that a terminal acts on are escaped."""
    print(
        "\n".join(printable(line, longest=_LONGEST) for line in text.split("\n")),
        file=sys.stderr if err else sys.stdout,
    )


def print_table(
    header: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[str] = (), one_line: bool = False
) -> None:
    """A table on stdout. None is left empty.

    Args:
        right: columns that are aligned to the right.
        one_line: cut what does not fit into the width of the terminal, instead of going on in the next line.
    """
    # most commands print no table, and help never does
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for position, name in enumerate(header):
        justify: Literal["left", "right"] = "right" if name in right else "left"
        table.add_column(
            Text(printable(name, longest=_LONGEST)),
            justify=justify,
            overflow="ellipsis" if one_line else "fold",
            no_wrap=one_line or position == 0,
        )
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
