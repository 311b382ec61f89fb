"""Imports go down only. The floors are drawn in docs/architecture.md."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter

import pytest

from tests.house._tree import ROOT, imported, modules, parse, room

# From the ground up. A room imports from floors below its own and from nothing else; a new one is given its
# floor here and in docs/architecture.md. There are no exceptions.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("_version", "errors"),
    ("settings", "util"),
    ("threat", "weights"),
    ("audit",),
    ("attacks", "datasets", "models", "regimes", "results"),
    ("backends", "suites"),
    ("batchnorm", "boards", "checkpoints", "engine", "representations"),
    ("contracts", "evaluation", "trackers", "training"),
    ("autoattack", "cluster", "publishing"),
    ("studies",),
    ("robustbench",),
    ("cli",),
    ("__main__",),
)
FLOOR = {name: number for number, floor in enumerate(FLOORS) for name in floor}

KNOWN = modules()
EDGES = sorted(
    (name, target, line)
    for name, path in KNOWN.items()
    if name != "harness"  # the package itself only forwards names, lazily
    for target, line in imported(name, path, KNOWN)
)


def test_every_room_has_a_floor() -> None:
    rooms = {room(name) for name in KNOWN} - {""}
    assert rooms == set(FLOOR), "rooms and floors in FLOORS and in docs/architecture.md must be the same"


def test_every_floor_is_drawn_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = {room(name) for name in KNOWN} - {"", "__main__", "_version"}
    assert [name for name in sorted(rooms) if f"`{name}`" not in text] == []


def test_imports_go_down_only() -> None:
    wrong = [
        f"{name}:{line} imports {target}"
        for name, target, line in EDGES
        if room(target) and room(target) != room(name) and FLOOR.get(room(target), 0) >= FLOOR.get(room(name), 99)
    ]
    assert wrong == []


def test_the_package_itself_is_imported_by_nobody() -> None:
    """It forwards names that lie above whoever asks."""
    wrong = [
        f"{name}:{node.lineno}"
        for name, path in KNOWN.items()
        for node in ast.walk(parse(path))
        if (isinstance(node, ast.Import) and any(alias.name == "harness" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and node.module == "harness" and _forwarded(node))
    ]
    assert wrong == []


def _forwarded(node: ast.ImportFrom) -> list[str]:
    return sorted(alias.name for alias in node.names if f"harness.{alias.name}" not in KNOWN)


def test_files_do_not_import_in_a_circle() -> None:
    """Not even inside functions, and not even within a room."""
    graph: dict[str, set[str]] = {}
    for name, target, _ in EDGES:
        # a package that is imported on the way to one of its files is not asked for anything
        if target in KNOWN and target != name and target != "harness":
            graph.setdefault(name, set()).add(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' > '.join(error.args[1])}")


def test_only_few_files_stand_at_the_root() -> None:
    """Everything else lies in a folder along the pipeline."""
    files = {path.name for path in (ROOT / "harness").glob("*.py")}
    public = {
        "__init__.py",
        "__main__.py",
        "_version.py",
        "errors.py",
        "robustbench.py",
        "settings.py",
    }
    assert files == public
