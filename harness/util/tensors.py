"""Comparing tensors."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["identical"]


def identical(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have the same shape and values, where NaN is the same as NaN."""
    if torch.equal(a, b):
        return True
    return a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())
