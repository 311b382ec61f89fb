"""A traced network as a list of steps, there and back.

What the convolutions take along is found in the graph here; no modules are called, and what has no kernel
(`harness.backends._steps`) is left to torch, autograd included.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.autograd.function import once_differentiable

from harness.backends._affine import Affine, affine
from harness.backends._graph import Calls, slope_of
from harness.backends._shapes import Shapes
from harness.backends._steps import (
    Chain,
    Convolution,
    Grads,
    Kernel,
    NormAndActivation,
    Other,
    Step,
    Trail,
    Values,
    can_pack,
)
from harness.backends._sweep import AffineActivation, per_pixel

__all__ = ["Kernels", "have_kernels"]

_ARITHMETIC = {operator.add, operator.sub, operator.mul, operator.truediv}


class Kernels(nn.Module):
    """A network made of steps.

    Args:
        network: its modules. graph: says all that it does with them.
        shapes: of the graph's nodes.

    Attributes:
        fused: convolutions that take along what follows them.
        pays: whether half of the steps are kernels; torch does the others about as fast by itself.
    """

    def __init__(self, network: nn.Module, graph: fx.Graph, shapes: Shapes) -> None:
        super().__init__()
        self.network = network
        self.fused = 0
        self._calls = Calls(network, graph)
        self._shapes = shapes
        self._in_bf16 = any(
            isinstance(module, nn.Conv2d) and module.weight.dtype is torch.bfloat16 for module in network.modules()
        )
        self._slots: dict[fx.Node, int] = {}
        self._initial: Values = []
        self._nodes = list(graph.nodes)
        self._ends = dict(self._chains())
        self._inside = {node for chain in self._ends.values() for node in chain[:-1]}
        self._end = {member: last for last, chain in self._ends.items() for member in chain}
        self._pads = {node: padded for node in self._end if (padded := self._padded(node)) is not None}
        for node, (pad, _, _) in self._pads.items():
            self._inside.add(pad)
            self._end[pad] = self._end[node]
        self._order = {node: position for position, node in enumerate(self._nodes)}
        steps: list[Step] = []
        for node in self._nodes:
            if node.op == "output":
                self._output = self._slots[node.args[0]]
            elif node.op in ("placeholder", "get_attr"):
                slot = self._slot(node)
                if node.op == "placeholder":
                    self._input = slot
                else:
                    self._initial[slot] = self._spread(node, operator.attrgetter(str(node.target))(network))
            elif node not in self._inside:
                step = self._fused(self._ends[node]) if node in self._ends else self._single(node)
                step.slot = self._slot(node)
                if not (steps and self._only_reads(node, steps[-1].slot) and steps[-1].then(step)):
                    steps.append(step)
        self._steps = steps
        self.pays = 2 * sum(isinstance(step, (Convolution, NormAndActivation)) for step in steps) >= len(steps)
        self._spent = self._last_uses()

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            out: Tensor = _ThereAndBack.apply(x, self)
            return out
        values = self._initial.copy()
        values[self._input] = x
        for step, spent in zip(self._steps, self._spent, strict=True):
            values[step.slot] = step.run(values)
            for slot in spent:
                values[slot] = None  # its memory is for the next step
        logits: Tensor = values[self._output]
        return logits

    def there(self, x: Tensor) -> tuple[Tensor, Trail]:
        """Logits, and the way back."""
        values = self._initial.copy()
        values[self._input] = x
        trail: Trail = []
        for step, spent in zip(self._steps, self._spent, strict=True):
            values[step.slot], back = step.record(values)
            trail.append((step.slot, back))
            for slot in spent:
                values[slot] = None
        return values[self._output], trail

    def back(self, trail: Trail, grad: Tensor, *, keep: bool) -> Tensor:
        """The gradient of the images from that of the logits; with ``keep`` it may be asked again."""
        trail = trail.copy() if keep else trail
        grads: Grads = [None] * len(self._initial)
        grads[self._output] = grad.clone()  # steps write where their gradients lie
        while trail:
            # taken off the trail, so that what this step kept is free for the next
            slot, back = trail.pop()
            out = grads[slot]
            grads[slot] = None
            if out is not None:
                back(out, grads)
        images = grads[self._input]
        if images is None:
            raise RuntimeError("the way back was taken before, or the output does not depend on the images")
        return images

    def _spread(self, node: fx.Node, value: Any) -> Any:
        """A constant per channel as one per pixel, where it only meets images: so it is met row by row in memory."""
        shapes = {self._shapes.get(user, ()) for user in node.users}
        meets = all(user.op == "call_function" and user.target in _ARITHMETIC for user in node.users)
        if not meets or len(shapes) != 1 or not isinstance(value, Tensor) or value.dim() < 3:
            return value
        (shape,) = shapes
        if len(shape) != 4 or (value.dim() == 4 and len(value) > 1):
            return value
        return per_pixel(value, shape)

    def _slot(self, node: fx.Node) -> int:
        self._slots[node] = len(self._initial)
        self._initial.append(None)
        return self._slots[node]

    def _chains(self) -> Iterator[tuple[fx.Node, list[fx.Node]]]:
        """Nodes that become one kernel, from a convolution to the last, by the last."""
        for node in self._nodes:
            convolution = self._calls.module(node, (nn.Conv2d,))
            if convolution is None or not can_pack(convolution):
                continue
            chain = [node]
            user = _only_user(node)
            while user is not None and self._calls.module(user, (nn.Identity,)) is not None:
                chain.append(user)
                user = _only_user(user)
            if user is not None and user.args[:1] == (chain[-1],) and self._can_take_along(user):
                chain.append(user)
                after = _only_user(user)
                if user.target is operator.iadd and after is not None and slope_of(self._calls, after) is not None:
                    chain.append(after)
            yield chain[-1], chain

    def _can_take_along(self, user: fx.Node) -> bool:
        if user.target is F.leaky_relu_:
            return True
        other = user.args[1] if user.target is operator.iadd else None
        return isinstance(other, fx.Node) and other in self._shapes and self._shapes[other] == self._shapes.get(user)

    def _fused(self, chain: list[fx.Node]) -> Step:
        first, last = chain[0], chain[-1]
        (source,) = first.all_input_nodes
        kernel = Kernel(self._calls.module(first, (nn.Conv2d,)), self._shapes[source], self._shapes[first])
        slope = float(last.args[1]) if last.target is F.leaky_relu_ else slope_of(self._calls, last)  # type: ignore[arg-type]
        other, place, into = None, None, False
        for total in chain:
            if total.target is operator.iadd:
                _, added, place = self._pads.get(total, (None, total.args[1], None))
                other = self._slots[added]  # type: ignore[index]
                into = total is last and self._is_free(added, last)
        self.fused += slope is not None or other is not None
        return Convolution(kernel, self._slots[source], slope, other, place, into)

    def _padded(self, total: fx.Node) -> tuple[fx.Node, fx.Node, tuple[int, int]] | None:
        """The pad, the image, its first channel and their number, where a sum in place adds channels amid zeros."""
        pad = total.args[1] if total.target is operator.iadd else None
        # in bfloat16 a sum inside the convolution, zeros included, is the faster one
        if not isinstance(pad, fx.Node) or pad.target is not F.pad or len(pad.users) != 1 or self._in_bf16:
            return None
        given: dict[str, Any] = {**dict(zip(("input", "pad", "mode", "value"), pad.args, strict=False)), **pad.kwargs}
        sizes, image, shape = given["pad"], given["input"], self._shapes.get(given["input"], ())
        with_zeros = given.get("mode", "constant") == "constant" and given.get("value") in (None, 0)
        if not with_zeros or len(shape) != 4 or len(sizes) != 6 or any(sizes[:4]):
            return None
        grows = all(isinstance(size, int) and size >= 0 for size in sizes)
        return (pad, image, (sizes[4], shape[1])) if grows else None

    def _is_free(self, node: Any, reader: fx.Node) -> bool:
        """Whether ``reader`` may write over a node's output: a sum, which no way back keeps, that all others have read.

        Those others must be kernels that make something new of it, not views.
        """
        others = [user for user in node.users if user is not reader]
        makes_new = [self._calls.module(user, (nn.Conv2d, AffineActivation)) is not None for user in others]
        done = [self._order[self._end.get(user, user)] < self._order[reader] for user in others]
        return node in self._ends and node.target is operator.iadd and all(makes_new) and all(done)

    def _single(self, node: fx.Node) -> Step:
        merged = self._calls.module(node, (AffineActivation,))
        if merged is not None:
            return NormAndActivation(
                merged, self._slots[node.all_input_nodes[0]], self._channel_by_channel(node, merged)
            )
        function: Any = node.target
        if node.op == "call_module":
            # a convolution without a kernel, say
            function = self._calls.modules[str(node.target)].to(memory_format=torch.channels_last)
        elif node.op == "call_method":
            function = _method(str(node.target))
        slots = {source: self._slots[source] for source in node.all_input_nodes}
        operation = self._affine(node)
        if operation is not None:
            return Chain(operation, self._slots[node.args[0]])  # type: ignore[index]
        return Other(function, node.args, node.kwargs, slots, self._initial)

    def _affine(self, node: fx.Node) -> Affine | None:
        """What a node does, if that is affine in its first argument and it is told constants beside."""
        image: Any = node.args[0] if node.args else None
        rest = {source: self._initial[self._slots[source]] for source in node.all_input_nodes if source is not image}
        if image not in self._shapes or any(value is None for value in rest.values()):
            return None
        target = self._calls.modules[str(node.target)] if node.op == "call_module" else node.target
        try:
            args, kwargs = fx.map_arg((node.args[1:], node.kwargs), rest.__getitem__)
        except KeyError:  # its first argument once more, say a square
            return None
        return affine(target, args, kwargs)

    def _channel_by_channel(self, node: fx.Node, merged: AffineActivation) -> Kernel | None:
        """In bfloat16, where elementwise arithmetic is slow: norm and activation as a convolution that takes it along.

        A ReLU inside the convolution would make zero of NaN, and broken models are to be seen.
        """
        shape = self._shapes.get(node, ())
        if not self._in_bf16 or len(shape) != 4 or merged.slope == 0:
            return None
        channels = len(merged.scale)
        # weights that a constructor draws would be drawn from the caller's generator
        convolution = nn.Conv2d(channels, channels, 1, groups=channels, device="meta")
        convolution.weight = nn.Parameter(merged.scale.view(-1, 1, 1, 1).bfloat16(), False)
        convolution.bias = nn.Parameter(merged.shift.bfloat16(), False)
        return Kernel(convolution, shape, shape)

    def _only_reads(self, node: fx.Node, slot: int) -> bool:
        """Whether a node without a kernel is the only reader of a slot, and reads nothing else that is computed."""
        if node in self._ends:
            return False
        sources = [source for source in node.all_input_nodes if self._initial[self._slots[source]] is None]
        return [self._slots[source] for source in sources] == [slot] and len(sources[0].users) == 1

    def _last_uses(self) -> list[tuple[int, ...]]:
        """The slots that nobody needs after each step."""
        last = {slot: position for position, step in enumerate(self._steps) for slot in step.inputs}
        last.pop(self._output, None)
        return [
            tuple(slot for slot in set(step.inputs) if last.get(slot) == position and self._initial[slot] is None)
            for position, step in enumerate(self._steps)
        ]


def have_kernels(network: nn.Module) -> bool:
    """Whether any of a network's convolutions has a kernel: on a CPU, in float32 or bfloat16."""
    return any(type(module) is nn.Conv2d and can_pack(module) for module in network.modules())


class _ThereAndBack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernels: Kernels) -> Tensor:
        logits, trail = kernels.there(x.detach())
        ctx.kernels, ctx.trail = kernels, trail
        # the trail may hold the last kernel's output, which must not hold the trail
        return logits.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        # what torch's own functions know: whether the graph is asked again
        keep: bool = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True)()
        return ctx.kernels.back(ctx.trail, grad, keep=keep), None


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _method(name: str) -> Callable[..., Any]:
    def call(value: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(value, name)(*args, **kwargs)

    return call
