"""Writing TOML: what a manifest needs of it, in the order given, short lists on one line."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from harness.errors import InvalidInput

__all__ = ["to_toml"]

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def to_toml(table: Mapping[str, Any]) -> str:
    """``table`` as TOML text, which `tomllib.loads` reads back equal; entries that are None are left out.

    Raises:
        InvalidInput: a value that TOML cannot hold.
    """
    return "\n".join(_lines(table, ())).strip("\n") + "\n"


def _lines(table: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    present = {name: value for name, value in table.items() if value is not None}
    lines = [f"{_key(n)} = {_value(v, (*path, n))}" for n, v in present.items() if not isinstance(v, Mapping)]
    for name, value in present.items():
        if isinstance(value, Mapping):
            inner = (*path, name)
            lines += ["", f"[{'.'.join(map(_key, inner))}]", *_lines(value, inner)]
    return lines


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _text(name)


def _text(text: str) -> str:
    # JSON escapes what TOML wants escaped, but for DEL
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any, path: tuple[str, ...]) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        text = repr(value)
        return text if set(text) & set(".e") else f"{text}.0"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(item, path) for item in value)}]"
    if isinstance(value, Mapping):
        present = {name: item for name, item in value.items() if item is not None}
        return f"{{{', '.join(f'{_key(n)} = {_value(v, (*path, n))}' for n, v in present.items())}}}"
    raise InvalidInput(f"{'.'.join(path)} must be text, a finite number, a list or a table, got {value!r}")
