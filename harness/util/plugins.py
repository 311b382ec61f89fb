"""Families: a folder whose every file defines one member, named like the file.

``attacks/apgd.py`` defines ``apgd``; on the command line underscores become hyphens. Adding a member
is adding a file. Files that start with an underscore are shared parts, and folders are families of their own. Where
a name is a word of Python's own, file and member end in an underscore that the name has not: ``regimes/in_.py`` is
``in``.
"""

from __future__ import annotations

import importlib
import keyword
import pkgutil
from typing import Any

from harness.errors import UnknownName

__all__ = ["lookup", "members"]


def members(package: str) -> tuple[str, ...]:
    """Names of the members of a family package (its dotted name), sorted, as written on the command line."""
    files = pkgutil.iter_modules(importlib.import_module(package).__path__)
    names = (file.name for file in files if not file.ispkg and not file.name.startswith("_"))
    return tuple(sorted(name.rstrip("_").replace("_", "-") for name in names))


def lookup(package: str, name: str, kind: str) -> Any:
    """The member of ``package`` (its dotted name) called ``name``; only that member's file is imported.

    Raises:
        UnknownName: no file of that name; the error lists the known names and the nearest.
    """
    known = members(package)
    if name not in known:
        raise UnknownName(kind, name, known)
    attribute = name.replace("-", "_")
    attribute += "_" * keyword.iskeyword(attribute)
    return getattr(importlib.import_module(f"{package}.{attribute}"), attribute)
