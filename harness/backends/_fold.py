"""Batch norms folded into the convolutions before them."""

from __future__ import annotations

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from harness.backends._graph import BATCH_NORMS, CONVOLUTIONS, Calls, constant, replace

__all__ = ["fold"]


def fold(model: nn.Module, graph: fx.Graph) -> int:
    """Fold batch norms into the convolutions before them, in place; returns how many.

    The graph only tells what feeds what. The model's own Python runs as before, so that a forward
    that tracing would freeze (a random draw, say) stays what it is.
    """
    calls, folded = Calls(model, graph), 0
    for node in graph.nodes:
        norm = calls.module(node, BATCH_NORMS)
        source = node.args[0] if norm is not None and node.args else None
        convolution = calls.module(source, CONVOLUTIONS)
        if not isinstance(source, fx.Node) or convolution is None or len(source.users) != 1:
            continue
        if not constant(norm) or norm.weight is None:
            continue
        moments, affine = (norm.running_mean, norm.running_var, norm.eps), (norm.weight, norm.bias)
        weight, bias = fuse_conv_bn_weights(convolution.weight, convolution.bias, *moments, *affine)
        convolution.weight, convolution.bias = weight.requires_grad_(False), bias.requires_grad_(False)
        replace(model, node, nn.Identity())
        folded += 1
    return folded
