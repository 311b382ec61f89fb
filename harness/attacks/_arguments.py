"""Checks of the parameters of attacks."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from harness.errors import InvalidInput, UnknownName

__all__ = ["at_least_one", "check_parameters"]

_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "int": ("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    "float": (
        "a finite number",
        lambda value: isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value),
    ),
    "bool": ("true or false", lambda value: isinstance(value, bool)),
    "str": ("a text", lambda value: isinstance(value, str)),
    "None": ("none", lambda value: value is None),
}


def at_least_one(attack: str, **counts: int) -> None:
    """Refuse counts that are not whole numbers from 1.

    Raises:
        InvalidInput: naming the attack, the argument and the value.
    """
    for name, value in counts.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InvalidInput(f"{attack}'s {name} must be a whole number of at least 1, got {value!r}")


def check_parameters(attack: str, builder: Callable[..., Any], parameters: Mapping[str, Any]) -> None:
    """Refuse parameters that the builder of an attack does not take, or not with such a value.

    Only annotations of plain numbers, texts and truth values are checked; ranges are the builder's own matter.

    Raises:
        UnknownName: a parameter that it does not have.
        InvalidInput: a value of another type.
    """
    known = inspect.signature(builder).parameters.values()
    own = {p.name: p for p in known if p.kind is p.KEYWORD_ONLY}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in known)
    for name, value in parameters.items():
        if name not in own:
            if takes_any:
                continue
            raise UnknownName(f"parameter of the attack {attack}", name, own)
        annotation = own[name].annotation
        text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
        kinds = [kind.strip() for kind in text.split("|")]
        if all(kind in _KINDS for kind in kinds) and not any(_KINDS[kind][1](value) for kind in kinds):
            expected = " or ".join(_KINDS[kind][0] for kind in kinds)
            raise InvalidInput(f"the attack {attack}'s {name} must be {expected}, got {value!r}")
