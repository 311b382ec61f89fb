"""A small residual network, and copies of it that are wrong in one way each."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHAPE = (3, 8, 8)
CLASSES = 5
SIZE = 12
"""Rows of the working batch."""


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.slope = 0.1
        self.shortcut: Callable[[Tensor], Tensor] = lambda x: x

    def forward(self, x: Tensor) -> Tensor:
        out = F.leaky_relu(self.norm1(self.conv1(x)), self.slope)
        return F.leaky_relu(self.norm2(self.conv2(out)) + self.shortcut(x), self.slope)


class Residual(nn.Module):
    """Two residual blocks whose norms know other statistics each."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.stem = nn.Conv2d(3, 8, 3, padding=1)
            self.blocks = nn.ModuleList([Block(8), Block(8)])
            self.head = nn.Linear(8 * 16, CLASSES)
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    nn.init.normal_(module.running_mean, std=0.3)
                    nn.init.uniform_(module.running_var, 0.3, 2)
            nn.init.normal_(self.stem.weight, std=0.7)
            nn.init.normal_(self.head.weight)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        out = self.stem(x)
        for block in self.blocks:
            out = block(out)
        logits: Tensor = self.head(F.avg_pool2d(out, 2).flatten(1))
        return logits


class _Gradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.change = change
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.change(grad.clone()), None


class WrongGradient(nn.Module):
    """The network with another gradient of its input, where ``when`` says so of the images."""

    def __init__(
        self,
        inner: nn.Module,
        change: Callable[[Tensor], Tensor],
        when: Callable[[Tensor], Tensor | bool] = lambda x: True,
    ) -> None:
        super().__init__()
        self.inner, self.change, self.when = inner, change, when

    def forward(self, x: Tensor) -> Tensor:
        when = torch.as_tensor(self.when(x.detach())).expand(len(x)).reshape(-1, 1, 1, 1)
        images: Tensor = _Gradient.apply(x, lambda grad: torch.where(when, self.change(grad), grad))
        logits: Tensor = self.inner(images)
        return logits


class WrongLogits(nn.Module):
    """The network with other logits."""

    def __init__(self, inner: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.change = inner, change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self.inner(x))


def negated(grad: Tensor) -> Tensor:
    return -grad


def _beyond_row_2(grad: Tensor) -> Tensor:
    grad[2:] = -grad[2:]
    return grad


def _last_row(grad: Tensor) -> Tensor:
    grad[-1] = grad[-1].flip(-1)
    return grad


class _SecondBackward:
    """Wrong from the second backward pass of the same graph on."""

    def __init__(self) -> None:
        self.last: Tensor | None = None

    def __call__(self, grad: Tensor) -> Tensor:
        first, self.last = self.last, grad
        return grad if first is None or len(first) != len(grad) else first


def _nan_in_a_row(logits: Tensor) -> Tensor:
    row = torch.arange(len(logits)) == 5
    return torch.where(row[:, None], float("nan"), logits)


def _only_with_gradient(logits: Tensor) -> Tensor:
    return logits if torch.is_grad_enabled() else logits.flip(1)


class _SlopeOfTheGradient(nn.Module):
    """A leaky ReLU with another slope in the backward pass."""

    def forward(self, x: Tensor) -> Tensor:
        right = F.leaky_relu(x, 0.1)
        wrong = F.leaky_relu(x, 0.3)
        return wrong + (right - wrong).detach()


def _edited(edit: Callable[[Any], None]) -> Callable[[nn.Module, Tensor], nn.Module]:
    def made(model: nn.Module, x: Tensor) -> nn.Module:
        wrong = copy.deepcopy(model)
        with torch.no_grad():
            edit(wrong)
        return wrong

    return made


def _another_variance(model: Any) -> None:
    model.blocks[1].norm1.running_var.copy_(model.blocks[0].norm1.running_var)


def _channels_swapped(model: Any) -> None:
    weight = model.blocks[1].conv1.weight
    weight.copy_(weight[:, [1, 0, *range(2, 8)]])


def _stale(model: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = model.blocks[0].conv2.weight
    weight.add_(1e-3 * torch.randn(weight.shape, generator=generator))


def _slope_of_the_gradient(model: Any) -> None:
    block = model.blocks[1]
    right = block.norm1
    block.norm1, block.slope = nn.Sequential(right, _SlopeOfTheGradient()), 1.0
    block.norm2 = nn.Sequential(block.norm2)


def _setting(**values: object) -> Callable[[Any], None]:
    def edit(model: Any) -> None:
        for name, value in values.items():
            setattr(model.blocks[1], name, value)

    return edit


CORRUPTED: dict[str, Callable[[nn.Module, Tensor], nn.Module]] = {
    "gradient zero": lambda model, x: WrongGradient(model, torch.zeros_like),
    "gradient turned beyond row 2": lambda model, x: WrongGradient(model, _beyond_row_2),
    "gradient wrong in the last row": lambda model, x: WrongGradient(model, _last_row),
    "gradient half as long": lambda model, x: WrongGradient(model, lambda grad: grad / 2),
    "gradient not a number": lambda model, x: WrongGradient(model, lambda grad: grad * float("nan")),
    "gradient of the first loss for the second": lambda model, x: WrongGradient(model, _SecondBackward()),
    "gradient of a deep shortcut left out": _edited(_setting(shortcut=lambda x: x.detach())),
    "slope of an activation": _edited(_setting(slope=0.12)),
    "slope of an activation's gradient": _edited(_slope_of_the_gradient),
    "bias of the last layer lost": _edited(lambda model: model.head.bias.zero_()),
    "bias of a convolution lost": _edited(lambda model: model.blocks[0].conv1.bias.zero_()),
    "running variance of another layer": _edited(_another_variance),
    "channels swapped": _edited(_channels_swapped),
    "weight stale": _edited(_stale),
    "not a number in one row": lambda model, x: WrongLogits(model, _nan_in_a_row),
    "logits wrong without gradients": lambda model, x: WrongLogits(model, _only_with_gradient),
    "wrong off the clean images": lambda model, x: WrongGradient(model, negated, lambda z: off(z, x) > 0),
    "wrong on clean images": lambda model, x: WrongGradient(model, negated, lambda z: off(z, x) == 0),
    "wrong at the working batch size": lambda model, x: WrongGradient(model, negated, lambda z: len(z) == SIZE),
    "wrong in the last, smaller part": lambda model, x: WrongGradient(model, negated, lambda z: 1 < len(z) < SIZE),
    "wrong for a single row": lambda model, x: WrongGradient(model, negated, lambda z: len(z) == 1),
}
"""By name, a function from the network and the clean images to a copy that must be refused."""


def off(points: Tensor, clean: Tensor) -> Tensor:
    """Mean absolute distance of each point to the nearest clean image, ``[m]``."""
    return torch.cdist(points.flatten(1), clean.flatten(1).to(points), p=1).amin(1) / points[0].numel()
