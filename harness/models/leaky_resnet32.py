"""Pre-activation ResNet-32 for CIFAR with leaky ReLU, the network of Bakiskan et al. 2022.

Three stages of five blocks, widths 16, 32 and 64. Where the width changes, the shortcut is average
pooling and zero padding of the new channels. In the very first block the norm and the rectifier apply
to the shortcut, and the convolution sees their raw input. Names in the state dict are those of the
authors' published checkpoints.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from harness.models._base import Network, Shape
from harness.models._blocks import pad_channels
from harness.models.norm_layers import NormLayer
from harness.models.norm_layers.batch import batch

__all__ = ["leaky_resnet32"]

_WIDTHS = (16, 32, 64)
_BLOCKS = 5
_SLOPE = 0.1


class _Block(nn.Module):
    """One pre-activation block; ``first`` marks the very first, whose convolution sees the raw input."""

    def __init__(
        self, channels_in: int, channels_out: int, stride: int, norm: NormLayer, *, first: bool = False
    ) -> None:
        super().__init__()
        seen = None if first else _SLOPE
        self.bn1 = norm(channels_in)
        self.conv1 = norm.conv(channels_in, channels_out, 3, stride=stride, slope=seen, branch=(1, 2))
        self.bn2 = norm(channels_out)
        self.conv2 = norm.conv(channels_out, channels_out, 3, slope=_SLOPE, branch=(2, 2))
        self.channels_out = channels_out
        self.stride = stride
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        active = F.leaky_relu(self.bn1(x), _SLOPE)
        shortcut, branch = (active, x) if self.first else (x, active)
        out: Tensor = self.conv2(F.leaky_relu(self.bn2(self.conv1(branch)), _SLOPE))
        if self.stride != 1:
            # an odd size is halved upwards, as the convolution's is
            shortcut = pad_channels(F.avg_pool2d(shortcut, self.stride, ceil_mode=True), self.channels_out)
        return out + shortcut


def _stage(channels_in: int, channels_out: int, stride: int, norm: NormLayer, *, first: bool = False) -> nn.Sequential:
    changing = _Block(channels_in, channels_out, stride, norm, first=first)
    return nn.Sequential(changing, *(_Block(channels_out, channels_out, 1, norm) for _ in range(_BLOCKS - 1)))


class _LeakyResNet32(Network):
    def __init__(self, classes: int, shape: Shape, norm: NormLayer) -> None:
        super().__init__()
        narrow, middle, wide = _WIDTHS
        self.init_conv = norm.conv(shape[0], narrow, 3, slope=None)
        self.block1 = _stage(narrow, narrow, 1, norm, first=True)
        self.block2 = _stage(narrow, middle, 2, norm)
        self.block3 = _stage(middle, wide, 2, norm)
        self.last_bn = norm(wide)
        self.linear = nn.Linear(wide, classes)
        self.groups = {
            "stem": ("init_conv",),
            "block1": ("block1",),
            "block2": ("block2",),
            "block3": ("block3",),
            "last-norm": ("last_bn",),
            "head": ("linear",),
        }
        norm.finish(self)

    def forward(self, x: Tensor) -> Tensor:
        out = self.block3(self.block2(self.block1(self.init_conv(x))))
        logits: Tensor = self.linear(F.leaky_relu(self.last_bn(out), _SLOPE).mean((2, 3)))
        return logits


def leaky_resnet32(classes: int, shape: Shape, norm: NormLayer = batch) -> Network:
    """Pre-activation ResNet-32 for CIFAR with leaky ReLU and shortcuts without parameters (Bakiskan 2022)."""
    return _LeakyResNet32(classes, shape, norm)
