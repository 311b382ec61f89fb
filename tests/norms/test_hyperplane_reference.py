"""Steps to a hyperplane are those of the reference AutoAttack, in every kind of case that it meets."""

from __future__ import annotations

import pytest
import torch
from pyautoattack.fab_projections import projection_l1, projection_l2, projection_linf
from torch import Tensor

from harness.threat import norms
from harness.threat.norms import _hyperplane

REFERENCE = {"Linf": projection_linf, "L2": projection_l2, "L1": projection_l1}
N = 40


def plain(x: Tensor, w: Tensor, share: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The plane passes through a random point of the box."""
    return x, w, (w * (x + share * (x.flip(0) - x))).sum(dim=1)


def zeros_in_w(x: Tensor, w: Tensor, share: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return plain(x, w * (w > 0.3), share)


def no_slope(x: Tensor, w: Tensor, share: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x, w * 0, share[:, 0] - 0.5


def on_faces(x: Tensor, w: Tensor, share: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return plain((2 * x - 0.5).clamp(0, 1), w, share)


def corners(x: Tensor, w: Tensor, share: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return plain(x.round(), w, share)


def out_of_reach(x: Tensor, w: Tensor, share: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x, w, (share[:, 0] - 0.5).sign() * 2 * w.abs().sum(dim=1)


def on_the_plane(x: Tensor, w: Tensor, share: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x, w, (w * x).sum(dim=1)


def far_away(x: Tensor, w: Tensor, share: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Nearly all coordinates have to reach the box."""
    low = torch.minimum(w, torch.zeros_like(w)).sum(dim=1)
    return x, w, low + 0.02 * share[:, 0] * w.abs().sum(dim=1)


def heavy_tailed(x: Tensor, w: Tensor, share: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return plain(x, w**5, share)


def everything_at_once(x: Tensor, w: Tensor, share: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What one call must keep apart: a different kind of case in every row."""
    cases = [kind(x, w, share) for kind in KINDS[:-1]]
    kind = torch.arange(N) % len(cases)
    picked = [torch.stack(parts)[kind, torch.arange(N)] for parts in zip(*cases, strict=True)]
    return picked[0], picked[1], picked[2]


KINDS = (
    plain,
    zeros_in_w,
    no_slope,
    on_faces,
    corners,
    out_of_reach,
    on_the_plane,
    far_away,
    heavy_tailed,
    everything_at_once,
)


def draw(features: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(features)
    x = torch.rand(N, features, generator=generator, dtype=torch.float64)
    w = torch.randn(N, features, generator=generator, dtype=torch.float64)
    return x, w, torch.rand(N, 1, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("features", [1, 2, 5, 64, 192, 1000])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("norm", REFERENCE)
def test_same_step(norm: str, kind, features: int) -> None:
    points, w, b = kind(*draw(features))
    expected = REFERENCE[norm](points, w, b)
    torch.testing.assert_close(norms.get(norm).hyperplane(points, w, b), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_same_step_from_the_fallback(norm: str, kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that Newton's iteration leaves unsettled are sorted; here nearly all are."""
    monkeypatch.setattr(_hyperplane, "_ROUNDS", 1)
    points, w, b = kind(*draw(192))
    expected = REFERENCE[norm](points, w, b)
    torch.testing.assert_close(norms.get(norm).hyperplane(points, w, b), expected, rtol=0, atol=1e-10)


def test_the_fallback_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rooms and slopes in geometric progression are met one at a time."""
    rows: list[int] = []
    by_sorting = _hyperplane._level_by_sorting

    def counted(weight: Tensor, knot: Tensor, amount: Tensor) -> Tensor:
        rows.append(len(weight))
        return by_sorting(weight, knot, amount)

    monkeypatch.setattr(_hyperplane, "_level_by_sorting", counted)
    power = torch.arange(100, dtype=torch.float64)
    points, w = (64**-power).expand(3, -1), (64**power).expand(3, -1)
    b = torch.tensor([10.0, 99.5, 50.0], dtype=torch.float64)  # the gaps are 90, 0.5 and 50
    step = norms.get("Linf").hyperplane(points, w, b)
    assert rows == [2]
    torch.testing.assert_close(step, projection_linf(points, w, b), rtol=0, atol=1e-10)


@pytest.mark.parametrize("norm", REFERENCE)
def test_the_order_of_ties_does_not_matter(norm: str) -> None:
    """With equal slopes the reference takes any order; only the length is settled."""
    points, w, share = draw(64)
    points, w, b = plain(points, w.sign(), share)
    size = norms.get(norm).size
    step = norms.get(norm).hyperplane(points, w, b)
    torch.testing.assert_close(size(step), size(REFERENCE[norm](points, w, b)), rtol=0, atol=1e-10)
    torch.testing.assert_close((w * (points + step)).sum(dim=1), b, rtol=0, atol=1e-10)
