"""Text from results, which may be a stranger's, inside Markdown that a platform renders."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

# as the boards write names and flags
from harness.results.formats.markdown import _text
from harness.util.text import printable

__all__ = ["code", "command", "escaped"]

_LONGEST = 1000


def escaped(text: object) -> str:
    """``text`` on one line, with nothing in it that Markdown or HTML would act on."""
    return _text(str(text))


def code(text: object) -> str:
    """``text`` as a code span, which it cannot end."""
    return f"`{printable(text, longest=_LONGEST).replace('`', chr(39))}`"


def command(words: Iterable[str]) -> str:
    """A line of a console block: one command for a shell, whatever is in its words."""
    return shlex.join(printable(word, longest=_LONGEST) for word in words)
