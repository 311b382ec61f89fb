"""Formats of a leaderboard: one file each, a `Format` that turns a `Board` into text."""

from __future__ import annotations

from harness import families
from harness.formats._base import COLUMNS, Accuracy, Board, Cell, Format, Row

__all__ = ["COLUMNS", "Accuracy", "Board", "Cell", "Format", "Row", "get", "names"]


def names() -> tuple[str, ...]:
    """The registered formats."""
    return families.members(__name__)


def get(name: str) -> Format:
    """The format called ``name``.

    Raises:
        UnknownName: no format of that name.
    """
    found: Format = families.lookup(__name__, name, "format")
    return found
