"""Where in a file the weights of an architecture are, by one rule and no list of names.

A network is found wherever every name of the architecture's state dict follows one prefix with the right shape: in
any entry, behind any wrapper's prefix. What differs between the authors of checkpoints is only the prefix.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from harness.checkpoints._holdings import Holdings
from harness.checkpoints._proposal import proposed_renames
from harness.checkpoints._tensors import differences, is_counter, some
from harness.errors import CheckpointError
from harness.util.text import printable
from harness.weights import StoredTensor

__all__ = ["Match", "find_matches"]

_REPORTED = 3
_LOOKED_AT = 50
_SHARE = 0.25
_MOST = 0.75


@dataclass(frozen=True)
class Match:
    """A place in a file that has all the weights of the architecture.

    Attributes:
        prefix: what comes before every name. entry: the entry of the file that they lie in.
        tensors: under the architecture's names.
    """

    prefix: str
    entry: str
    tensors: Mapping[str, StoredTensor]

    @property
    def label(self) -> str:
        """What `--entry` calls it; "." is the file itself."""
        return self.prefix.removesuffix(".") or "."

    @property
    def wrapper(self) -> str:
        """The part of the prefix that is in the names of the entry."""
        return self.prefix.removeprefix(f"{self.entry}." if self.entry else "")


def find_matches(
    held: Holdings, expected: Mapping[str, Tensor], where: str, architecture: str, *, entry: str | None = None
) -> list[Match]:
    """All places in a file that have the weights of an architecture, shortest prefix first.

    Args:
        expected: the state dict of the architecture.
        where, architecture: what the file and the architecture are called in errors.
        entry: only those in or below this entry (``state_dict_ema``, ``a.b`` or ``a/b``), or behind this prefix.

    Raises:
        CheckpointError: there are none; the sentence says what is missing where.
    """
    required = _required(expected)
    counts = _prefixes(held.tensors, frozenset(required))
    if entry is not None:
        counts = _below(counts, held, entry, where)
    whole = [prefix for prefix, count in counts.items() if count == len(required)]
    matches = [
        Match(
            prefix,
            held.entry_of(prefix),
            {name: held.tensors[prefix + name] for name in expected if prefix + name in held.tensors},
        )
        for prefix in sorted(whole, key=lambda prefix: (len(prefix), prefix))
        if all(held.tensors[prefix + name].shape == expected[name].shape for name in required)
    ]
    if not matches:
        raise CheckpointError(f"{where} does not fit the architecture {architecture}: {_lack(held, expected, counts)}")
    exact = [match for match in matches if entry is not None and match.label == _dotted(entry)]
    return exact or matches


def _required(expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in expected.items() if not is_counter(name)}


def _prefixes(names: Iterable[str], wanted: frozenset[str]) -> Counter[str]:
    """How many of the wanted names there are behind each prefix."""
    counts: Counter[str] = Counter()
    for name in names:
        begin = 0
        while begin >= 0:
            if name[begin:] in wanted:
                counts[name[:begin]] += 1
            begin = name.find(".", begin) + 1 or -1
    return counts


def _dotted(entry: str) -> str:
    return entry.replace("/", ".").removesuffix(".") or "."


def _below(counts: Counter[str], held: Holdings, entry: str, where: str) -> Counter[str]:
    label = _dotted(entry)
    if label == ".":
        return Counter({"": counts[""]})
    below = f"{label}."
    if not any(name.startswith(below) for name in held.tensors):
        known = sorted(name for name in held.entries if name)
        raise CheckpointError(f"{where} has no entry {entry!r}, it has {some(known) or 'none'}")
    inside = {prefix: count for prefix, count in counts.items() if prefix.startswith(below)}
    return Counter(inside or {below: 0})


def _lack(held: Holdings, expected: Mapping[str, Tensor], counts: Counter[str]) -> str:
    """What the places that come nearest lack."""
    if not held.tensors:
        return f"it holds no tensors{_beside(held.others)}"
    fitting = {prefix: _fitting(held, expected, prefix) for prefix, _ in counts.most_common(_LOOKED_AT)}
    nearest = sorted(fitting, key=lambda prefix: (-fitting[prefix], len(prefix)))[:_REPORTED]
    if not nearest or fitting[nearest[0]] < _SHARE * len(expected):
        # a few names like "conv1.weight" are in every network; where most of them are, it was built with other
        # arguments, and else the largest entry is what must be meant
        named = [prefix for prefix, count in counts.most_common(1) if count >= _MOST * len(_required(expected))]
        nearest = named or [_largest_entry(held, counts)]
    reports = [
        _report(held, expected, prefix)
        for prefix in nearest
        if 2 * fitting.get(prefix, 0) >= fitting.get(nearest[0], 0)
    ]
    asked = "; say where the weights are with --entry, or what they are called with --rename OLD=NEW"
    return "; ".join(reports) + (proposed_renames(held, _required(expected), nearest[0]) or asked)


def _largest_entry(held: Holdings, counts: Counter[str]) -> str:
    """The prefix of the entry with the most tensors, of those below what was asked for."""
    sizes = Counter(held.entry_of(name) for name in held.tensors)
    below = [prefix for prefix in counts if counts[prefix] == 0]
    entries = [entry for entry, _ in sizes.most_common() if not below or f"{entry}.".startswith(below[0])]
    return f"{entries[0]}." if entries and entries[0] else ""


def _fitting(held: Holdings, expected: Mapping[str, Tensor], prefix: str) -> int:
    found = ((held.tensors.get(prefix + name), tensor.shape) for name, tensor in expected.items())
    return sum(tensor is not None and tensor.shape == shape for tensor, shape in found)


def _report(held: Holdings, expected: Mapping[str, Tensor], prefix: str) -> str:
    entry = held.entry_of(prefix)
    begin = f"{entry}." if entry else ""
    wrapper = prefix.removeprefix(begin)
    found = {
        name.removeprefix(prefix) if name.startswith(prefix) else name.removeprefix(begin): tensor
        for name, tensor in held.tensors.items()
        if name.startswith(begin)
    }
    needed = {name: tensor for name, tensor in expected.items() if not is_counter(name) or name in found}
    where = f"in {printable(entry)}" if entry else ""
    where += f" behind the prefix {printable(wrapper)!r}" if wrapper else ""
    wrong = [f"{name} is {held.others[prefix + name]}" for name in needed if prefix + name in held.others]
    listed = "; ".join([*differences(needed, found, types=False), *wrong[:_REPORTED]])
    return f"{where.strip()}: {listed}" if where else listed


def _beside(others: Mapping[str, str]) -> str:
    listed = some(f"{printable(name)} is {printable(kind)}" for name, kind in others.items())
    return f" ({listed})" if listed else ""
