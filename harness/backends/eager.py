"""A frozen copy of the model: batch norms folded, activations in place, channels last, bfloat16 where wanted.

Attacks change the images and never the weights. So the copy keeps no gradients of weights; in eval mode a batch norm is
a fixed affine map per channel, which goes into the convolution before it, or else becomes one multiply-add; an
activation overwrites its input where nothing else needs that; and convolutions get the memory format in which they are
fastest. The copy must be compared with the model before it is used (`harness.backends.equivalence`).
"""

from __future__ import annotations

import copy
import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from harness.backends._base import Backend
from harness.backends._graph import BATCH_NORMS, CONVOLUTIONS, Calls, is_pure, slope_of, traced

__all__ = ["eager"]


def eager(model: nn.Module, *, precision: str) -> Backend:
    """A faster copy of ``model``.

    Args:
        model: in eval mode, on its device, the same output for the same images; it is not changed.
        precision: fp32, tf32 or bf16.

    Raises:
        Exception: whatever something that the model holds says against being copied.
    """
    # the copy's parameters share the memory of the model's
    frozen: dict[int, Any] = {id(held): nn.Parameter(held.detach(), False) for held in model.parameters()}
    network = copy.deepcopy(model, frozen)
    notes = ["eager"]
    graph = traced(network)
    whole = graph is not None and is_pure(network, graph)
    if graph is not None:
        folded = _fold(network, graph)
        notes += [f"folded-bn:{folded}"] if folded else []
    if graph is not None and whole:
        # in bfloat16 torch's own batch norm is the faster one
        merged = _merge(network, graph, affine=precision != "bf16")
        notes += [f"in-place:{merged}"] if merged else []
        network = fx.GraphModule(network, graph)
    layout = torch.contiguous_format
    convolves = any(isinstance(module, nn.Conv2d) and module.in_channels > 1 for module in network.modules())
    # a GPU's convolutions in full float32 are slower in channels_last
    slower = precision == "fp32" and any(held.is_cuda for held in network.parameters())
    if convolves and not slower:
        layout = torch.channels_last
        network = network.to(memory_format=layout)
        notes.append("channels_last")
    if precision == "tf32":
        notes.append("tf32")
    if precision == "bf16":
        network = _Autocast(network)
        notes.append("bf16-autocast")
    return Backend(network, layout, tuple(notes), precision)


def _fold(network: nn.Module, graph: fx.Graph) -> int:
    """Fold batch norms into the convolutions before them, in place; returns how many.

    The graph only tells which module feeds which; the network's own Python may go on calling them.
    """
    calls, folded = Calls(network, graph), 0
    for node in graph.nodes:
        norm = calls.module(node, BATCH_NORMS)
        source = node.args[0] if norm is not None and node.args else None
        convolution = calls.module(source, CONVOLUTIONS)
        if not isinstance(source, fx.Node) or convolution is None or len(source.users) != 1:
            continue
        if norm.running_mean is None or norm.weight is None:
            continue
        moments, affine = (norm.running_mean, norm.running_var, norm.eps), (norm.weight, norm.bias)
        weight, bias = fuse_conv_bn_weights(convolution.weight, convolution.bias, *moments, *affine)
        convolution.weight, convolution.bias = weight.requires_grad_(False), bias.requires_grad_(False)
        _replace(network, node, nn.Identity())
        folded += 1
    return folded


def _merge(network: nn.Module, graph: fx.Graph, *, affine: bool) -> int:
    """Let sums and activations overwrite an input where nothing else reads it; returns how many.

    Args:
        affine: replace batch norms by multiply-adds, whose outputs may be overwritten too.
    """
    calls, merged = Calls(network, graph), 0
    for node in list(graph.nodes):
        norm = calls.module(node, BATCH_NORMS)
        if affine and norm is not None and norm.running_mean is not None:
            _replace(network, node, _Affine(norm))
        if node.op == "call_method" and node.target == "view":
            node.target = "reshape"  # a view may be impossible in channels_last
    calls = Calls(network, graph)
    for node in list(graph.nodes):
        slope, source = slope_of(calls, node), node.args[0] if node.args else None
        if not _overwritable(calls, source):
            continue
        if node.target in _SUMS:
            node.target = _add
            merged += 1
        elif slope is not None:
            with graph.inserting_before(node):
                in_place = graph.call_function(_activate, (source, slope))
            node.replace_all_uses_with(in_place)
            graph.erase_node(node)
            merged += 1
    return merged


def _add(a: Any, b: Any) -> Any:
    """The sum, in the memory of ``a`` where it fits."""
    tensors = isinstance(a, Tensor) and isinstance(b, Tensor)
    return a.add_(b) if tensors and a.shape == b.shape and a.dtype == b.dtype else a + b


def _activate(x: Tensor, slope: float) -> Tensor:
    """A (leaky) ReLU in place; that without a slope is the faster one."""
    return F.relu_(x) if slope == 0 else F.leaky_relu_(x, slope)


def _overwritable(calls: Calls, node: Any) -> bool:
    """Whether a node's output is read once and not needed by its own backward pass."""
    while isinstance(node, fx.Node) and len(node.users) == 1:
        if node.target in _SUMS or calls.module(node, (*CONVOLUTIONS, _Affine)) is not None:
            return True
        if calls.module(node, (nn.Identity,)) is None:
            return False
        node = node.args[0]
    return False


_SUMS = (operator.add, operator.iadd, _add)


def _replace(network: nn.Module, node: fx.Node, module: nn.Module) -> None:
    parent, _, leaf = str(node.target).rpartition(".")
    setattr(operator.attrgetter(parent)(network) if parent else network, leaf, module.eval())


class _Affine(nn.Module):
    """A batch norm in eval mode as one multiply-add per channel."""

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: Any) -> None:
        super().__init__()
        scale = (norm.running_var + norm.eps).rsqrt()
        scale = scale if norm.weight is None else norm.weight.detach() * scale
        shift = -norm.running_mean * scale
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift if norm.bias is None else norm.bias.detach() + shift)

    def forward(self, x: Tensor) -> Tensor:
        per_channel = (-1, *(1,) * (x.dim() - 2))
        return torch.addcmul(self.shift.view(per_channel), x, self.scale.view(per_channel))


class _Autocast(nn.Module):
    """The network in bfloat16 where torch says that this is good enough.

    Logits are compared with each other by attacks, so the last linear layer stays in float32.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        linear = [module for module in network.modules() if type(module) is nn.Linear]
        for module in network.modules():
            if isinstance(module, CONVOLUTIONS):
                module.to(torch.bfloat16)  # once, rather than in every pass
        for module in linear[-1:]:
            module.forward = _in_float32(module)  # type: ignore[method-assign]

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, dtype=torch.bfloat16, cache_enabled=False):
            logits: Tensor = self.network(x)
        return logits.float()


def _in_float32(layer: nn.Linear) -> Any:
    def forward(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x.float(), layer.weight, layer.bias)

    return forward
