"""Text for LaTeX and BibTeX."""

from __future__ import annotations

from harness.util.text import printable

__all__ = ["escaped"]

_SIGNS = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
} | {sign: f"\\{sign}" for sign in "&%$#_{}"}
_LAST = "\xff"
"""The last sign that LaTeX knows without further packages."""
_LONGEST = 10_000


def escaped(text: str) -> str:
    """Text in which no sign means anything to LaTeX, and nothing is hidden; a sign that it does not know is U+ and its
    number."""
    known = (sign if sign <= _LAST else f"U+{ord(sign):04X}" for sign in printable(text, longest=_LONGEST))
    return "".join(_SIGNS.get(sign, sign) for sign in known)
