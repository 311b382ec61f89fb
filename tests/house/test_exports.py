"""Every module says what it offers, in order, and offers it."""

from __future__ import annotations

import ast
import importlib
import re

import pytest

from tests.house._tree import modules, parse

KNOWN = modules()
# modules that are run, or imported only for their effect, offer nothing by name
WITH_EXPORTS = [name for name in KNOWN if not name.endswith("__main__")]


def in_order(names: list[str]) -> list[str]:
    """Constants, then classes, then the rest; numbers by value."""

    def key(name: str) -> tuple[int, list[tuple[int, int | str]]]:
        kind = 0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2
        parts = [part for part in re.split(r"(\d+)", name) if part]
        return kind, [(0, int(part)) if part.isdigit() else (1, part) for part in parts]

    return sorted(names, key=key)


@pytest.mark.parametrize("name", WITH_EXPORTS)
def test_all_is_sorted_and_true(name: str) -> None:
    module = importlib.import_module(name)
    assert hasattr(module, "__all__"), f"{name} has no __all__"
    offered = list(module.__all__)
    assert offered == in_order(offered)
    assert len(set(offered)) == len(offered)
    assert [item for item in offered if not hasattr(module, item)] == []


@pytest.mark.parametrize("name", WITH_EXPORTS)
def test_everything_public_that_is_defined_is_in_all(name: str) -> None:
    defined = {
        node.name
        for node in parse(KNOWN[name]).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    }
    assert defined - set(importlib.import_module(name).__all__) == set()


FAMILIES = (
    "harness.attacks",
    "harness.audit.checks",
    "harness.cli",
    "harness.datasets",
    "harness.models",
    "harness.models.norm_layers",
    "harness.models.sources",
    "harness.regimes",
    "harness.results.formats",
    "harness.suites",
    "harness.threat.norms",
)


@pytest.mark.parametrize(
    "name",
    [name for name, path in KNOWN.items() if name.rpartition(".")[0] in FAMILIES and path.name[0] != "_"],
)
def test_a_family_member_offers_its_own_name(name: str) -> None:
    """One file, one member: ``foo_bar.py`` defines ``foo_bar``, and says what it is in its first line."""
    module, member = importlib.import_module(name), name.rpartition(".")[2]
    assert hasattr(module, member), f"{name} defines no {member}"
    assert member in module.__all__
    first = (module.__doc__ or "").partition("\n")[0]
    assert len(first) > 15
    assert first.endswith(".")
