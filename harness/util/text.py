"""Text for people: from files of strangers, made safe to show, and with numbers."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["counted", "markdown_text", "printable", "spreadsheet_cell"]

_LONGEST = 120
_FORMULA = ("=", "+", "-", "@")
# control, format (bidirectional and zero-width ones among them), surrogate, private, unassigned, line separators
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number of things in words, such as "1 model" and "1,000 models".

    Args:
        plural: of the noun, where that is not the noun with an s.
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def printable(value: object, *, longest: int = _LONGEST) -> str:
    """``value`` as text of at most ``longest`` characters in which everything invisible is escaped.

    A terminal acts on control characters, and bidirectional ones reorder what a reader sees.
    """
    text = str(value)
    if len(text) <= longest and text.isprintable():  # which nothing hidden is; most texts are done here
        return text
    cut = text if len(text) <= longest else f"{text[: longest - 3]}..."
    return "".join(_escaped(one) if unicodedata.category(one) in _HIDDEN else one for one in cut)


def spreadsheet_cell(value: object, *, longest: int = _LONGEST) -> str:
    """``value`` as a cell of a CSV file: `printable`, and nothing that a spreadsheet would run as a formula."""
    text = printable(value, longest=longest)
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text


def markdown_text(value: object) -> str:
    """``value`` on one line of Markdown: it ends no cell, and holds no HTML, link or emphasis."""
    text = (
        printable(re.sub(r"\s+", " ", str(value)).strip(), longest=10_000)
        .replace("&", "&amp;")
        .replace("<", "&lt;")
        .replace(">", "&gt;")
    )
    text = re.sub(r"([\\`*\[\]|~$#])", r"\\\1", text)
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
