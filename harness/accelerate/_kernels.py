"""A traced network as a list of kernels, there and back.

The way back goes to the image alone, as parameters are frozen, so a convolution need not keep its input, and its
backward pass is a convolution with turned weights. Both ways a convolution takes along the activation or the sum
that follows it, weights stand in the order that convolutions want from the beginning, and no modules are called.
What has no kernel here is left to torch, autograd included.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.autograd.function import once_differentiable

from harness.accelerate._graph import Calls, Shapes, slope_of
from harness.accelerate._sweep import AffineActivation

__all__ = ["Kernels", "have_kernels"]

Values = list[Any]
Grads = list[Tensor | None]
Back = Callable[[Tensor, Grads], None]
"""Puts the gradient of a step's output on the account of its inputs."""
Trail = list[tuple[int, Back]]
"""The way back from each slot, in the order of the steps."""

_ARITHMETIC = {operator.add, operator.sub, operator.mul, operator.truediv}

# weights are put in order for a batch of about this size, and taken as they are by any other
_BATCH = 16


class Kernels(nn.Module):
    """A network made of steps.

    Args:
        network: its graph says all that it does.
        shapes: of its nodes.

    Attributes:
        fused: convolutions that take along what follows them.
        pays: whether most steps are kernels; torch does the others as fast by itself.
    """

    def __init__(self, network: fx.GraphModule, shapes: Shapes) -> None:
        super().__init__()
        self.network = network
        self.fused = 0
        self._calls = Calls(network, network.graph)
        self._shapes = shapes
        self._slots: dict[fx.Node, int] = {}
        self._initial: Values = []
        self._nodes = list(network.graph.nodes)
        self._ends = dict(self._chains())
        self._inside = {node for chain in self._ends.values() for node in chain[:-1]}
        self._end = {member: last for last, chain in self._ends.items() for member in chain}
        self._order = {node: position for position, node in enumerate(self._nodes)}
        steps: list[_Step] = []
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
                before = steps[-1] if steps else None
                if isinstance(step, _Other) and isinstance(before, _Other) and self._only_reads(node, before.slot):
                    steps[-1] = before.then(step)
                else:
                    steps.append(step)
        self._steps = steps
        self.pays = 2 * sum(isinstance(step, _Other) for step in steps) < len(steps)
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
        grads[self._output] = grad
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
        return value.expand(1, *shape[1:]).contiguous(memory_format=torch.channels_last)

    def _slot(self, node: fx.Node) -> int:
        self._slots[node] = len(self._initial)
        self._initial.append(None)
        return self._slots[node]

    def _chains(self) -> Iterator[tuple[fx.Node, list[fx.Node]]]:
        """Nodes that become one kernel, from a convolution to the last, by the last."""
        for node in self._nodes:
            convolution = self._calls.module(node, (nn.Conv2d,))
            if convolution is None or not _can_pack(convolution):
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

    def _fused(self, chain: list[fx.Node]) -> _Step:
        first, last = chain[0], chain[-1]
        (source,) = first.all_input_nodes
        kernel = _Kernel(self._calls.module(first, (nn.Conv2d,)), self._shapes[source], self._shapes[first])
        slope = float(last.args[1]) if last.target is F.leaky_relu_ else slope_of(self._calls, last)  # type: ignore[arg-type]
        sums = [node for node in chain if node.target is operator.iadd]
        other = self._slots[sums[0].args[1]] if sums else None  # type: ignore[index]
        self.fused += slope is not None or other is not None
        into = last.target is operator.iadd and self._is_free(last.args[1], last)
        return _Convolution(kernel, self._slots[source], slope, other, into)

    def _is_free(self, node: Any, reader: fx.Node) -> bool:
        """Whether ``reader`` may write over a node's output: a sum, which no way back keeps, that all others have read.

        Those others must be kernels that make something new of it, not views.
        """
        others = [user for user in node.users if user is not reader]
        makes_new = [self._calls.module(user, (nn.Conv2d, AffineActivation)) is not None for user in others]
        done = [self._order[self._end.get(user, user)] < self._order[reader] for user in others]
        return node in self._ends and node.target is operator.iadd and all(makes_new) and all(done)

    def _single(self, node: fx.Node) -> _Step:
        merged = self._calls.module(node, (AffineActivation,))
        if merged is not None:
            return _NormAndActivation(merged, self._slots[node.all_input_nodes[0]])
        function: Any = node.target
        if node.op == "call_module":
            function = self._calls.modules[str(node.target)]
        elif node.op == "call_method":
            function = _method(str(node.target))
        slots = {source: self._slots[source] for source in node.all_input_nodes}
        return _Other(function, node.args, node.kwargs, slots, self._initial)

    def _only_reads(self, node: fx.Node, slot: int) -> bool:
        """Whether a node is the only reader of a slot, and reads nothing else that is computed."""
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
    return any(type(module) is nn.Conv2d and _can_pack(module) for module in network.modules())


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


class _Step(ABC):
    """One kernel.

    Attributes:
        slot: where its output goes. inputs: where what it needs lies.
    """

    slot: int
    inputs: tuple[int, ...]

    @abstractmethod
    def run(self, values: Values) -> Any:
        """The output."""

    @abstractmethod
    def record(self, values: Values) -> tuple[Any, Back]:
        """The output, and the way back."""


class _Convolution(_Step):
    """A convolution, and what follows it: a sum with another slot, a (leaky) ReLU of some slope, or both."""

    def __init__(self, kernel: _Kernel, source: int, slope: float | None, other: int | None, into: bool) -> None:
        self.kernel, self.source, self.slope, self.other, self.into = kernel, source, slope, other, into
        self.inputs = (source,) if other is None else (source, other)

    def run(self, values: Values) -> Tensor:
        if self.other is not None:
            out = self.kernel.plus(values[self.source], values[self.other], into=self.into)
            return out if self.slope is None else _activated(out, self.slope)
        if self.slope == 0:
            # a ReLU inside the convolution makes zero of NaN, and broken models are to be seen
            return _activated(self.kernel(values[self.source], None), 0.0)
        return self.kernel(values[self.source], self.slope)

    def record(self, values: Values) -> tuple[Tensor, Back]:
        out = self.run(values)
        source, other, slope, kernel = self.source, self.other, self.slope, self.kernel
        dtype, kept = values[source].dtype, None if slope is None else out

        def back(grad: Tensor, grads: Grads) -> None:
            if kept is not None:
                grad = torch.ops.aten.leaky_relu_backward(_laid_out_like(kept, grad), kept, slope, True)
            if other is not None:
                before = grads[other]
                grads[other] = grad if before is None else before + grad
            grads[source] = kernel.back(grad, grads[source], dtype)

        return out, back


class _NormAndActivation(_Step):
    """A batch norm in eval mode and the (leaky) ReLU after it."""

    def __init__(self, module: AffineActivation, source: int) -> None:
        self.module, self.source = module, source
        self.inputs = (source,)

    def run(self, values: Values) -> Tensor:
        return self.module.there(values[self.source])

    def record(self, values: Values) -> tuple[Tensor, Back]:
        out = self.run(values)

        def back(grad: Tensor, grads: Grads) -> None:
            grads[self.source] = self.module.back(_laid_out_like(out, grad), out, grads[self.source])

        return out, back


class _Other(_Step):
    """Whatever torch can do, on whatever way back torch knows: one call, or several that follow each other."""

    def __init__(self, function: Any, args: Any, kwargs: Any, slots: dict[fx.Node, int], initial: Values) -> None:
        # autograd's leaves must not be changed in place
        pure = {F.leaky_relu_: F.leaky_relu, operator.iadd: operator.add}.get(function, function)
        self._calls = [(function, pure, args, kwargs, slots)]
        self._between: list[int] = []
        self.inputs = tuple(slots.values())
        self._moving = tuple(slot for slot in self.inputs if initial[slot] is None)

    def then(self, other: _Other) -> _Other:
        """Both, one after the other; nobody else needs what the first returns."""
        self._calls += other._calls
        self._between.append(self.slot)
        self.inputs += tuple(slot for slot in other.inputs if slot not in (*self.inputs, *self._between))
        self.slot = other.slot
        return self

    def run(self, values: Values) -> Any:
        return self._run(values, pure=False)

    def record(self, values: Values) -> tuple[Any, Back]:
        tensors = [slot for slot in self._moving if isinstance(values[slot], Tensor)]
        leaves = [values[slot].detach().requires_grad_() for slot in tensors]
        own = values.copy()
        for slot, leaf in zip(tensors, leaves, strict=True):
            own[slot] = leaf
        with torch.enable_grad():
            out = self._run(own, pure=True)
        if not isinstance(out, Tensor) or not out.requires_grad:
            return out, _no_way_back

        def back(grad: Tensor, grads: Grads) -> None:
            for slot, part in zip(tensors, _pulled_back(out, grad, leaves), strict=True):
                before = grads[slot]
                grads[slot] = part if before is None else before + part

        return out.detach(), back

    def _run(self, values: Values, *, pure: bool) -> Any:
        out: Any = None
        for position, (function, pure_function, args, kwargs, slots) in enumerate(self._calls):
            if position:
                values[self._between[position - 1]] = out

            def value_of(node: fx.Node, slots: dict[fx.Node, int] = slots) -> Any:
                return values[slots[node]]

            call = pure_function if pure else function
            out = call(*fx.map_arg(args, value_of), **(fx.map_arg(kwargs, value_of) if kwargs else {}))
        for slot in self._between:
            values[slot] = None
        return out


def _pulled_back(out: Tensor, grad: Tensor, leaves: list[Tensor]) -> tuple[Tensor, ...]:
    """The gradients of ``leaves`` from that of ``out``, whose graph is kept."""
    engine = getattr(torch.autograd.graph, "_engine_run_backward", None)
    if engine is not None:
        # what autograd.grad does after it has loaded a computer algebra system, to look at the shape of ``grad``
        found: tuple[Tensor, ...] = engine(
            (out,), (grad,), True, False, tuple(leaves), allow_unreachable=False, accumulate_grad=False
        )
        return found
    with torch.enable_grad():
        product = (out * grad).sum()
    return torch.autograd.grad(product, leaves, retain_graph=True)


def _no_way_back(grad: Tensor, grads: Grads) -> None:
    """Of sizes and the like."""


class _Kernel:
    """A convolution with its weights in the order that it wants, and the same backwards."""

    def __init__(self, module: nn.Conv2d, shape: tuple[int, ...], out_shape: tuple[int, ...]) -> None:
        self.dtype = module.weight.dtype
        self.bias = module.bias
        self.weight = module.weight.detach()
        self.shape = shape[1:]
        self.numbers = (tuple(module.padding), module.stride, module.dilation, module.groups)
        self.unary = torch.ops.mkldnn._convolution_pointwise.default
        self.binary = torch.ops.mkldnn._convolution_pointwise.binary
        self.into = torch.ops.mkldnn._convolution_pointwise_.binary
        # the order for a single channel is slower than none
        self.packed = self.weight if module.in_channels == 1 else _packed(self.weight, self.numbers, shape)
        self.turned = None
        if module.stride == module.dilation == (1, 1) and module.groups == 1:
            pads = [int(pad) for pad in module.padding]
            reach = tuple(size - 1 - pad for size, pad in zip(module.kernel_size, pads, strict=True))
            if min(reach) >= 0:
                self.turned_numbers = (reach, (1, 1), (1, 1), 1)
                turned = self.weight.transpose(0, 1).flip(2, 3).contiguous(memory_format=torch.channels_last)
                self.turned = _packed(turned, self.turned_numbers, out_shape)
        # rows and columns of the input that a strided convolution does not reach
        self.unreached = tuple(
            size - ((out - 1) * stride - 2 * int(pad) + dilation * (kernel - 1) + 1)
            for size, out, stride, pad, dilation, kernel in zip(
                shape[2:],
                out_shape[2:],
                module.stride,
                module.padding,
                module.dilation,
                module.kernel_size,
                strict=True,
            )
        )

    def __call__(self, x: Tensor, slope: float | None) -> Tensor:
        attribute, scalars = ("none", []) if slope is None else ("leaky_relu", [slope])
        x = x if x.dtype is self.dtype else x.to(self.dtype)
        out: Tensor = self.unary(x, self.packed, self.bias, *self.numbers, attribute, scalars, "")
        return out

    def plus(self, x: Tensor, other: Tensor, *, into: bool) -> Tensor:
        """The convolution of ``x``, and ``other``; ``into`` whose memory the sum may go."""
        if not self._takes_along(other):
            return self(x, None).add_(other)
        x = x if x.dtype is self.dtype else x.to(self.dtype)
        how: tuple[Any, ...] = (self.packed, self.bias, *self.numbers, "add", 1.0, None, [], None)
        out: Tensor = self.into(other, x, *how) if into else self.binary(x, other, *how)
        return out

    def back(self, grad: Tensor, before: Tensor | None, dtype: torch.dtype) -> Tensor:
        """The gradient of the input, of type ``dtype``, added to what was there before."""
        grad = grad if grad.dtype is self.dtype else grad.to(self.dtype)
        if self.turned is not None and before is not None and self._takes_along(before):
            how: tuple[Any, ...] = (self.turned, None, *self.turned_numbers, "add", 1.0, None, [], None)
            out: Tensor = self.binary(grad, before, *how)
            return out.to(dtype)
        if self.turned is not None:
            out = self.unary(grad, self.turned, None, *self.turned_numbers, "none", [], "")
        else:
            pad, stride, dilation, groups = self.numbers
            out = torch.ops.aten.convolution(
                grad, self.weight, None, stride, pad, dilation, True, self.unreached, groups
            )
        out = out.to(dtype)
        return out if before is None else out.add_(before)

    def _takes_along(self, other: Tensor) -> bool:
        # in float32 a sum of its own, in place, is faster than one inside the convolution
        return other.dtype is self.dtype is torch.bfloat16 and other.is_contiguous(memory_format=torch.channels_last)


def _activated(value: Tensor, slope: float) -> Tensor:
    """A (leaky) ReLU in place."""
    out: Tensor = torch.relu_(value) if slope == 0 else torch._C._nn.leaky_relu_(value, slope)
    return out


def _laid_out_like(value: Tensor, grad: Tensor) -> Tensor:
    """``grad`` in channels_last if ``value`` is: that of a mean over pixels, say, is not."""
    if value.dim() == 4 and value.is_contiguous(memory_format=torch.channels_last):
        return grad.contiguous(memory_format=torch.channels_last)
    return grad


def _packed(weight: Tensor, numbers: tuple[Any, ...], shape: tuple[int, ...]) -> Tensor:
    reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
    packed: Tensor = reorder(weight.to_mkldnn(), *numbers, (_BATCH, *shape[1:]))
    return packed


def _can_pack(module: nn.Conv2d) -> bool:
    return (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch._C._nn, "mkldnn_reorder_conv2d_weight")
        and module.weight.device.type == "cpu"
        and module.weight.dtype in (torch.float32, torch.bfloat16)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _method(name: str) -> Callable[..., Any]:
    def call(value: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(value, name)(*args, **kwargs)

    return call
