"""Steps to a hyperplane that stay in the pixel box, one per norm."""

from __future__ import annotations

from torch import Tensor

__all__ = ["hyperplane_l1", "hyperplane_l2", "hyperplane_linf"]


def hyperplane_linf(points: Tensor, w: Tensor, b: Tensor) -> Tensor:
    raise NotImplementedError


def hyperplane_l2(points: Tensor, w: Tensor, b: Tensor) -> Tensor:
    raise NotImplementedError


def hyperplane_l1(points: Tensor, w: Tensor, b: Tensor) -> Tensor:
    raise NotImplementedError
