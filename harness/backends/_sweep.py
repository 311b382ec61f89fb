"""Fewer sweeps over memory: norm and activation in one, sums and activations in place."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from harness.backends._graph import BATCH_NORMS, CONVOLUTIONS, Calls, constant, replace, slope_of
from harness.backends._shapes import Shapes

__all__ = ["AffineActivation", "activated", "activated_back", "per_pixel", "sweep"]


def sweep(model: nn.Module, graph: fx.Graph, shapes: Shapes, *, affine: bool) -> int:
    """Spare sweeps over memory: norm and activation in one, sums and activations in place.

    Args:
        model: its modules are changed; what it does from now on is what the graph says.
        shapes: of the graph's nodes, brought up to date; a sum of unknown shapes is left as it is.
        affine: merge norms with activations.

    Returns:
        How many operations were merged.
    """
    calls, merged = Calls(model, graph), 0
    for node in list(graph.nodes):
        slope = slope_of(calls, node)
        source = node.args[0] if node.args else None
        if slope is not None and isinstance(source, fx.Node) and len(source.users) == 1:
            norm = calls.module(source, BATCH_NORMS)
            if affine and norm is not None and constant(norm):
                replace(model, source, AffineActivation(norm, slope))
                node.replace_all_uses_with(source)
                graph.erase_node(node)
                merged += 1
            elif _fresh(calls, source):
                with graph.inserting_before(node):
                    in_place = graph.call_function(F.leaky_relu_, (source, slope))
                if node in shapes:
                    shapes[in_place] = shapes[node]
                node.replace_all_uses_with(in_place)
                graph.erase_node(node)
                merged += 1
        elif node.op == "call_method" and node.target == "view":
            node.target = "reshape"  # in another memory format a view may be impossible, and this is the same
        elif node.op == "call_function" and node.target is operator.add and _fresh(calls, source):
            # `_fresh` says that this sum is the only reader; in place it cannot grow, nor read what it writes
            other = node.args[1]
            if source is not other and source in shapes and shapes[source] == shapes.get(node):
                node.target = operator.iadd
                merged += 1
    return merged


def _fresh(calls: Calls, node: Any) -> bool:
    """Whether a node's output is a convolution's, which nothing else reads and no backward pass needs."""
    while isinstance(node, fx.Node) and len(node.users) == 1:
        if calls.module(node, CONVOLUTIONS) is not None:
            return True
        if calls.module(node, (nn.Identity,)) is None:
            return False
        node = node.args[0]
    return False


def activated(value: Tensor, slope: float) -> Tensor:
    """A (leaky) ReLU in place."""
    # the plain kernel for slope 0 is the faster one
    out: Tensor = torch.relu_(value) if slope == 0 else torch._C._nn.leaky_relu_(value, slope)
    return out


def activated_back(grad: Tensor, out: Tensor, slope: float) -> Tensor:
    """The gradient of a (leaky) ReLU's input from that of its output, in place; of ``out`` the signs are enough."""
    # in memory of its own it would take a third longer
    pulled: Tensor = torch.ops.aten.leaky_relu_backward.grad_input(grad, out, slope, True, grad_input=grad)
    return pulled


class AffineActivation(nn.Module):
    """A batch norm in eval mode and the (leaky) ReLU after it, in few sweeps over memory each way."""

    scale: Tensor
    shift: Tensor
    wide_scale: Tensor
    wide_shift: Tensor
    zeros: Tensor
    ones: Tensor

    def __init__(self, norm: Any, slope: float) -> None:
        super().__init__()
        with torch.no_grad():
            scale = (norm.running_var + norm.eps).rsqrt()
            scale = scale if norm.weight is None else norm.weight * scale
            shift = -norm.running_mean * scale
            shift = shift if norm.bias is None else norm.bias + shift
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)
        # shaped to meet images
        self.register_buffer("wide_scale", scale.view(1, -1, 1, 1))
        self.register_buffer("wide_shift", shift.view(1, -1, 1, 1))
        self.register_buffer("zeros", torch.zeros_like(scale))
        self.register_buffer("ones", torch.ones_like(scale))
        self.slope = slope
        self._spread: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return self.there(x)
        out: Tensor = _ThereAndBack.apply(x, self)
        return out

    def there(self, x: Tensor) -> Tensor:
        """The output, in memory of its own."""
        if self._broadcasts(x):
            out = torch.addcmul(self.wide_shift, x, self.wide_scale)
        else:
            out = F.batch_norm(x, self.zeros, self.ones, self.scale, self.shift, eps=0.0)
        return activated(out, self.slope)

    def back(self, grad: Tensor, before: Tensor | None = None) -> Tensor:
        """The gradient of the norm's input from that of its output, in place, added to what was there ``before``."""
        if before is not None and grad.dtype is before.dtype is torch.bfloat16 and _channels_lie_together(grad):
            # in bfloat16 a number per channel is slow to meet, and one per pixel is not
            return torch.addcmul(before, grad, self._per_pixel(grad), out=grad)
        if not self._broadcasts(grad):
            grad = F.batch_norm(grad, self.zeros, self.ones, self.scale, self.zeros, eps=0.0)
            return grad if before is None else grad.add_(before)
        if before is None:
            return grad.mul_(self.wide_scale)
        return torch.addcmul(before, grad, self.wide_scale, out=grad)

    def _broadcasts(self, x: Tensor) -> bool:
        """Whether plain arithmetic with a number per channel is fast, which it is where channels lie together.

        Elsewhere the batch-norm kernel is, which also takes images and parameters of different types.
        """
        return x.dtype is self.scale.dtype and _channels_lie_together(x)

    def _per_pixel(self, like: Tensor) -> Tensor:
        if self._spread is None or self._spread.shape[1:] != like.shape[1:]:
            self._spread = per_pixel(self.wide_scale.to(like.dtype), like.shape)
        return self._spread


def per_pixel(value: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A number per channel as one per pixel of images of ``shape [m, C, H, W]``, in their memory format."""
    return value.expand(1, *shape[1:]).contiguous(memory_format=torch.channels_last)


def _channels_lie_together(x: Tensor) -> bool:
    return x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)


class _ThereAndBack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, module: AffineActivation) -> Tensor:
        out = module.there(x)
        ctx.save_for_backward(out)
        ctx.module = module
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (out,) = ctx.saved_tensors
        # the output has the sign of the activation's input, so the output is all that has to be kept
        return ctx.module.back(torch.ops.aten.leaky_relu_backward(grad, out, ctx.module.slope, True)), None
