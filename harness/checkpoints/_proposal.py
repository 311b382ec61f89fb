"""Which names of a file could be which of an architecture's, where the shapes leave no choice."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from harness.checkpoints._holdings import Holdings, renamed
from harness.errors import CheckpointError

__all__ = ["proposed_renames"]

_MOST = 12


def proposed_renames(held: Holdings, expected: Mapping[str, Tensor], prefix: str) -> str:
    """The options that would make the names fit, as the end of a sentence; empty where shapes do not say.

    Tensors are paired by shape and the last part of their names, those alike in the order in which they come.

    Args:
        prefix: behind which most of the expected names are.
    """
    entry = held.entry_of(prefix)
    begin = f"{entry}." if entry else ""
    missing = [name for name in expected if prefix + name not in held.tensors]
    spare = [
        name
        for name in held.tensors
        if name.startswith(begin) and not (name.startswith(prefix) and name.removeprefix(prefix) in expected)
    ]
    wanted: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    offered: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for name in missing:
        wanted.setdefault((name.rpartition(".")[2], tuple(expected[name].shape)), []).append(name)
    for name in spare:
        offered.setdefault((name.rpartition(".")[2], held.tensors[name].shape), []).append(name)
    if not missing or any(len(offered.get(key, ())) != len(names) for key, names in wanted.items()):
        return ""
    pairs = [(old, prefix + new) for key, names in wanted.items() for old, new in zip(offered[key], names, strict=True)]
    renames = list(dict.fromkeys(_shortened(old.removeprefix(begin), new.removeprefix(begin)) for old, new in pairs))
    if len(renames) > _MOST or not _works(held, expected, prefix, renames):
        return ""
    options = " ".join(f"--rename {old}={new}" for old, new in renames)
    sure = "leave no other choice" if all(len(names) == 1 for names in wanted.values()) else "and their order agree"
    return f"; to take them for one another, as shapes {sure}: {options}"


def _shortened(old: str, new: str) -> tuple[str, str]:
    """Without the parts at their ends that are the same."""
    before, after = old.split("."), new.split(".")
    while len(before) > 1 and after and before[-1] == after[-1]:
        before.pop()
        after.pop()
    return ".".join(before), ".".join(after)


def _works(held: Holdings, expected: Mapping[str, Tensor], prefix: str, renames: list[tuple[str, str]]) -> bool:
    try:
        now = renamed(held, renames, "").tensors
    except CheckpointError:
        return False
    ends = [prefix, ""]
    return any(
        all(begin + name in now and now[begin + name].shape == tensor.shape for name, tensor in expected.items())
        for begin in ends
    )
