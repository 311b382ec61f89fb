"""Text from files of strangers, made safe to show."""

from __future__ import annotations

import unicodedata

__all__ = ["hidden_character", "printable"]

_LONGEST = 120
# control, format (bidirectional and zero-width ones among them), surrogate, private, unassigned, line separators
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def printable(value: object, *, longest: int = _LONGEST) -> str:
    """``value`` as text of at most ``longest`` characters in which everything invisible is escaped.

    A terminal acts on control characters, and bidirectional ones reorder what a reader sees.
    """
    text = str(value)
    cut = text if len(text) <= longest else f"{text[: longest - 3]}..."
    return "".join(_escaped(one) if unicodedata.category(one) in _HIDDEN else one for one in cut)


def hidden_character(text: str, *, allowed: str = "") -> str | None:
    """The first invisible character of ``text`` as its code point (``U+202E``); None where all can be seen."""
    for character in text:
        if character not in allowed and unicodedata.category(character) in _HIDDEN:
            return f"U+{ord(character):04X}"
    return None


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
