# DRAFT, not a submission: 1 rule not met.
# Written by robust-harness 0.1.0 (MIT license) for RobustBench.

from __future__ import annotations

import torch
from collections.abc import Callable
from torch import Tensor
from torch import nn
import torch.nn.functional as F


class Network(nn.Module):
    """Base of the registered architectures.

    Attributes:
        groups: ordered names of the layer groups -> prefixes of their submodules; the last is "head".
    """

    groups: dict[str, tuple[str, ...]]


def he_normal(conv: nn.Conv2d) -> None:
    """Normal weights that keep the gradients' variance through a ReLU, and no bias (He et al. 2015)."""
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


class NormLayer:
    """A way to normalise (or to do without), as an architecture sees it.

    An architecture asks it for every normaliser (call it with the channels) and for every convolution
    (`conv`), and hands the finished network to `finish`; so it never asks which norm layer it was given.
    Methods that work without normalisers act through the convolutions and the starting weights.

    Args:
        name: the member's name on the command line.
        layer: from a number of channels to the normaliser of a feature map ``[n, channels, h, w]``.
        bias: whether convolutions carry a bias of their own; a shift behind them makes it idle.
    """

    def __init__(self, name: str, layer: Callable[[int], nn.Module], *, bias: bool = False) -> None:
        self.name = name
        self.layer = layer
        self.bias = bias

    def __call__(self, channels: int) -> nn.Module:
        """The normaliser of ``channels`` channels."""
        return self.layer(channels)

    def conv(
        self,
        channels_in: int,
        channels_out: int,
        kernel_size: int,
        *,
        stride: int = 1,
        slope: float | None = 0.0,
        branch: tuple[int, int] | None = None,
    ) -> nn.Module:
        """A convolution with zero padding, so that stride 1 keeps the size (odd kernels).

        Args:
            channels_in: channels of the input. channels_out: of the output.
            kernel_size: odd. stride: step between outputs.
            slope: negative slope of the rectifier that the input comes from (0 for ReLU); None where it
                comes from none.
            branch: which convolution of how many on its residual branch, from 1; None outside branches.
        """
        padding = kernel_size // 2
        return nn.Conv2d(channels_in, channels_out, kernel_size, stride, padding, bias=self.bias)

    def finish(self, network: nn.Module) -> None:
        """Set the starting weights of a complete network, in place, from torch's global generator."""
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                he_normal(module)

    def __repr__(self) -> str:
        return f"NormLayer({self.name!r})"


batch = NormLayer("batch", nn.BatchNorm2d)


Shape = tuple[int, int, int]


_WIDTHS = (16, 32, 64)


class PreActivationBlock(nn.Module):
    """Two 3x3 convolutions, each after norm and ReLU; a 1x1 convolution on the shortcut where sizes change.

    He et al. 2016, "Identity Mappings in Deep Residual Networks" (arXiv 1603.05027).
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int, norm: NormLayer) -> None:
        super().__init__()
        self.bn1 = norm(channels_in)
        self.conv1 = norm.conv(channels_in, channels_out, 3, stride=stride, branch=(1, 2))
        self.bn2 = norm(channels_out)
        self.conv2 = norm.conv(channels_out, channels_out, 3, branch=(2, 2))
        self.shortcut: nn.Module | None = None
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(norm.conv(channels_in, channels_out, 1, stride=stride))

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        shortcut: Tensor = x if self.shortcut is None else self.shortcut(active)
        out: Tensor = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return out + shortcut


def stage(channels_in: int, channels_out: int, stride: int, blocks: int, norm: NormLayer) -> nn.Sequential:
    """``blocks`` pre-activation blocks, of which the first changes channels and size."""
    first = PreActivationBlock(channels_in, channels_out, stride, norm)
    rest = (PreActivationBlock(channels_out, channels_out, 1, norm) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)


class _DigitsResNet(Network):
    def __init__(self, classes: int, shape: Shape, norm: NormLayer) -> None:
        super().__init__()
        first, second, third = _WIDTHS
        self.conv1 = norm.conv(shape[0], first, 3, slope=None)
        self.layer1 = stage(first, first, 1, 1, norm)
        self.layer2 = stage(first, second, 2, 1, norm)
        self.layer3 = stage(second, third, 2, 1, norm)
        self.bn = norm(third)
        self.linear = nn.Linear(third, classes)
        self.groups = {
            "stem": ("conv1",),
            "block1": ("layer1",),
            "block2": ("layer2",),
            "block3": ("layer3",),
            "last-norm": ("bn",),
            "head": ("linear",),
        }
        norm.finish(self)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        logits: Tensor = self.linear(F.relu(self.bn(out)).mean((2, 3)))
        return logits


def digits_resnet(classes: int, shape: Shape, norm: NormLayer = batch) -> Network:
    """Small pre-activation ResNet for 8x8 digits: one block in each of three stages, widths 16, 32 and 64."""
    return _DigitsResNet(classes, shape, norm)


class Contributors2026Example_DRAFTNet(nn.Module):
    """Images in [0, 1] to logits."""

    def __init__(self) -> None:
        super().__init__()
        self.network = digits_resnet(10, (1, 8, 8), batch)
        self.register_buffer("mu", torch.tensor([0.3053]).reshape(-1, 1, 1), persistent=False)
        self.register_buffer("sigma", torch.tensor([0.3758]).reshape(-1, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network((x - self.mu) / self.sigma)
