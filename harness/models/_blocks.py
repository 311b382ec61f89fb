"""Parts that several residual networks share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from harness.models.norm_layers import NormLayer

__all__ = ["PreActivationBlock", "pad_channels", "stage"]


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


def pad_channels(x: Tensor, channels: int) -> Tensor:
    """``x`` with zero channels added, half of them on each side, up to ``channels``."""
    missing = channels - x.shape[1]
    return F.pad(x, (0, 0, 0, 0, missing // 2, missing - missing // 2))
