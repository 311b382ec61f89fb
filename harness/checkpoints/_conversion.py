"""Weights of other types than the architecture's."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from harness.checkpoints._tensors import is_counter
from harness.util.text import counted

__all__ = ["converted"]

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def converted(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Weights in the architecture's types, with BN's counters of batches where they are missing.

    Half precision is widened exactly; double precision is rounded where it has to be. Other types are left, to be
    refused.

    Returns:
        the tensors, and notes on what was changed.
    """
    held: dict[str, Tensor] = {}
    changed: dict[tuple[torch.dtype, torch.dtype], list[bool]] = {}
    notes: list[str] = []
    missing = [name for name in expected if is_counter(name) and name not in tensors]
    for name, tensor in tensors.items():
        wanted = expected[name].dtype
        held[name] = tensor
        if is_counter(name) and tensor.numel() == 1:
            # an average over a training run holds them as fractions
            held[name] = tensor.reshape(expected[name].shape).to(wanted)
        elif tensor.dtype != wanted and tensor.dtype in _FLOATS and wanted in _FLOATS:
            held[name] = tensor.to(wanted)
            changed.setdefault((tensor.dtype, wanted), []).append(torch.equal(held[name].to(tensor.dtype), tensor))
    for name in missing:
        held[name] = torch.zeros_like(expected[name])
    if missing:
        notes.append(f"set {len(missing)} missing BN batch counters to zero")
    for (before, after), exact in changed.items():
        how = "exactly" if all(exact) else f"rounding {exact.count(False)} of them"
        notes.append(f"converted {counted(len(exact), 'tensor')} from {_name(before)} to {_name(after)}, {how}")
    return held, notes


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
