"""Formats of a leaderboard: one file each, a `Format` that turns a `Board` into text."""

from __future__ import annotations

from harness.results.formats._base import CLEAN, Accuracy, Board, Cell, CurvePoint, Format, Row
from harness.util import plugins

__all__ = ["CLEAN", "Accuracy", "Board", "Cell", "CurvePoint", "Format", "Row", "get", "names"]


def names() -> tuple[str, ...]:
    """The registered formats."""
    return plugins.members(__name__)


def get(name: str) -> Format:
    """The format called ``name``, or the one that ``FILE.py:NAME`` names.

    Raises:
        UnknownName: no format of that name.
        InvalidInput: a file that defines none.
    """
    found: Format = plugins.lookup(__name__, name, "format", Format)
    return found
