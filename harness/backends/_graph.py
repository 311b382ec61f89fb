"""Which module and function of a network feeds which, by torch.fx."""

from __future__ import annotations

import operator
from collections import Counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

__all__ = ["BATCH_NORMS", "CONVOLUTIONS", "Calls", "is_pure", "slope_of", "traced"]

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

# Functions of their input alone in eval mode, so that a traced graph is all there is to know.
_PURE_MODULES = {
    *BATCH_NORMS,
    *CONVOLUTIONS,
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Softplus),
    *(nn.Hardswish, nn.Hardsigmoid, nn.Linear, nn.Flatten, nn.Identity, nn.Dropout, nn.GroupNorm, nn.LayerNorm),
    *(nn.AvgPool2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d),
}
_PURE_FUNCTIONS = {
    *(operator.add, operator.iadd, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.neg),
    *(operator.getitem, getattr, torch.flatten, torch.cat, torch.relu, torch.tanh, torch.sigmoid),
    *(F.relu, F.leaky_relu, F.silu, F.gelu, F.pad, F.avg_pool2d, F.max_pool2d, F.adaptive_avg_pool2d),
}
_PURE_METHODS = {"mean", "sum", "view", "flatten", "reshape", "size", "contiguous", "relu", "tanh", "squeeze"}


def traced(network: nn.Module) -> fx.Graph | None:
    """The graph of a network, or None where Python decides it from the data."""
    try:
        return fx.Tracer().trace(network)
    except Exception:  # tracing runs the user's code on placeholders, which may fail in any way
        return None


class Calls:
    """The modules of a traced network, and which nodes call one that is called nowhere else."""

    def __init__(self, network: nn.Module, graph: fx.Graph) -> None:
        self.modules: dict[str, Any] = dict(network.named_modules())
        self.counts = Counter(node.target for node in graph.nodes if node.op == "call_module")

    def module(self, node: Any, kinds: tuple[type[nn.Module], ...]) -> Any:
        """The module that ``node`` alone calls, if it is exactly of one of ``kinds`` and in eval mode; else None."""
        if not isinstance(node, fx.Node) or node.op != "call_module" or self.counts[node.target] != 1:
            return None
        module = self.modules[str(node.target)]
        return module if type(module) in kinds and not module.training and not _changed_by_user(module) else None


def is_pure(network: nn.Module, graph: fx.Graph) -> bool:
    """Whether the graph is all there is: nothing draws numbers, keeps state, or was a constant only to tracing."""
    modules: dict[str, Any] = dict(network.named_modules())

    def known(node: fx.Node) -> bool:
        if node.op == "call_module":
            module = modules[str(node.target)]
            return type(module) in _PURE_MODULES and not _changed_by_user(module)
        if node.op == "call_function":
            return node.target in _PURE_FUNCTIONS
        if node.op == "call_method":
            return node.target in _PURE_METHODS
        return node.op != "get_attr" or not str(node.target).startswith("_tensor_constant")

    inputs = sum(node.op == "placeholder" for node in graph.nodes)
    untouched = not any(_hooked(module) or module.training for module in modules.values())
    return inputs == 1 and all(map(known, graph.nodes)) and untouched


def slope_of(calls: Calls, node: fx.Node) -> float | None:
    """The slope below zero of a (leaky) ReLU, if ``node`` is one."""
    if node.op == "call_function" and node.target in (F.relu, torch.relu):
        return 0.0
    if node.op == "call_function" and node.target is F.leaky_relu:
        slope = node.args[1] if len(node.args) > 1 else node.kwargs.get("negative_slope", 0.01)
        return float(slope) if isinstance(slope, (int, float)) and slope >= 0 else None
    module = calls.modules[str(node.target)] if node.op == "call_module" else None
    if type(module) is nn.ReLU:
        return 0.0
    if type(module) is nn.LeakyReLU and module.negative_slope >= 0:
        return float(module.negative_slope)
    return None


def _changed_by_user(module: nn.Module) -> bool:
    return "forward" in vars(module) or _hooked(module)


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)
