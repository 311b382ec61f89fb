"""The wiring of a network: which module and function feeds which."""

from __future__ import annotations

import operator
from collections import Counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

__all__ = ["BATCH_NORMS", "CONVOLUTIONS", "Calls", "constant", "hooked", "is_pure", "is_pure_layer", "replace",
           "slope_of", "wiring"]  # fmt: skip

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

# what is known to be a function of its input alone in eval mode, so that a traced graph says it all
_PURE_MODULES = {
    *BATCH_NORMS,
    *CONVOLUTIONS,
    *(nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Softplus),
    *(nn.Linear, nn.Flatten, nn.Identity, nn.Dropout, nn.GroupNorm, nn.LayerNorm),
    *(nn.AvgPool2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d),
}
_PURE_FUNCTIONS = {
    *(operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.neg, operator.getitem),
    *(getattr, torch.flatten, torch.cat, torch.relu, torch.tanh, torch.sigmoid),
    *(F.relu, F.leaky_relu, F.silu, F.gelu, F.pad, F.avg_pool2d, F.max_pool2d, F.adaptive_avg_pool2d),
}
_PURE_METHODS = {"mean", "sum", "view", "flatten", "reshape", "size", "contiguous", "relu", "tanh", "squeeze"}


def wiring(model: nn.Module) -> fx.Graph | None:
    """Which module and function feeds which, or None where Python decides that from the data."""
    try:
        return fx.Tracer().trace(model)
    except Exception:  # tracing runs the user's code on placeholders, which may fail in any way
        return None


class Calls:
    """The modules of a traced model, and which nodes call one that is called nowhere else."""

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        self.modules: dict[str, Any] = dict(model.named_modules())
        self.counts = Counter(node.target for node in graph.nodes if node.op == "call_module")

    def module(self, node: Any, kinds: tuple[type[nn.Module], ...]) -> Any:
        """The module that ``node`` alone calls, if it is exactly of one of ``kinds``; else None."""
        if not isinstance(node, fx.Node) or node.op != "call_module" or self.counts[node.target] != 1:
            return None
        module = self.modules[str(node.target)]
        # it would go with the module
        return module if type(module) in kinds and not hooked(module) else None


def is_pure(model: nn.Module, graph: fx.Graph) -> bool:
    """Whether the graph is the whole truth: nothing in it draws numbers, keeps state, or was frozen by tracing."""
    modules: dict[str, Any] = dict(model.named_modules())

    def known(node: fx.Node) -> bool:
        if node.op == "call_module":
            return is_pure_layer(modules[str(node.target)])
        if node.op == "call_function":
            return node.target in _PURE_FUNCTIONS
        if node.op == "call_method":
            return node.target in _PURE_METHODS
        return node.op in ("placeholder", "output") or (
            node.op == "get_attr" and not str(node.target).startswith("_tensor_constant")
        )

    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    fixed = not hooked(model) and not any(module.training for module in modules.values())
    return len(inputs) == 1 and all(map(known, graph.nodes)) and fixed


def is_pure_layer(module: nn.Module) -> bool:
    """Whether a module is one of torch's own that are functions of their input, with torch's own forward."""
    return type(module) in _PURE_MODULES and "forward" not in vars(module)


def hooked(module: nn.Module) -> bool:
    """Whether there is code of the user around a module."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)


def slope_of(calls: Calls, node: fx.Node) -> float | None:
    """The slope of a (leaky) ReLU below zero, if ``node`` is one."""
    if node.op == "call_function" and node.target in (F.relu, torch.relu):
        return 0.0
    if node.op == "call_function" and node.target is F.leaky_relu:
        slope = node.args[1] if len(node.args) > 1 else node.kwargs.get("negative_slope", 0.01)
        return float(slope) if isinstance(slope, (int, float)) and slope >= 0 else None
    if node.op == "call_module":
        module = calls.modules[str(node.target)]
        if hooked(module):
            return None
        if type(module) is nn.ReLU:
            return 0.0
        if type(module) is nn.LeakyReLU and module.negative_slope >= 0:
            return float(module.negative_slope)
    return None


def constant(norm: Any) -> bool:
    """Whether a batch norm is a fixed affine map: eval mode, with running statistics."""
    return not norm.training and norm.running_mean is not None and norm.running_var is not None


def replace(model: nn.Module, node: fx.Node, module: nn.Module) -> None:
    parent, _, leaf = str(node.target).rpartition(".")
    setattr(operator.attrgetter(parent)(model) if parent else model, leaf, module.eval())
