"""Text for LaTeX and BibTeX."""

from __future__ import annotations

from harness.util.text import printable

__all__ = ["escaped"]

_SIGNS = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    sign: f"\\{sign}" for sign in "&%$#_{}"
}
_LONGEST = 10_000


def escaped(text: str) -> str:
    """Text in which no sign means anything to LaTeX, and nothing is hidden."""
    return "".join(_SIGNS.get(sign, sign) for sign in printable(text, longest=_LONGEST))
