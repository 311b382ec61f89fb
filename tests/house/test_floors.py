"""Imports go down only. The floors are drawn in docs/architecture.md."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter

import pytest

from tests.house._tree import ROOT, imported, modules, parse, room

# From the ground up. A room imports from its own floor and from those below; a new one is given its
# floor here and in docs/architecture.md.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("draws", "errors", "families", "fields", "heap", "norms", "result", "threat"),
    ("accelerate", "crafting", "environment", "losses", "regime", "settings", "stats", "store"),
    ("attacks", "datasets", "formats", "models", "norm_layers", "regimes"),
    (
        "audit",
        "bn_statistics",
        "campaign",
        "checkpoint",
        "cka",
        "engine",
        "judge",
        "lineage",
        "parts",
        "passes",
        "preflight",
        "reference",
        "restat",
        "resume",
        "subject",
        "suites",
        "workers",
    ),
    ("autoattack", "evaluation", "leaderboard", "study", "train"),
    ("robustbench",),
    ("cli", "__main__"),
)
FAMILIES = FLOORS[2]
FLOOR = {name: number for number, floor in enumerate(FLOORS) for name in floor}

# A model builds its network with a norm layer that was injected by name.
FAMILY_TO_FAMILY = {("models", "norm_layers")}

KNOWN = modules()
EDGES = sorted(
    (name, target, line)
    for name, path in KNOWN.items()
    if name != "harness"  # the package itself only forwards names, lazily
    for target, line in imported(name, path, KNOWN)
)


def test_every_room_has_a_floor() -> None:
    rooms = {room(name) for name in KNOWN} - {""}
    assert rooms - set(FLOOR) == set(), "give these their floor in FLOORS and in docs/architecture.md"


def test_every_floor_is_drawn_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = {room(name) for name in KNOWN} - {"", "__main__"}
    assert [name for name in sorted(rooms) if f"`{name}`" not in text] == []


def test_imports_go_down_only() -> None:
    wrong = [
        f"{name}:{line} imports {target}"
        for name, target, line in EDGES
        if room(target)
        and FLOOR.get(room(target), 0) > FLOOR.get(room(name), 99)
    ]
    assert wrong == []


def test_the_package_itself_is_asked_for_its_version_alone() -> None:
    """What it exports lies above whoever asks."""
    wrong = [
        f"{name}:{node.lineno}"
        for name, path in KNOWN.items()
        if room(name) not in {"", "cli", "__main__"}
        for node in ast.walk(parse(path))
        if (isinstance(node, ast.Attribute) and ast.unparse(node.value) == "harness" and node.attr != "__version__")
        or (isinstance(node, ast.ImportFrom) and node.module == "harness" and _exports(node))
    ]
    assert wrong == []


def _exports(node: ast.ImportFrom) -> list[str]:
    names = {alias.name for alias in node.names}
    return sorted(name for name in names if f"harness.{name}" not in KNOWN and name != "__version__")


def test_families_never_import_each_other() -> None:
    wrong = [
        f"{name}:{line} imports {target}"
        for name, target, line in EDGES
        if room(name) in FAMILIES
        and room(target) in FAMILIES
        and room(name) != room(target)
        and (room(name), room(target)) not in FAMILY_TO_FAMILY
    ]
    assert wrong == []


def test_rooms_do_not_import_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for name, target, _ in EDGES:
        pair = room(name), room(target)
        if pair[0] != pair[1]:
            graph.setdefault(pair[0], set()).add(pair[1])
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' > '.join(error.args[1])}")


def test_the_command_line_is_imported_by_nobody() -> None:
    assert [f"{n}:{line}" for n, t, line in EDGES if room(t) == "cli" and room(n) not in {"cli", "__main__"}] == []
