"""Whether modules that behave otherwise in training are in train mode."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from harness.audit import kinds
from harness.audit.flags import Flag
from harness.audit.subject import Subject

__all__ = ["train_mode"]


def train_mode(subject: Subject) -> Iterator[Flag]:
    """Look at every module; no passes are made. Randomness is left in where the attacks average over it."""
    found = [
        f"{name or 'the model'} ({type(module).__name__})"
        for name, module in subject.model.named_modules()
        if module.training and (_uses_batch(module) or (_is_random(module) and not subject.expects_random))
    ]
    if found:
        yield kinds.TRAIN_MODE(names=", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else ""))


def _uses_batch(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm)


def _is_random(module: nn.Module) -> bool:
    """Dropout of any kind: of values, of paths, inside recurrent and attention layers."""
    if isinstance(module, _DropoutNd | nn.RReLU):
        return getattr(module, "p", 1.0) > 0
    if isinstance(module, nn.RNNBase | nn.MultiheadAttention):
        return module.dropout > 0
    if type(module).__name__ in ("DropPath", "StochasticDepth", "DropBlock2d"):
        return bool(getattr(module, "drop_prob", getattr(module, "p", 1.0)))
    return False
