"""Fewer sweeps over memory: norm and activation in one, sums and activations in place."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from harness.accelerate._graph import BATCH_NORMS, CONVOLUTIONS, Calls, Shapes, constant, replace, slope_of

__all__ = ["AffineActivation", "sweep"]


def sweep(model: nn.Module, graph: fx.Graph, shapes: Shapes, *, affine: bool) -> tuple[fx.GraphModule, int]:
    """Spare sweeps over memory: norm and activation in one, sums and activations in place.

    Args:
        shapes: of the graph's nodes, brought up to date; a sum of unknown shapes is left as it is.
        affine: merge norms with activations.

    Returns:
        The model as its graph, and how many operations were merged.
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
    graph.lint()
    return fx.GraphModule(model, graph), merged


def _fresh(calls: Calls, node: Any) -> bool:
    """Whether a node's output is a convolution's, which nothing else reads and no backward pass needs."""
    while isinstance(node, fx.Node) and len(node.users) == 1:
        if calls.module(node, CONVOLUTIONS) is not None:
            return True
        if calls.module(node, (nn.Identity,)) is None:
            return False
        node = node.args[0]
    return False


class AffineActivation(nn.Module):
    """A batch norm in eval mode and the (leaky) ReLU after it, in one sweep over memory each way."""

    scale: Tensor
    shift: Tensor
    zeros: Tensor
    ones: Tensor

    def __init__(self, norm: Any, slope: float) -> None:
        super().__init__()
        scale = (norm.running_var + norm.eps).rsqrt()
        scale = scale if norm.weight is None else norm.weight * scale
        shift = -norm.running_mean * scale
        shift = shift if norm.bias is None else norm.bias + shift
        self.register_buffer("scale", scale.detach().clone())
        self.register_buffer("shift", shift.detach().clone())
        self.register_buffer("zeros", torch.zeros_like(scale))
        self.register_buffer("ones", torch.ones_like(scale))
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return F.leaky_relu_(F.batch_norm(x, self.zeros, self.ones, self.scale, self.shift, eps=0.0), self.slope)
        out: Tensor = _AffineActivationFunction.apply(x, self.scale, self.shift, self.zeros, self.ones, self.slope)
        return out


class _AffineActivationFunction(torch.autograd.Function):
    # the batch-norm kernel scales channels many times faster than a product that broadcasts

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, zeros: Tensor, ones: Tensor, slope: float) -> Tensor:
        out = F.leaky_relu_(F.batch_norm(x, zeros, ones, scale, shift, eps=0.0), slope)
        ctx.save_for_backward(out, scale, zeros, ones)
        ctx.slope = slope
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        # the output has the sign of the activation's input, so the output is all that is kept
        out, scale, zeros, ones = ctx.saved_tensors
        back = torch.ops.aten.leaky_relu_backward(grad, out, ctx.slope, True)
        return F.batch_norm(back, zeros, ones, scale, zeros, eps=0.0), None, None, None, None, None
