"""Operations that are affine in the image: for the way back, a shape is all that has to be known, and no autograd."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.backends._graph import hooked

__all__ = ["Affine", "affine"]

Pull = Callable[[Tensor, torch.Size], Tensor]
"""The gradient of an input of some shape, from that of the output."""


class Affine(NamedTuple):
    """An operation, there and back."""

    there: Callable[[Tensor], Tensor]
    back: Pull


def affine(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Affine | None:
    """What an operation does to its first argument, if a way back is known for it.

    Args:
        target: a layer, a function, or the name of a tensor's method.
        args: what it is called with after its first argument; constants. kwargs: likewise.
    """
    layer = isinstance(target, nn.Module)
    rule = None if layer and hooked(target) else _RULES.get(type(target) if layer else target)
    try:
        back = None if rule is None else rule(target, *args, **kwargs)
    except TypeError:  # called in a way that the rule does not foresee
        return None
    if back is None:
        return None
    if isinstance(target, str):
        return Affine(lambda x: getattr(x, target)(*args, **kwargs), back)
    return Affine(lambda x: target(x, *args, **kwargs), back)


def _sum(function: Any, other: Any) -> Pull:
    return lambda grad, shape: grad.sum_to_size(shape)


def _product(function: Any, other: Any) -> Pull:
    return lambda grad, shape: function(grad, other).sum_to_size(shape)


def _linear(layer: nn.Linear) -> Pull:
    return lambda grad, shape: grad.to(layer.weight.dtype) @ layer.weight


def _rearrangement(target: Any, *args: Any, **kwargs: Any) -> Pull:
    return lambda grad, shape: grad.reshape(shape)


def _mean(target: Any, dim: Any, keepdim: bool = False) -> Pull:
    dims = [dim] if isinstance(dim, int) else dim

    def back(grad: Tensor, shape: torch.Size) -> Tensor:
        kept = list(shape)
        for place in dims:
            kept[place] = 1
        return (grad * (torch.Size(kept).numel() / shape.numel())).reshape(kept).expand(shape)

    return back


def _to_a_pixel(function: Any, output_size: Any) -> Pull | None:
    return _mean(function, (-2, -1), keepdim=True) if output_size in (1, (1, 1)) else None


def _pad(function: Any, pad: Any, mode: str = "constant", value: Any = None) -> Pull | None:
    if mode != "constant" or min(pad) < 0:
        return None

    def back(grad: Tensor, shape: torch.Size) -> Tensor:
        for place, before in enumerate(pad[::2], start=1):  # from the last dimension on
            grad = grad.narrow(-place, before, shape[-place])
        return grad

    return back


def _pool(
    function: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Pull:
    sizes = (kernel_size, stride or kernel_size, padding)
    window, step, pad = ([size, size] if isinstance(size, int) else list(size) for size in sizes)

    def back(grad: Tensor, shape: torch.Size) -> Tensor:
        # nothing but its shape and layout is looked at
        image = torch.empty(shape, dtype=grad.dtype, memory_format=torch.channels_last)
        pulled: Tensor = torch.ops.aten.avg_pool2d_backward(
            grad, image, window, step, pad, ceil_mode, count_include_pad, divisor_override
        )
        return pulled

    return back


def _pool_layer(layer: nn.AvgPool2d) -> Pull:
    sizes = layer.kernel_size, layer.stride, layer.padding
    return _pool(layer, *sizes, layer.ceil_mode, layer.count_include_pad, layer.divisor_override)


_RULES: dict[Any, Callable[..., Pull | None]] = {
    operator.add: _sum,
    operator.sub: _sum,
    operator.mul: _product,
    operator.truediv: _product,
    F.pad: _pad,
    F.avg_pool2d: _pool,
    nn.AvgPool2d: _pool_layer,
    F.adaptive_avg_pool2d: _to_a_pixel,
    nn.AdaptiveAvgPool2d: lambda layer: _to_a_pixel(layer, layer.output_size),
    "mean": _mean,
    nn.Linear: _linear,
    **dict.fromkeys(("view", "reshape", "flatten", "squeeze", torch.flatten, nn.Flatten), _rearrangement),
}
