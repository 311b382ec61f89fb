"""HTML in which everything that is not made here is text."""

from __future__ import annotations

from html import escape

from harness.util.text import printable

__all__ = ["Child", "Markup", "element", "join", "shown"]

_EMPTY = frozenset({"circle", "input", "line", "link", "meta", "path", "rect"})
_LONGEST = 2_000


class Markup(str):
    """HTML that needs no escaping; only the functions of this file make it."""

    __slots__ = ()


Child = Markup | str | None
"""Plain text is escaped, None is nothing."""


def element(name: str, /, *children: Child, **attributes: str | int | float | bool | None) -> Markup:
    """An element with its children.

    Args:
        attributes: underscores stand for hyphens, and one at the end of a name is dropped (``class_``). True is an
            attribute without a value; False and None are none.
    """
    opened = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _EMPTY and not children:
        return Markup(f"<{name}{opened}>" if name in {"input", "link", "meta"} else f"<{name}{opened}/>")
    return Markup(f"<{name}{opened}>{join(*children)}</{name}>")


def join(*children: Child) -> Markup:
    """Children one after the other, with nothing around them."""
    return Markup("".join(child if isinstance(child, Markup) else escape(shown(child)) for child in children if child))


def shown(text: object) -> str:
    """Text with everything invisible written as escapes, and of bounded length."""
    return printable(text, longest=_LONGEST)


def _attribute(key: str, value: str | int | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(shown(value))}"'
