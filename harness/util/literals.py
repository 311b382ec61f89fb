"""Values that are written as text on a command line and kept in a manifest: text, numbers, lists, tables."""

from __future__ import annotations

import ast
import keyword
import math
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from harness.errors import InvalidInput
from harness.util.text import printable

__all__ = ["checked_arguments", "listed_arguments", "parse_arguments", "parse_length"]

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_./+-]*")
_KEYWORDS = {"true": True, "false": False}
# as short as any that means something: the fraction of a number with a huge exponent would take all memory
_NUMBER = re.compile(r"(?=.{1,40}$)(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?")


def parse_arguments(text: str) -> dict[str, Any]:
    """Keyword arguments from ``width=16,depth=1``: Python literals, or a plain word for text (``act=relu``).

    Raises:
        InvalidInput: anything else; nothing is evaluated.
    """
    arguments: dict[str, Any] = {}
    for part in _split(text):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not name.isidentifier():
            raise InvalidInput(f"arguments are written name=value, separated by commas, got {part.strip()!r}")
        if name in arguments:
            raise InvalidInput(f"the argument {name} is given twice")
        arguments[name] = _literal(name, value)
    return checked_arguments(arguments)


def checked_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments in the form in which a manifest holds them: tuples become lists.

    Raises:
        InvalidInput: a value that is no text, finite number, truth value, list or table of such, or a name that no
            argument can have.
    """
    wrong = next((name for name in arguments if not name.isidentifier() or keyword.iskeyword(name)), None)
    if wrong is not None:
        raise InvalidInput(f"no argument can have the name {printable(wrong)!r}: expected letters, digits and _")
    return {name: _plain(name, value) for name, value in arguments.items()}


def listed_arguments(arguments: Mapping[str, Any]) -> str:
    """As a person writes a call: ``width=16, act='relu'``."""
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())


def parse_length(text: str, what: str) -> float:
    """A radius or a step, 0 or more, as a number or a fraction: ``0.03`` or ``8/255``.

    Args:
        what: begins the error, for example "eps".

    Raises:
        InvalidInput: anything else.
    """
    parts = text.split("/")
    if len(parts) > 2 or not all(_NUMBER.fullmatch(part) for part in parts):
        raise InvalidInput(f"{what} must be a number or fraction such as 8/255, 0 or more, got {printable(text)!r}")
    try:
        value = float(Fraction(parts[0]) / Fraction(parts[1])) if len(parts) == 2 else float(text)
    except OverflowError:
        value = math.inf
    except ZeroDivisionError:
        raise InvalidInput(f"{what} must be a number or fraction, got {text!r}: it divides by zero") from None
    if not math.isfinite(value):
        raise InvalidInput(f"{what} must be finite and not negative, got {text!r}")
    return value


def _split(text: str) -> list[str]:
    """At commas outside of brackets and quotes."""
    parts, begin, depth, quote = [], 0, 0, ""
    for position, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character == "," and not depth:
            parts.append(text[begin:position])
            begin = position + 1
    return [part for part in (*parts, text[begin:]) if part.strip()]


def _literal(name: str, text: str) -> Any:
    if text in _KEYWORDS:
        return _KEYWORDS[text]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        if _WORD.fullmatch(text):
            return text
        raise InvalidInput(
            f"the argument {name} must be a literal such as 16, 0.5, [1, 2] or a word, got {text!r}"
        ) from None


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(name, item) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(name, item) for key, item in value.items()}
    if isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise InvalidInput(f"the argument {name} must be text, a finite number, true or false, or a list; got {value!r}")
