"""What a norm is to attacks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from torch import Tensor

from harness.errors import InvalidInput
from harness.threat.norms._hyperplane import hyperplane_along
from harness.threat.norms._moves import Moves, Patches
from harness.threat.rng import Draws

__all__ = ["Norm", "column"]

_TINY = 1e-12


def column(values: Tensor, like: Tensor) -> Tensor:
    """Per-sample ``values [n]`` shaped ``[n, 1, ...]`` to broadcast against ``like [n, ...]``."""
    return values.reshape(-1, *[1] * (like.dim() - 1))


class Norm(ABC):
    """Geometry of a norm's ball intersected with the pixel box [0, 1].

    A norm defines `name`, `size` and `steepest`. Everything else has a default that is right for every norm that does
    not depend on the signs of a perturbation and does not shrink where an entry grows; a norm overrides what it can do
    faster or better. Points are ``[n, ...]``, one row a sample, of any shape and floating-point dtype; no row's result
    depends on another row.

    Attributes:
        name: what it is called, up to upper and lower case.
        sparse: the steepest direction changes few values (as in L1, where it changes one). APGD then takes its sparse
            steps, and the norm must define `hyperplane` for FAB and `moves` for Square.
    """

    name: ClassVar[str]
    sparse: ClassVar[bool] = False

    @abstractmethod
    def size(self, delta: Tensor) -> Tensor:
        """Norm of each perturbation: ``[n, ...] -> [n]``."""

    @abstractmethod
    def steepest(self, grad: Tensor) -> Tensor:
        """The direction of norm one along which ``grad`` rises fastest; zero where ``grad`` is zero."""

    def dual_size(self, grad: Tensor) -> Tensor:
        """Dual norm of each gradient, how fast it rises along `steepest`: ``[n, ...] -> [n]``."""
        return self.flat(grad * self.steepest(grad)).sum(dim=1)

    def project(self, points: Tensor, x: Tensor, eps: float) -> Tensor:
        """Points moved into the ball of radius ``eps`` around ``x`` and into [0, 1].

        The default moves a point outside the ball straight towards ``x``.
        """
        delta = points - x
        radius = self.size(delta).clamp(max=eps)
        return (x + self.normalize(delta) * column(radius, x)).clamp(0, 1)

    def onto(self, x: Tensor, eps: float) -> Callable[[Tensor], Tensor]:
        """`project` for one ball, for those who need it more than once."""
        return lambda points: self.project(points, x, eps)

    def climb(self, points: Tensor, grad: Tensor, step: float) -> Tensor:
        """Points moved by ``step`` in the direction along which ``grad`` rises fastest; not yet projected."""
        return points + step * self.steepest(grad)

    def noise(self, x: Tensor, draws: Draws, counter: int) -> Tensor:
        """A random direction per sample, not yet scaled to any radius: ``[n, ...]``."""
        return draws.normal(counter, tuple(x.shape[1:])).to(x)

    def start(self, x: Tensor, eps: float, draws: Draws, counter: int) -> Tensor:
        """A random start on the sphere of radius ``eps`` around ``x``, clipped to [0, 1]."""
        return (x + eps * self.normalize(self.noise(x, draws, counter))).clamp(0, 1)

    def inside(self, x: Tensor, eps: float, draws: Draws, counter: int) -> Tensor:
        """A random start in the ball of radius ``eps`` around ``x``, clipped to [0, 1].

        Draws from ``counter`` and ``counter + 1``. The default is uniform where the direction of `noise` is; its radius
        is that of a uniform point in any case.
        """
        direction = self.normalize(self.noise(x, draws, counter))
        # volume grows with radius ** d
        radius = eps * draws.uniform(counter + 1, ()).to(x) ** (1 / x[0].numel())
        return (x + column(radius, x) * direction).clamp(0, 1)

    def hyperplane(self, points: Tensor, w: Tensor, b: Tensor) -> Tensor:
        """Smallest step from each point to its hyperplane ``<w, z> = b`` that stays in [0, 1]; FAB needs it.

        The default goes in the steepest direction, each entry until it meets the box. That is the smallest step in
        Linf, L2 and their weighted forms; a sparse norm defines its own.

        Args:
            points: ``[n, ...]``. w: ``[n, ...]``. b: ``[n]``.

        Returns:
            The step ``[n, ...]``; where the box does not reach the plane, the closest approach.
        """
        return hyperplane_along(self.steepest, points, w, b)

    def moves(self) -> Moves:
        """The candidates of a random search in square windows; Square needs them.

        The default works on `size`, `steepest` and `project`.

        Raises:
            InvalidInput: a sparse norm that does not define it.
        """
        if self.sparse:
            raise InvalidInput(f"Square cannot attack in the norm {self.name}: it is sparse and defines no moves()")
        return Patches(self)

    def tolerance(self, eps: float) -> float:
        """How far beyond ``eps`` the rounding of float32 may carry a projected point."""
        return 1e-5 * max(eps, 1.0)

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
