"""The step to a hyperplane of a row depends on no row beside it, bit for bit."""

from __future__ import annotations

import pytest
import torch

from harness.threat import ThreatModel

ROWS = 200


@pytest.mark.parametrize(("norm", "eps"), [("Linf", "0.1"), ("L2", "0.5"), ("L1", "2")])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 7)])
def test_steps_are_the_same_in_every_batch(norm: str, eps: str, shape: tuple[int, ...]) -> None:
    geometry = ThreatModel(norm, eps).geometry
    draws = torch.Generator().manual_seed(0)
    # pixels that lie on the box and slopes of zero, as networks have them
    points = torch.rand(ROWS, *shape, generator=draws)
    points = torch.where(torch.rand(points.shape, generator=draws) < 0.3, points.round(), points)
    slope = torch.randn(ROWS, *shape, generator=draws)
    slope = torch.where(torch.rand(slope.shape, generator=draws) < 0.2, 0.0, slope)
    b = geometry.flat(slope * points).sum(dim=1) - torch.randn(ROWS, generator=draws)
    together = geometry.hyperplane(points, slope, b)
    for size in (1, 3, 16):
        for first in range(0, ROWS - size, 17):
            rows = slice(first, first + size)
            assert torch.equal(geometry.hyperplane(points[rows], slope[rows], b[rows]), together[rows])
