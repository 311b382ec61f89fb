"""Packages that offer more than most of those who import them need: what is asked for is imported then.

torch takes seconds to import. A package whose names are deferred can be imported, and what does not need torch be used,
without it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["deferred"]


def deferred(package: str, offered: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """A package's ``__getattr__``, which imports the file that defines a name when the name is first asked for.

    Args:
        package: its dotted name. offered: files of it -> the names that they define and the package offers.
    """
    homes = {name: file for file, names in offered.items() for name in names}

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)

    return get
