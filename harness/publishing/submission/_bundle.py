"""The source text of functions of this package as one file that does not import it."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from harness.errors import InvalidInput

__all__ = ["bundle"]

_PACKAGE = "harness"
_FUTURE = "__future__"


def bundle(wanted: Iterable[tuple[str, str]]) -> str:
    """Imports and definitions that some names need, every definition after those that it uses.

    Args:
        wanted: pairs of a module and a name that it defines.

    Raises:
        InvalidInput: two different definitions have the same name, or a module has no source text.
    """
    bundled = _Bundle()
    for module, name in wanted:
        bundled.add(module, name)
    return "\n\n\n".join(["\n".join(sorted(bundled.imports)), *bundled.definitions]) + "\n"


@dataclass
class _Bundle:
    imports: set[str] = field(default_factory=set)
    definitions: list[str] = field(default_factory=list)
    modules: dict[str, _Module] = field(default_factory=dict)
    origins: dict[str, tuple[str, int]] = field(default_factory=dict)

    def add(self, name: str, wanted: str) -> None:
        """Take in what module ``name`` calls ``wanted``, after all that it uses."""
        module = self.modules.setdefault(name, _Module(name))
        if wanted in module.imported:
            origin, original, line = module.imported[wanted]
            if origin.partition(".")[0] != _PACKAGE:
                self.imports.add(line)
            elif original == wanted:
                self.add(origin, original)
            else:
                raise InvalidInput(f"{name} imports {original} under another name, which one file cannot hold")
            return
        node = module.defined.get(wanted)
        if node is None:  # a builtin, or a name of an inner scope
            return
        place = (name, node.lineno)
        known = self.origins.setdefault(wanted, place)
        if known != place:
            raise InvalidInput(f"both {name} and {known[0]} define {wanted}, which one file cannot hold")
        text = module.text(node)
        if text in self.definitions or place in module.begun:
            return
        module.begun.add(place)
        for used in _names(node):
            self.add(name, used)
        self.definitions.append(text)


class _Module:
    """What stands at the top of a module."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.begun: set[tuple[str, int]] = set()
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
            raise InvalidInput(f"the module {name} has no source text")
        self.source = Path(spec.origin).read_text(encoding="utf-8")
        self.tree = ast.parse(self.source)

    @cached_property
    def defined(self) -> dict[str, ast.stmt]:
        """Statements by the names that they define."""
        found: dict[str, ast.stmt] = {}
        for node in self.tree.body:
            found |= dict.fromkeys(_defines(node), node)
        return found

    @cached_property
    def imported(self) -> dict[str, tuple[str, str, str]]:
        """Names that are imported -> the module, the name there, and the line that imports it alone."""
        found: dict[str, tuple[str, str, str]] = {}
        for node in self.tree.body:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    line = f"import {alias.name}" + (f" as {alias.asname}" if alias.asname else "")
                    found[alias.asname or alias.name.partition(".")[0]] = (alias.name, "", line)
            elif isinstance(node, ast.ImportFrom) and node.module not in (None, _FUTURE):
                for alias in node.names:
                    line = f"from {node.module} import {alias.name}" + (f" as {alias.asname}" if alias.asname else "")
                    found[alias.asname or alias.name] = (str(node.module), alias.name, line)
        return found

    def text(self, node: ast.stmt) -> str:
        """The statement as it is written, decorators and inner comments included."""
        decorators = getattr(node, "decorator_list", [])
        first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
        return "\n".join(self.source.splitlines()[first - 1 : node.end_lineno])


def _defines(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign):
        yield from (target.id for target in node.targets if isinstance(target, ast.Name))
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id


def _names(node: ast.AST) -> list[str]:
    return list(dict.fromkeys(inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)))
