"""What a norm keeps to: the geometry that attacks rely on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from harness.errors import ContractError
from harness.threat import norms
from harness.threat.norms import Norm, column
from harness.threat.rng import Draws, sample_keys

__all__ = [
    "NORM_CONTRACTS",
    "check_norm",
    "climbs_steepest",
    "has_hyperplane",
    "measures",
    "projects",
    "reaches_hyperplanes",
    "starts_in_the_ball",
    "treats_samples_alone",
]

_N, _SHAPE = 12, (3, 8, 7)
# float64 throughout, so that what is left is rounding of long sums
_TINY = 1e-9


def check_norm(norm: str | Norm) -> None:
    """Check a norm against every contract.

    Args:
        norm: a norm, a registered one's name, or ``FILE.py:NAME``.

    Raises:
        ContractError: the first contract that it breaks, and how.
    """
    norm = norms.get(norm) if isinstance(norm, str) else norm
    for contract in NORM_CONTRACTS.values():
        contract(norm)


def measures(norm: Norm) -> None:
    """`size` is a norm, blind to signs and not shrinking where an entry grows."""
    one, two = _deltas()
    size = norm.size(one)
    _need(norm, size.shape == (_N,) and bool((size > 0).all()), "size is not one positive number a sample")
    _need(norm, bool((norm.size(torch.zeros_like(one)) == 0).all()), "size of no perturbation is not zero")
    _need(norm, _close(norm.size(-2.5 * one), 2.5 * size), "size does not scale with the perturbation")
    _need(norm, bool((norm.size(one + two) <= size + norm.size(two) + _TINY).all()), "size breaks the triangle rule")
    _need(norm, _close(norm.size(one.abs()), size), "size depends on signs")
    smaller = one * torch.rand(one.shape, generator=_generator(3), dtype=one.dtype)
    _need(norm, bool((norm.size(smaller) <= size + _TINY).all()), "size shrinks where an entry grows")


def climbs_steepest(norm: Norm) -> None:
    """`steepest` has size one and no direction of that size rises faster; `dual_size` is how fast it rises."""
    grad, other = _deltas()
    direction = norm.steepest(grad)
    _need(norm, direction.shape == grad.shape and _close(norm.size(direction), 1), "steepest is not of size one")
    _need(norm, bool((norm.steepest(torch.zeros_like(grad)) == 0).all()), "steepest is not zero where the gradient is")
    rise = _dot(grad, direction)
    _need(norm, _close(norm.dual_size(grad), rise), "dual_size is not how fast steepest rises")
    single = torch.zeros_like(grad).flatten(1).scatter_(1, grad.flatten(1).abs().argmax(1, keepdim=True), 1.0)
    for rival in (other, grad, grad.sign(), grad.sign() * grad.abs().sqrt(), (single.view_as(grad) * grad)):
        _need(norm, bool((_dot(grad, norm.normalize(rival)) <= rise + _TINY).all()), "another direction rises faster")
    x = _images()
    step = 0.03
    moved = norm.size(norm.climb(x, grad, step) - x)
    _need(norm, bool((moved <= step * (1 + _TINY)).all()), "climb moves further than its step")


def projects(norm: Norm) -> None:
    """`project` ends in ball and box, leaves what is there already, and `onto` is the same."""
    x, (delta, _) = _images(), _deltas()
    for eps in _radii(norm, delta):
        points = norm.project(x + delta, x, eps)
        _inside(norm, points, x, eps, "project")
        _need(norm, _close(norm.project(points, x, eps), points), "project moves a point that it has projected")
        _need(norm, _close(norm.onto(x, eps)(x + delta), points), "onto differs from project")
        _need(norm, _close(norm.project(x, x, eps), x), "project moves the clean image")


def starts_in_the_ball(norm: Norm) -> None:
    """Random starts lie in ball and box, and are each sample's own."""
    x, (delta, _) = _images(), _deltas()
    draws, rows = Draws(sample_keys(x), 0, "contract"), torch.tensor([7, 2])
    for eps in _radii(norm, delta):
        for name in ("start", "inside"):
            points = getattr(norm, name)(x, eps, draws, 3)
            _inside(norm, points, x, eps, name)
            _need(norm, not torch.equal(points, x), f"{name} does not move")
            alone = getattr(norm, name)(x[rows], eps, draws.rows(rows), 3)
            _need(norm, _close(alone, points[rows]), f"{name} depends on the other samples")


def treats_samples_alone(norm: Norm) -> None:
    """No row depends on another row, and no argument is changed in place."""
    x, (delta, _), rows = _images(), _deltas(), torch.tensor([5])
    eps = _radii(norm, delta)[0]
    b = _dot(delta, x) + 0.1
    calls: dict[str, Callable[[Tensor], Tensor]] = {
        "size": lambda r: norm.size(delta[r]),
        "dual_size": lambda r: norm.dual_size(delta[r]),
        "steepest": lambda r: norm.steepest(delta[r]),
        "project": lambda r: norm.project((x + delta)[r], x[r], eps),
        "climb": lambda r: norm.climb(x[r], delta[r], eps),
    }
    if has_hyperplane(norm):
        calls["hyperplane"] = lambda r: norm.hyperplane(x[r], delta[r], b[r])
    before = x.clone(), delta.clone()
    for name, call in calls.items():
        _need(norm, _close(call(rows), call(torch.arange(_N))[rows]), f"{name} depends on the other samples")
    whole = slice(None)
    for call in calls.values():
        call(whole)  # type: ignore[arg-type]  # views, so that a change in place would be seen
    _need(norm, torch.equal(x, before[0]) and torch.equal(delta, before[1]), "an argument is changed in place")


def reaches_hyperplanes(norm: Norm) -> None:
    """`hyperplane` steps onto the plane within the box, as short as the dual norm allows where the box is far."""
    if not has_hyperplane(norm):
        return
    w, _ = _deltas()
    for x, gap in ((torch.full_like(w, 0.5), 0.01), (_images(), 0.3)):
        distance = gap * norm.dual_size(w) * _smallest(norm)
        b = _dot(w, x) + distance
        step = norm.hyperplane(x, w, b)
        there = x + step
        _need(norm, bool(((there >= -_TINY) & (there <= 1 + _TINY)).all()), "hyperplane leaves the box")
        _need(norm, bool((_dot(w, there) <= b + 1e-6).all()), "hyperplane steps beyond the plane")
        shortest = distance / norm.dual_size(w)
        on_it = (_dot(w, there) - b).abs() <= 1e-6
        _need(norm, bool((norm.size(step) >= shortest - 1e-6)[on_it].all()), "dual_size is too small")
        if gap == 0.01:
            _need(norm, bool(on_it.all()), "hyperplane does not reach a plane that is near")
            _need(norm, bool((norm.size(step) <= shortest * (1 + 1e-6)).all()), "hyperplane is not the smallest step")


def has_hyperplane(norm: Norm) -> bool:
    """Whether FAB can attack in a norm."""
    return not norm.sparse or type(norm).hyperplane is not Norm.hyperplane


NORM_CONTRACTS: dict[str, Callable[[Norm], None]] = {
    contract.__name__: contract
    for contract in (
        measures,
        climbs_steepest,
        projects,
        starts_in_the_ball,
        treats_samples_alone,
        reaches_hyperplanes,
    )
}
"""Every contract by name, the simplest first."""


def _need(norm: Norm, holds: bool, what: str) -> None:
    if not holds:
        raise ContractError(f"the norm {norm.name}: {what}")


def _inside(norm: Norm, points: Tensor, x: Tensor, eps: float, what: str) -> None:
    _need(norm, bool(((points >= 0) & (points <= 1)).all()), f"{what} leaves the box")
    _need(norm, float(norm.size(points - x).max()) <= eps + norm.tolerance(eps), f"{what} leaves the ball")


def _radii(norm: Norm, delta: Tensor) -> tuple[float, float]:
    """A radius far below the size of the perturbations, and one above that of most."""
    size = float(norm.size(delta).median())
    return 0.1 * size, 1.2 * size


def _smallest(norm: Norm) -> float:
    """The size of a step of one in a single entry, whatever units the norm counts in."""
    single = torch.zeros(1, *_SHAPE, dtype=torch.float64)
    single[0, 0, 0, 0] = 1
    return float(norm.size(single))


def _images() -> Tensor:
    """Images with many values on the edges of the box."""
    x = torch.rand(_N, *_SHAPE, generator=_generator(0), dtype=torch.float64)
    return (1.4 * x - 0.2).clamp(0, 1)


def _deltas() -> tuple[Tensor, Tensor]:
    one, two = torch.randn(2, _N, *_SHAPE, generator=_generator(1), dtype=torch.float64)
    return one, two * column(torch.linspace(0.1, 2, _N, dtype=torch.float64), two)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _dot(one: Tensor, two: Tensor) -> Tensor:
    return (one * two).flatten(1).sum(dim=1)


def _close(one: Tensor, two: Tensor | float) -> bool:
    return bool(torch.allclose(one, torch.as_tensor(two, dtype=one.dtype), rtol=1e-6, atol=1e-7))
