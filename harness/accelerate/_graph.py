"""The wiring of a network: which module and function feeds which."""

from __future__ import annotations

import operator
from collections import Counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

__all__ = ["BATCH_NORMS", "CONVOLUTIONS", "PURE_MODULES", "Calls", "Shapes", "constant", "hooked", "is_pure",
           "output_shapes", "replace", "settle_sizes", "slope_of", "wiring"]  # fmt: skip

Shapes = dict[fx.Node, tuple[int, ...]]
"""Shapes of nodes' outputs for two images."""

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

# what is known to be a function of its input alone in eval mode, so that a traced graph says it all
PURE_MODULES = {
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
_ON_SIZES = {operator.add, operator.sub, operator.mul, operator.floordiv, operator.neg}
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
            module = modules[str(node.target)]
            return type(module) in PURE_MODULES and "forward" not in vars(module)
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


def output_shapes(model: nn.Module, graph: fx.Graph, shape: tuple[int, ...]) -> Shapes:
    """The shapes that two images of ``shape`` ``(C, H, W)`` give; nothing where they cannot be passed."""
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    images = torch.zeros((2, *shape), dtype=like.dtype, device=like.device)
    modules: dict[str, Any] = dict(model.named_modules())
    values: dict[fx.Node, Any] = {}

    def output(node: fx.Node) -> Any:
        if node.op == "placeholder":
            return images
        if node.op == "get_attr":
            return operator.attrgetter(str(node.target))(model)
        args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        function: Any = modules[str(node.target)] if node.op == "call_module" else node.target
        return function(*args, **kwargs)

    try:
        with torch.no_grad():
            for node in graph.nodes:
                values[node] = output(node) if node.op != "output" else None
    except Exception:  # whatever a user's network raises on zeros, it is attacked without this
        return {}
    return {node: tuple(value.shape) for node, value in values.items() if isinstance(value, Tensor)}


def settle_sizes(graph: fx.Graph, shapes: Shapes) -> None:
    """Put numbers where a graph asks for the sizes of one image, and where it calculates with them."""
    values: dict[fx.Node, Any] = {}
    for node in list(graph.nodes):
        node.args, node.kwargs = fx.map_arg((node.args, node.kwargs), lambda arg: values.get(arg, arg))
        number = _size(node, shapes)
        if number is None and node.target in _ON_SIZES and not node.all_input_nodes:
            number = node.target(*node.args)
        if number is not None:
            values[node] = number
    for node in reversed(list(graph.nodes)):
        if not node.users and (node in values or node.target in (getattr, "size")):
            graph.erase_node(node)


def _size(node: fx.Node, shapes: Shapes) -> int | None:
    """The number that a node asks for, if that is ``x.size(i)`` or ``x.shape[i]`` of an image; else None."""
    place: Any = node.args[-1] if len(node.args) == 2 else None
    asked: Any = node if node.target == "size" else node.args[0] if node.target is operator.getitem else None
    if place is None or not isinstance(asked, fx.Node):
        return None
    if asked.target == "size" and len(asked.args) == (2 if asked is node else 1):
        source: Any = asked.args[0]
    elif asked.target is getattr and asked.args[1] == "shape":
        source = asked.args[0]
    else:
        return None
    shape = shapes.get(source, ())
    # two images were passed; the first size is that of the batch
    among = (*range(1, len(shape)), *range(1 - len(shape), 0))
    return shape[place] if shape[:1] == (2,) and place in among else None


def constant(norm: Any) -> bool:
    """Whether a batch norm is a fixed affine map: eval mode, with running statistics."""
    return not norm.training and norm.running_mean is not None and norm.running_var is not None


def replace(model: nn.Module, node: fx.Node, module: nn.Module) -> None:
    parent, _, leaf = str(node.target).rpartition(".")
    setattr(operator.attrgetter(parent)(model) if parent else model, leaf, module.eval())
