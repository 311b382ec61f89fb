"""What a norm must offer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from torch import Tensor

from harness.threat.rng import Draws

__all__ = ["Norm", "column"]

_TINY = 1e-12


def column(values: Tensor, like: Tensor) -> Tensor:
    """Per-sample ``values [n]`` shaped ``[n, 1, ...]`` to broadcast against ``like [n, ...]``."""
    return values.reshape(-1, *[1] * (like.dim() - 1))


class Norm(ABC):
    """Geometry of one l_p ball intersected with the pixel box [0, 1]."""

    name: ClassVar[str]

    @abstractmethod
    def size(self, delta: Tensor) -> Tensor:
        """Norm of each perturbation: ``[n, ...] -> [n]``."""

    @abstractmethod
    def dual_size(self, grad: Tensor) -> Tensor:
        """Dual norm of each gradient: ``[n, ...] -> [n]``."""

    @abstractmethod
    def project(self, points: Tensor, x: Tensor, eps: float) -> Tensor:
        """Points moved into the ball of radius ``eps`` around ``x`` and into [0, 1]."""

    def onto(self, x: Tensor, eps: float) -> Callable[[Tensor], Tensor]:
        """`project` for one ball, for those who need it more than once."""
        return lambda points: self.project(points, x, eps)

    @abstractmethod
    def steepest(self, grad: Tensor) -> Tensor:
        """The direction of norm one along which ``grad`` rises fastest."""

    @abstractmethod
    def noise(self, x: Tensor, draws: Draws, counter: int) -> Tensor:
        """A random direction per sample, not yet scaled to any radius: ``[n, ...]``."""

    @abstractmethod
    def hyperplane(self, points: Tensor, w: Tensor, b: Tensor) -> Tensor:
        """Smallest step from each point to its hyperplane ``<w, z> = b`` that stays in [0, 1].

        Args:
            points: ``[n, d]``. w: ``[n, d]``. b: ``[n]``.

        Returns:
            The step ``[n, d]``; where the box does not reach the plane, the closest approach.
        """

    def start(self, x: Tensor, eps: float, draws: Draws, counter: int) -> Tensor:
        """A random start on the sphere of radius ``eps`` around ``x``, clipped to [0, 1]."""
        return (x + eps * self.normalize(self.noise(x, draws, counter))).clamp(0, 1)

    @abstractmethod
    def inside(self, x: Tensor, eps: float, draws: Draws, counter: int) -> Tensor:
        """A random start uniform in the ball of radius ``eps`` around ``x``, clipped to [0, 1].

        Draws from ``counter`` and ``counter + 1``.
        """

    def climb(self, points: Tensor, grad: Tensor, step: float) -> Tensor:
        """Points moved by ``step`` in the direction along which ``grad`` rises fastest; not yet projected."""
        return points + step * self.steepest(grad)

    def normalize(self, delta: Tensor) -> Tensor:
        """``delta`` scaled to norm one; zero stays zero."""
        return delta / (column(self.size(delta), delta) + _TINY)

    def flat(self, delta: Tensor) -> Tensor:
        """``[n, ...] -> [n, d]``."""
        return delta.reshape(delta.shape[0], -1)

    def __repr__(self) -> str:
        return self.name

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))
