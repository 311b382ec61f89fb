"""The steps that a network is made of on a CPU: kernels with a way back of their own, and what torch does.

The way back goes to the image alone, as parameters are frozen, so a convolution need not keep its input, and its
backward pass is a convolution with turned weights, or a transposed one where it has strides, dilation or groups. Both
ways it takes along the activation or the sum that follows it, and weights stand in the order that convolutions want
from the beginning.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from harness.backends._affine import Affine
from harness.backends._sweep import AffineActivation, activated, activated_back

__all__ = [
    "Chain",
    "Convolution",
    "Grads",
    "Kernel",
    "NormAndActivation",
    "Other",
    "Step",
    "Trail",
    "Values",
    "can_pack",
]

Values = list[Any]
Grads = list[Tensor | None]
Back = Callable[[Tensor, Grads], None]
"""Puts the gradient of a step's output, whose memory is its own from then on, on the account of its inputs."""
Trail = list[tuple[int, Back]]
"""The way back from each slot, in the order of the steps."""

# weights are put in order for a batch of about this size, and taken as they are by any other
_BATCH = 16


class Step(ABC):
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

    def then(self, step: Step) -> bool:
        """Take along, if possible, a step that reads of all that is computed only this one's output, and it alone."""
        return False


class Convolution(Step):
    """A convolution, and what follows it: a sum with another slot, a (leaky) ReLU of some slope, or both.

    Args:
        place: the first of the channels that the other slot is added to, and how many; all of them if not given.
        into: whether the sum may go where the other slot lies.
    """

    def __init__(
        self,
        kernel: Kernel,
        source: int,
        slope: float | None,
        other: int | None,
        place: tuple[int, int] | None,
        into: bool,
    ) -> None:
        self.kernel, self.source, self.slope = kernel, source, slope
        self.other, self.place, self.into = other, place, into
        self.inputs = (source,) if other is None else (source, other)

    def run(self, values: Values) -> Tensor:
        if self.other is not None:
            other = values[self.other]
            if self.place is None:
                out = self.kernel.plus(values[self.source], other, into=self.into)
            else:
                out = self.kernel(values[self.source], None)
                out.narrow(1, *self.place).add_(other)
            return out if self.slope is None else activated(out, self.slope)
        if self.slope == 0:
            # a ReLU inside the convolution makes zero of NaN, and broken models are to be seen
            return activated(self.kernel(values[self.source], None), 0.0)
        return self.kernel(values[self.source], self.slope)

    def record(self, values: Values) -> tuple[Tensor, Back]:
        out = self.run(values)
        source, other, place, kernel = self.source, self.other, self.place, self.kernel
        dtype, activation = values[source].dtype, None if self.slope is None else (_signs(out), self.slope)

        def back(grad: Tensor, grads: Grads) -> None:
            if activation is not None:
                grad = activated_back(_laid_out_like(activation[0], grad), *activation)
            if other is not None:
                _put(grads, other, grad if place is None else grad.narrow(1, *place))
            grads[source] = kernel.back(grad, grads[source], dtype)

        return out, back


class NormAndActivation(Step):
    """A batch norm in eval mode and the (leaky) ReLU after it.

    Args:
        kernel: the same as a convolution of each channel for itself, which takes images in bfloat16.
    """

    def __init__(self, module: AffineActivation, source: int, kernel: Kernel | None) -> None:
        self.module, self.source, self.kernel = module, source, kernel
        self.inputs = (source,)

    def run(self, values: Values) -> Tensor:
        x = values[self.source]
        if self.kernel is not None and x.dtype is self.kernel.dtype:
            return self.kernel(x, self.module.slope)
        return self.module.there(x)

    def record(self, values: Values) -> tuple[Tensor, Back]:
        out = self.run(values)
        signs = _signs(out)

        def back(grad: Tensor, grads: Grads) -> None:
            grad = activated_back(_laid_out_like(signs, grad), signs, self.module.slope)
            grads[self.source] = self.module.back(grad, grads[self.source])

        return out, back


class Chain(Step):
    """Operations that are affine in the image, one after another."""

    def __init__(self, operation: Affine, source: int) -> None:
        self._operations = [operation]
        self.inputs = (source,)

    def then(self, step: Step) -> bool:
        if not isinstance(step, Chain):
            return False
        self._operations += step._operations
        self.slot = step.slot
        return True

    def run(self, values: Values) -> Tensor:
        out: Tensor = values[self.inputs[0]]
        for operation in self._operations:
            out = operation.there(out)
        return out

    def record(self, values: Values) -> tuple[Tensor, Back]:
        (source,) = self.inputs
        out: Tensor = values[source]
        passed = []
        for operation in self._operations:
            passed.append((operation.back, out.shape, out.dtype))
            out = operation.there(out)

        def back(grad: Tensor, grads: Grads) -> None:
            for pull, shape, dtype in reversed(passed):
                grad = pull(grad, shape).to(dtype)
            _put(grads, source, grad)

        return out, back


class Other(Step):
    """Whatever torch can do, on whatever way back torch knows: one call, or several that follow each other."""

    def __init__(self, function: Any, args: Any, kwargs: Any, slots: dict[fx.Node, int], initial: Values) -> None:
        # autograd's leaves must not be changed in place
        pure = {F.leaky_relu_: F.leaky_relu, operator.iadd: operator.add}.get(function, function)
        self._calls = [(function, pure, args, kwargs, slots)]
        self._between: list[int] = []
        self.inputs = tuple(slots.values())
        self._moving = tuple(slot for slot in self.inputs if initial[slot] is None)

    def then(self, step: Step) -> bool:
        if not isinstance(step, Other):
            return False
        self._calls += step._calls
        self._between.append(self.slot)
        self.inputs += tuple(slot for slot in step.inputs if slot not in (*self.inputs, *self._between))
        self.slot = step.slot
        return True

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
                # autograd may give the same memory to several, and keep it
                _put(grads, slot, part.clone())

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


def _put(grads: Grads, slot: int, part: Tensor) -> None:
    """Add a gradient, in memory that nobody else has, to what a slot was given before."""
    before = grads[slot]
    grads[slot] = part if before is None else before + part


def _no_way_back(grad: Tensor, grads: Grads) -> None:
    """Of sizes and the like."""


class Kernel:
    """A convolution with its weights in the order that it wants, and the same backwards."""

    def __init__(self, module: nn.Conv2d, shape: tuple[int, ...], out_shape: tuple[int, ...]) -> None:
        self.dtype = module.weight.dtype
        self.bias = module.bias
        self.weight = module.weight.detach()
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
                self.turned = _packed(self.weight.transpose(0, 1).flip(2, 3), self.turned_numbers, out_shape)
        if self.turned is None:
            self.weight = self.weight.contiguous(memory_format=torch.channels_last)
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


def _signs(out: Tensor) -> Tensor:
    """All that an activation's way back has to know of its output, in half of the memory."""
    # what is kept by all layers decides whether a pass stays in the cache; comparing would be four times slower
    return out.bfloat16()


def _laid_out_like(value: Tensor, grad: Tensor) -> Tensor:
    """``grad`` in channels_last if ``value`` is: that of a mean over pixels, say, is not."""
    if value.dim() == 4 and value.is_contiguous(memory_format=torch.channels_last):
        return grad.contiguous(memory_format=torch.channels_last)
    return grad


def _packed(weight: Tensor, numbers: tuple[Any, ...], shape: tuple[int, ...]) -> Tensor:
    reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
    packed: Tensor = reorder(weight.to_mkldnn(), *numbers, (_BATCH, *shape[1:]))
    return packed


def can_pack(module: nn.Conv2d) -> bool:
    return (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch._C._nn, "mkldnn_reorder_conv2d_weight")
        and module.weight.device.type == "cpu"
        and module.weight.dtype in (torch.float32, torch.bfloat16)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )
