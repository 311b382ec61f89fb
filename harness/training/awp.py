"""Adversarial weight perturbation.

Wu, Xia & Wang 2020, "Adversarial Weight Perturbation Helps Robust Generalization" (arXiv 2004.05884).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["perturbed"]

_TINY = 1e-12


@contextmanager
def perturbed(weights: Sequence[nn.Parameter], grads: Sequence[Tensor], gamma: float) -> Iterator[None]:
    """Weights moved along their gradients, each by ``gamma`` times its own norm, and put back at the end.

    Args:
        weights: of two dimensions or more; the method leaves shifts and scales alone.
        grads: of the loss to raise, one each.
    """
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight, grad in zip(weights, grads, strict=True):
            weight.add_(grad * (gamma * weight.norm() / (grad.norm() + _TINY)))
    try:
        yield
    finally:
        # copied rather than subtracted: a difference would leave rounding behind
        with torch.no_grad():
            for weight, value in zip(weights, before, strict=True):
                weight.copy_(value)
