"""What a norm layer is to an architecture: one object that supplies layers and the starting weights."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

__all__ = ["NormLayer", "he_normal"]


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


def he_normal(conv: nn.Conv2d) -> None:
    """Normal weights that keep the gradients' variance through a ReLU, and no bias (He et al. 2015)."""
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
