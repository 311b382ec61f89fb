"""No shorter step than the one returned gets to the plane inside the box."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import Tensor

from harness.threat import norms

Case = tuple[list[float], list[float], float]

coordinate = st.one_of(st.sampled_from([0.0, 1.0, 0.5]), st.floats(0, 1))
size = st.floats(1e-3, 1e3)
slope = st.one_of(st.sampled_from([0.0, 1.0, -1.0]), size, size.map(lambda value: -value))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A point, a slope, and a plane anywhere between (and a little beyond) the box's two extremes."""
    features = draw(st.integers(1, 6))
    x = draw(st.lists(coordinate, min_size=features, max_size=features))
    w = draw(st.lists(slope, min_size=features, max_size=features))
    low, high = sum(min(v, 0.0) for v in w), sum(max(v, 0.0) for v in w)
    share = draw(st.one_of(st.sampled_from([0.0, 1.0]), st.floats(-0.2, 1.2)))
    return x, w, low + share * (high - low)


def take(norm: str, case: Case) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    points, w, b = (torch.tensor([part], dtype=torch.float64) for part in case)
    return points[0], w[0], b[0], norms.get(norm).hyperplane(points, w, b)[0]


def nearest_reachable(case: Case) -> float:
    """The value of ``<w, z>`` in the box that is nearest to b."""
    _, w, b = case
    return min(max(b, sum(min(v, 0.0) for v in w)), sum(max(v, 0.0) for v in w))


def shortest(norm: str, case: Case) -> float:
    """The length of the best step, by general methods that know nothing of this problem."""
    x, w, value = np.array(case[0]), np.array(case[1]), nearest_reachable(case)
    n = len(x)
    gap = value - float(w @ x)
    if norm == "L2":  # the step is clip(multiplier * w, -x, 1 - x); find the multiplier by halving
        low, high = -1e7, 1e7
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if w @ np.clip(middle * w, -x, 1 - x) < gap else (low, middle)
        return float(np.linalg.norm(np.clip(high * w, -x, 1 - x)))
    if norm == "Linf":  # step and bound: |step_i| <= bound
        cost = np.r_[np.zeros(n), 1]
        rows = np.r_[np.c_[np.eye(n), -np.ones(n)], np.c_[-np.eye(n), -np.ones(n)]]
        bounds = [*zip(-x, 1 - x, strict=True), (0, None)]
        equal = np.r_[w, 0][None]
        limits = np.zeros(2 * n)
    else:  # L1: step = up - down
        cost, rows, limits = np.ones(2 * n), None, None
        bounds = [*zip(np.zeros(n), 1 - x, strict=True), *zip(np.zeros(n), x, strict=True)]
        equal = np.r_[w, -w][None]
    scale = max(np.abs(w).max(), 1e-9)
    best = linprog(cost, A_ub=rows, b_ub=limits, A_eq=equal / scale, b_eq=[gap / scale], bounds=bounds)
    assert best.status == 0, best.message
    return float(best.fun)


@pytest.mark.parametrize("norm", ["Linf", "L1"])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(case=cases())
def test_as_short_as_a_linear_program_finds(norm: str, case: Case) -> None:
    *_, step = take(norm, case)
    assert float(norms.get(norm).size(step[None])) == pytest.approx(shortest(norm, case), abs=1e-6)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(case=cases())
def test_as_short_as_halving_finds(case: Case) -> None:
    *_, step = take("L2", case)
    assert float(step.norm()) == pytest.approx(shortest("L2", case), abs=1e-6)


@pytest.mark.parametrize("norm", norms.names())
@settings(max_examples=150, deadline=None, derandomize=True)
@given(case=cases())
def test_in_the_box_and_as_close_as_it_allows(norm: str, case: Case) -> None:
    points, w, _, step = take(norm, case)
    assert bool(((points + step >= 0) & (points + step <= 1)).all())
    tolerance = 1e-11 * max(1.0, float(w.abs().sum()))
    assert float((w * (points + step)).sum()) == pytest.approx(nearest_reachable(case), abs=tolerance)


@pytest.mark.parametrize("norm", norms.names())
@settings(max_examples=150, deadline=None, derandomize=True)
@given(case=cases(), seed=st.integers(0, 2**31))
def test_no_random_step_that_gets_as_far_is_shorter(norm: str, case: Case, seed: int) -> None:
    points, w, b, step = take(norm, case)
    here = (w * points).sum() - b
    generator = torch.Generator().manual_seed(seed)
    noise, pull = torch.rand(2, 200, len(points), dtype=torch.float64, generator=generator)
    # points between noise and the corner that lies furthest across the plane
    other = noise + pull[:, :1] * ((w * here < 0).to(w) - noise)
    there = (other * w).sum(dim=1) - b
    # drawn back towards the point until they only just reach the plane
    crosses = here * there < 0
    rivals = (here / (here - there) * norms.get(norm).size(other - points))[crosses]
    assert bool((rivals >= norms.get(norm).size(step[None]) - 1e-9).all())


@pytest.mark.parametrize("norm", norms.names())
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-12, 1.0, 1e12])
def test_float32_stays_finite_and_in_the_box(norm: str, scale: float) -> None:
    """Vanishing and exploding slopes, and half of them zero."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(8, 50, generator=generator).mul(1.4).sub(0.2).clamp(0, 1)
    w = torch.randn(8, 50, generator=generator) * scale
    w[:, ::2] = 0
    for b in (torch.zeros(8), (w * points).sum(dim=1), torch.ones(8)):
        step = norms.get(norm).hyperplane(points, w, b)
        assert bool(step.isfinite().all())
        assert bool(((points + step >= 0) & (points + step <= 1)).all())
        assert not bool(step[:, ::2].any())
