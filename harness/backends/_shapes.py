"""What shapes a network works in: noted while its modules are called, and found for the nodes of its graph."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.module import register_module_forward_hook

__all__ = ["Noted", "Shapes", "noted", "output_shapes", "settle_sizes"]

Shapes = dict[fx.Node, tuple[int, ...]]
"""Shapes of nodes' outputs."""

# what returns something of the shape of its one image
_POINTWISE = {F.relu, F.leaky_relu, F.silu, F.gelu, torch.relu, torch.tanh, torch.sigmoid}
_ON_SIZES = {operator.add, operator.sub, operator.mul, operator.floordiv, operator.neg}


@dataclass
class Noted:
    """What shapes the modules of a network return for some images.

    Attributes:
        images: their shape, ``(m, ...)``.
        outputs: by the name of a module, the shapes of its outputs, in the order of its calls.
    """

    images: tuple[int, ...]
    outputs: dict[str, list[tuple[int, ...]]] = field(default_factory=dict)

    @property
    def widest(self) -> int:
        """How many numbers a module returns for an image at most."""
        shapes = [shape for calls in self.outputs.values() for shape in calls]
        return max((torch.Size(shape).numel() // self.images[0] for shape in shapes), default=0)


@contextmanager
def noted(model: nn.Module, images: Tensor) -> Iterator[Noted]:
    """Note what the modules of ``model`` return while ``images`` are passed inside."""
    names = {module: name for name, module in model.named_modules()}
    seen = Noted(tuple(images.shape))

    def note(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and module in names:
            seen.outputs.setdefault(names[module], []).append(tuple(output.shape))

    hook = register_module_forward_hook(note)
    try:
        yield seen
    finally:
        hook.remove()


def output_shapes(model: nn.Module, graph: fx.Graph, seen: Noted) -> Shapes:
    """The shapes of the nodes of a pure graph; nothing where it tells of other calls than were seen.

    No pass is made: modules are known by what they returned, and only what lies between them is done, with numbers that
    mean nothing.
    """
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    calls = {name: iter(shapes) for name, shapes in seen.outputs.items()}
    values: dict[fx.Node, Any] = {}

    def output(node: fx.Node) -> Any:
        if node.op == "placeholder":
            return like.new_empty(seen.images)
        if node.op == "get_attr":
            return operator.attrgetter(str(node.target))(model)
        if node.op == "call_module":
            return like.new_empty(next(calls[str(node.target)]))
        if node.target in _POINTWISE:
            return values[node.all_input_nodes[0]]
        args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        function: Any = node.target
        return function(*args, **kwargs)

    try:
        with torch.no_grad():
            for node in graph.nodes:
                values[node] = output(node) if node.op != "output" else None
    except Exception:  # calls that were not seen, or whatever sizes of another course raise
        return {}
    told = {str(node.target) for node in graph.nodes if node.op == "call_module"}
    if any(next(calls[name], None) is not None for name in told):
        return {}
    return {node: tuple(value.shape) for node, value in values.items() if isinstance(value, Tensor)}


def settle_sizes(graph: fx.Graph, shapes: Shapes, images: int) -> None:
    """Put numbers where a graph asks for the sizes of one image, and where it calculates with them.

    Args:
        shapes: of the nodes, for so many ``images``.
    """
    values: dict[fx.Node, Any] = {}
    for node in list(graph.nodes):
        node.args, node.kwargs = fx.map_arg((node.args, node.kwargs), lambda arg: values.get(arg, arg))
        number = _size(node, shapes, images)
        if number is None and node.target in _ON_SIZES and not node.all_input_nodes:
            number = node.target(*node.args)
        if number is not None:
            values[node] = number
    for node in reversed(list(graph.nodes)):
        if not node.users and (node in values or node.target in (getattr, "size")):
            graph.erase_node(node)


def _size(node: fx.Node, shapes: Shapes, images: int) -> int | None:
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
    # the first size is that of the batch
    among = (*range(1, len(shape)), *range(1 - len(shape), 0))
    return shape[place] if shape[:1] == (images,) and place in among else None
