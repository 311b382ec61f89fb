"""Facts of BN layers that make their outputs doubtful."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeGuard

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from harness.audit import kinds
from harness.audit.flags import Flag
from harness.audit.subject import Subject

__all__ = ["batch_norm"]

_TINY_VARIANCE = 1e-8


def batch_norm(subject: Subject) -> Iterator[Flag]:
    """Look at running statistics; no passes are made."""
    layers = {name or type(module).__name__: module for name, module in subject.model.named_modules() if _is_bn(module)}
    missing = [name for name, layer in layers.items() if layer.running_mean is None]
    never = [name for name, layer in layers.items() if _is_trained(layer) and _as_new(layer)]
    tiny = [name for name, layer in layers.items() if _collapsed(layer.running_var)]
    if missing:
        yield kinds.BN_NO_STATISTICS(names=_listed(missing))
    if never:
        yield kinds.BN_NEVER_UPDATED(names=_listed(never))
    if tiny:
        yield kinds.BN_TINY_VARIANCE(names=_listed(tiny))


def _is_bn(module: nn.Module) -> TypeGuard[_BatchNorm]:
    return isinstance(module, _BatchNorm)


def _as_new(layer: _BatchNorm) -> bool:
    mean, variance = layer.running_mean, layer.running_var
    return mean is not None and variance is not None and bool((mean == 0).all() and (variance == 1).all())


def _is_trained(layer: _BatchNorm) -> bool:
    """Whether the affine part is another than those that networks are begun with (all 1, or all 0)."""
    weight, bias = layer.weight, layer.bias
    if weight is None or weight.numel() < 2:
        return False
    return bool((weight != weight[0]).any()) or bool((bias != 0).any())


def _collapsed(variance: Tensor | None) -> bool:
    return variance is not None and float((variance < _TINY_VARIANCE).double().mean()) >= 0.5


def _listed(names: Iterable[str]) -> str:
    shown = list(names)
    return ", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")
