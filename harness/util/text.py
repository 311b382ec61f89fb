"""Text from files of strangers, made safe to show."""

from __future__ import annotations

import unicodedata

__all__ = ["printable"]

_LONGEST = 120
# control, format (bidirectional and zero-width ones among them), surrogate, private, unassigned, line separators
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def printable(value: object, *, longest: int = _LONGEST) -> str:
    """``value`` as text of at most ``longest`` characters in which everything invisible is escaped.

    A terminal acts on control characters, and bidirectional ones reorder what a reader sees.
    """
    text = str(value)
    if len(text) <= longest and text.isprintable():  # which nothing hidden is; most texts are done here
        return text
    cut = text if len(text) <= longest else f"{text[: longest - 3]}..."
    return "".join(_escaped(one) if unicodedata.category(one) in _HIDDEN else one for one in cut)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
