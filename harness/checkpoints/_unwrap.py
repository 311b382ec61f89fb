"""From the many ways in which people store weights to a plain state dict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from harness.errors import CheckpointError
from harness.models import Normalization

__all__ = ["fit_names", "own_normalization", "settle_counters", "unwrap"]

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params", "ema", "model_ema")
_PREFIXES = ("module.", "model.", "_orig_mod.", "network.", "net.", "1.")
_MEANS = ("mean", "_mean", "mu")
_DEVIATIONS = ("std", "_std", "sigma")
_COUNTER = "num_batches_tracked"


def unwrap(held: Any, where: str, *, entry: str | None = None) -> Any:
    """The entry of a training checkpoint that holds the weights; what is none is returned as it is.

    Args:
        entry: its name, where there are several.

    Raises:
        CheckpointError: no such entry, or several that could be meant.
    """
    if not isinstance(held, Mapping):
        return held
    if entry is not None:
        if entry not in held:
            raise CheckpointError(f"{where} has no entry {entry!r}, it has {', '.join(map(str, held))}")
        return unwrap(held[entry], where)
    if any(isinstance(value, Tensor) for value in held.values()):
        return held
    candidates = [name for name in _WRAPPERS if isinstance(held.get(name), Mapping) and held[name]]
    if len(candidates) > 1:
        raise CheckpointError(
            f"{where} holds weights in {', '.join(candidates)}: say which of them to take with --entry"
        )
    return unwrap(held[candidates[0]], where) if candidates else held


def fit_names(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Take off the prefixes that wrappers put in front of every name, as long as the names do not fit yet.

    Returns:
        the tensors under their new names, and notes on what was done.
    """
    notes: list[str] = []
    named = dict(tensors)
    while not set(named) & set(expected):
        prefix = next((p for p in _PREFIXES if all(name.startswith(p) for name in named)), None)
        if prefix is None:
            break
        named = {name.removeprefix(prefix): tensor for name, tensor in named.items()}
        notes.append(f"took the prefix {prefix!r} off all names")
    return named, notes


def own_normalization(
    tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], channels: int
) -> tuple[dict[str, Tensor], Normalization | None, list[str]]:
    """Take out the constants of a normalisation that the file's model did itself (``normalize.mean``, ...).

    Returns:
        the other tensors, the normalisation (None if the file has none), the names that were taken out.
    """
    known = set(expected)
    found: dict[str, dict[str, str]] = {}
    for name, tensor in tensors.items():
        path, _, last = name.rpartition(".")
        kind = "mean" if last in _MEANS else "std" if last in _DEVIATIONS else None
        if kind and tensor.numel() in (1, channels) and not any(k == name or name.endswith(f".{k}") for k in known):
            found.setdefault(path, {})[kind] = name
    pairs = [pair for pair in found.values() if len(pair) == 2]
    if len(pairs) != 1:
        return dict(tensors), None, []
    (pair,) = pairs
    mean, std = (tensors[pair[kind]].double().reshape(-1).expand(channels).tolist() for kind in ("mean", "std"))
    rest = {name: tensor for name, tensor in tensors.items() if name not in pair.values()}
    return rest, Normalization(tuple(_short(v) for v in mean), tuple(_short(v) for v in std)), sorted(pair.values())


def _short(value: float) -> float:
    """The shortest decimal that is the same float32: people wrote 0.4914, the file holds 0.49140000343..."""
    single = torch.tensor(value, dtype=torch.float32)
    return next(
        short
        for digits in range(1, 18)
        if torch.tensor(short := float(f"{value:.{digits}g}"), dtype=torch.float32) == single
    )


def settle_counters(
    tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """Make up for BN's counters of batches, which old files lack and which evaluation never reads.

    Returns:
        the tensors with missing counters set to zero and those that the architecture lacks left out; notes.
    """
    settled = dict(tensors)
    missing = [name for name in expected if name.rpartition(".")[2] == _COUNTER and name not in tensors]
    surplus = [name for name in tensors if name.rpartition(".")[2] == _COUNTER and name not in expected]
    for name in missing:
        settled[name] = torch.zeros_like(expected[name])
    for name in surplus:
        del settled[name]
    notes = [f"set {len(missing)} missing BN batch counters to zero"] if missing else []
    notes += [f"left out {len(surplus)} BN batch counters that the architecture lacks"] if surplus else []
    return settled, notes
