"""Text from results, which may be a stranger's, inside Markdown that a platform renders."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from harness.util.text import printable

__all__ = ["code", "command"]

_LONGEST = 1000


def code(text: object) -> str:
    """``text`` as a code span, which it cannot end."""
    return f"`{printable(text, longest=_LONGEST).replace('`', chr(39))}`"


def command(words: Iterable[str]) -> str:
    """A line of a console block: one command for a shell, whatever is in its words."""
    return shlex.join(printable(word, longest=_LONGEST) for word in words)
