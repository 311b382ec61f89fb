"""All tensors of a file under one kind of name, however they are nested in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.errors import CheckpointError
from harness.util.text import printable
from harness.weights import StoredTensor, Value, kind_of

__all__ = ["Holdings", "holdings", "renamed"]

_DEPTH = 32
_VISITS = 2_000_000
_TENSORS = 100_000
_NAME = 1000
_PARTS = 60
_CONTAINERS = (dict, list, tuple)


@dataclass(frozen=True)
class Holdings:
    """What a file holds; dictionaries and lists in it become parts of dotted names.

    Attributes:
        tensors: by name. others: what other entries of dictionaries are, by name. entries: names of the
            dictionaries and lists with tensors in them, "" for the file itself.
    """

    tensors: Mapping[str, StoredTensor]
    others: Mapping[str, str]
    entries: frozenset[str]

    def entry_of(self, prefix: str) -> str:
        """The innermost entry that all names with this prefix lie in."""
        at = prefix.removesuffix(".")
        while at not in self.entries and at:
            at = at.rpartition(".")[0]
        return at


def holdings(value: Value, where: str) -> Holdings:
    """Go through everything that a file holds.

    Raises:
        CheckpointError: it is nested so deeply, or has so many or so long names, that it is no checkpoint, or two
            tensors have the same dotted name.
    """
    if type(value) not in _CONTAINERS:
        raise CheckpointError(f"{where} holds {printable(kind_of(value))}, expected a dictionary of names and tensors")
    tensors: dict[str, StoredTensor] = {}
    others: dict[str, str] = {}
    entries = {""}
    waiting: list[tuple[str, int, Value]] = [("", 0, value)]
    visits = 0
    while waiting:
        entry, depth, held = waiting.pop()
        pairs = held.items() if type(held) is dict else enumerate(held)
        begin = f"{entry}." if entry else ""
        deeper: list[tuple[str, int, Value]] = []
        for key, inner in pairs:
            visits += 1
            if type(inner) in _CONTAINERS:
                deeper.append((f"{begin}{key}", depth + 1, inner))
            elif isinstance(inner, StoredTensor):
                name = f"{begin}{key}"
                if name in tensors:
                    raise CheckpointError(f"{where} holds two tensors named {printable(name)}")
                tensors[name] = inner
                entries.add(entry)
            elif type(held) is dict:
                others[f"{begin}{key}"] = kind_of(inner)
        if visits > _VISITS or depth > _DEPTH or len(tensors) > _TENSORS or len(entry) > _NAME:
            raise CheckpointError(f"{where} is nested more deeply, or holds more, than a file of weights does")
        waiting += reversed(deeper)
    if any(len(name) > _NAME or name.count(".") > _PARTS for name in tensors):
        raise CheckpointError(f"{where} has a name of more than {_NAME} characters or {_PARTS} parts")
    return Holdings(tensors, others, frozenset(entries))


def renamed(held: Holdings, renames: Sequence[tuple[str, str]], where: str) -> Holdings:
    """Replace parts of names: ``("head.fc", "fc")`` wherever ``head.fc`` is one or more whole parts of a name.

    An empty new name takes the parts out.

    Raises:
        CheckpointError: no name has these parts, or two tensors would have the same name.
    """
    tensors = dict(held.tensors)
    for old, new in renames:
        # whole parts only: "fc" is no part of "fc1.weight"
        parts = re.compile(rf"(?<![^.]){re.escape(old)}(\.|$)")
        now_named: dict[str, StoredTensor] = {}
        for name, tensor in tensors.items():
            found = parts.search(name)
            inside = f"{new}{found[1]}" if found and new else ""
            now = f"{name[: found.start()]}{inside}{name[found.end() :]}".strip(".") if found else name
            if now in now_named:
                raise CheckpointError(f"{where}: with --rename {old}={new} two tensors are named {printable(now)}")
            now_named[now] = tensor
        if now_named.keys() == tensors.keys():
            raise CheckpointError(f"{where}: no name has the part {old!r} that --rename {old}={new} is for")
        tensors = now_named
    return Holdings(tensors, held.others, held.entries)
