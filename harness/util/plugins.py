"""Families of plug-ins: what can be added without touching the package.

A family is a folder whose every file defines one member, named like the file: ``attacks/apgd.py`` defines ``apgd``.
On the command line underscores become hyphens. Files that start with an underscore are shared parts, and folders are
families of their own. Where a name is a word of Python's own, file and member end in an underscore that the name has
not: ``regimes/in_.py`` is ``in``.

A member from outside the package is either ``FILE.py:NAME``, given by path, or an entry point of an installed
package. The group of a family's entry points is ``harness.`` and the folder's name: ``harness.attacks``.
Entry points are read only when a name is not one of the folder's, or when all names are listed.
"""

from __future__ import annotations

import ast
import importlib
import keyword
import pkgutil
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import InvalidInput, UnknownName
from harness.util.user_file import from_file, is_in_file, one_line

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["any_installed", "is_member", "is_own", "lookup", "members", "own_members", "summaries"]

_ROOT = Path(__file__).resolve().parents[1]


def members(package: str) -> tuple[str, ...]:
    """Names of the members of a family (its dotted name), sorted, as written on the command line."""
    return tuple(sorted({*_own(package), *_installed(package)}))


def own_members(package: str) -> tuple[str, ...]:
    """Names of the members that this package brings itself, sorted."""
    return tuple(sorted(_own(package)))


def is_member(package: str, name: str) -> bool:
    """Whether a family has a member of that name; ``FILE.py:NAME`` is none of its members."""
    return name in _own(package) or name in _installed(package)


def is_own(package: str, name: str) -> bool:
    """Whether a member of that name is a file of the family itself, and not of an installed package."""
    return name in _own(package)


def lookup(package: str, name: str, kind: str, of: Any = object) -> Any:
    """The member of ``package`` (its dotted name) called ``name``, or the one that ``FILE.py:NAME`` names.

    Only that member's file is imported.

    Args:
        kind: what a member is called in the errors, such as "attack".
        of: the type that a member must have.

    Raises:
        UnknownName: no member of that name; the error lists the known names and the nearest.
        InvalidInput: its file or package fails when it is imported, two packages have a member of that name, or it
            is of another type.
    """
    if is_in_file(name):
        member = from_file(name, kind)
    elif name in _own(package):
        attribute = name.replace("-", "_")
        attribute += "_" * keyword.iskeyword(attribute)
        member = getattr(importlib.import_module(f"{package}.{attribute}"), attribute)
    elif name.endswith(".py"):
        raise InvalidInput(f"a member of a file is written FILE.py:NAME, got {name!r} where a {kind} is expected")
    else:
        member = _load(_entry(package, name, kind), kind)
    if not isinstance(member, of):
        raise InvalidInput(f"the {kind} {name} must be a {of.__name__}, got a {type(member).__name__}")
    return member


def any_installed() -> bool:
    """Whether an installed package brings members of any family."""
    from importlib.metadata import entry_points

    return any(group.startswith("harness.") for group in entry_points().groups)


def summaries(package: str) -> dict[str, str]:
    """What each member says of itself in one line, without importing any.

    That is the first line of its file's docstring, and of an entry point the package that brings it.
    """
    about = {}
    for path in sorted(_ROOT.joinpath(*package.split(".")[1:]).glob("[!_]*.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        about[_name(path.stem)] = text.partition("\n")[0]
    for name, points in _installed(package).items():
        about.setdefault(name, f"from {' and '.join(map(_source, points))}")
    return dict(sorted(about.items()))


def _name(module: str) -> str:
    return module.rstrip("_").replace("_", "-")


def _own(package: str) -> set[str]:
    files = pkgutil.iter_modules(importlib.import_module(package).__path__)
    return {_name(file.name) for file in files if not file.ispkg and not file.name.startswith("_")}


def _installed(package: str) -> dict[str, tuple[EntryPoint, ...]]:
    """The entry points of a family by name."""
    return _entry_points(f"harness.{package.rpartition('.')[2]}", tuple(sys.path))


@cache
def _entry_points(group: str, path: tuple[str, ...]) -> dict[str, tuple[EntryPoint, ...]]:
    # reading what is installed takes a tenth of a second; it is another set only where the import path is another
    from importlib.metadata import entry_points

    found: dict[str, list[EntryPoint]] = defaultdict(list)
    for point in entry_points(group=group):
        found[point.name].append(point)
    return {name: tuple(points) for name, points in found.items()}


def _entry(package: str, name: str, kind: str) -> EntryPoint:
    points = _installed(package).get(name, ())
    if not points:
        raise UnknownName(kind, name, members(package))
    if len(points) > 1:
        raise InvalidInput(
            f"the {kind} {name} is in {' and in '.join(map(_source, points))}: uninstall all of these but one"
        )
    return points[0]


def _load(point: EntryPoint, kind: str) -> Any:
    try:
        return point.load()
    except Exception as error:
        what = f"the {kind} {point.name} of {_source(point)}"
        raise InvalidInput(f"{what} cannot be loaded: {one_line(error)}") from error


def _source(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value
