"""Square Attack queries the same points as pyautoattack's, given the same random numbers."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.attacks import Batch, build
from harness.attacks.square import _BLOCK, share_of_image
from harness.threat import ThreatModel, norms
from harness.threat.rng import Draws
from tests.support import PlainOracle, batch_of

reference = importlib.import_module("pyautoattack.square")

# windows of five sizes: the share of the image is halved after 10, 50, 200 and 500 queries
QUERIES = 620
CASES = [
    ("Linf", "0.1", (3, 16, 16), "margin"),
    ("Linf", "0.1", (1, 8, 8), "ce"),
    ("L2", "0.8", (3, 16, 16), "margin"),
    ("L2", "0.8", (1, 8, 8), "margin"),
    ("L2", "1.5", (2, 20, 20), "ce"),
    ("L1", "6", (3, 16, 16), "margin"),
    ("L1", "6", (1, 8, 8), "margin"),
    ("L1", "12", (2, 20, 20), "ce"),
]


class Recorder(nn.Module):
    """A small network that cannot be fooled (so that nobody leaves) and remembers its inputs."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, height, width = shape
        generator = torch.Generator().manual_seed(3)
        self.kernel = torch.randn(4, channels, 3, 3, generator=generator, dtype=torch.float64)
        outputs = (4, 4 * (height - 2) * (width - 2))
        self.head = torch.randn(outputs, generator=generator, dtype=torch.float64) / 10
        self.lead = torch.tensor([16.0, 0, 0, 0], dtype=torch.float64)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.clone())
        return torch.tanh(nn.functional.conv2d(x, self.kernel)).flatten(1) @ self.head.T + self.lead


class ScriptedTorch:
    """``torch`` as the reference sees it, its uniform numbers read from a list."""

    def __init__(self, numbers: Iterator[float]) -> None:
        self.numbers = numbers

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def rand(self, shape: list[int]) -> Tensor:
        drawn = [next(self.numbers) for _ in range(math.prod(shape))]
        return torch.tensor(drawn, dtype=torch.float64).view(shape)


class ExactSum:
    """A correction whose sum with the point that it corrects is known without rounding."""

    def __init__(self, total: Tensor) -> None:
        self.total = total

    def __radd__(self, point: Tensor) -> Tensor:
        return self.total


def exact_projection(x: Tensor, delta: Tensor, eps: float) -> ExactSum:
    """The reference's l1 projection, without the noise of its ``x + delta + correction``.

    Where the projection takes a pixel back to the clean image, that sum leaves about 1e-17 of it, and
    dividing a window of nothing else by its own norm makes a direction out of this rounding error.
    """
    moved = delta + original_projection(x, delta, eps)
    return ExactSum(x + moved.where(moved.abs() > 1e-13, 0.0))


original_projection = reference.L1_projection


def numbers_of(draws: Draws, norm: str, shape: tuple[int, int, int]) -> Iterator[float]:
    """The draws of one sample in the order in which the reference asks for them."""
    channels, height, width = shape
    side = height // 5
    tiles = (height // side) * (width // side)
    yield from draws.uniform(0, (channels * width,) if norm == "Linf" else (tiles * (1 + channels),))[0].tolist()
    for block in range(1, 2 + QUERIES // _BLOCK):
        each = (2 if norm == "Linf" else 5) + channels
        yield from draws.uniform(block, (_BLOCK, each))[0].flatten().tolist()


def queried_by_reference(batch: Batch, threat: ThreatModel, loss: str, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    shape = tuple(batch.x.shape[1:])
    model = Recorder(shape)
    attack = reference.SquareAttack(
        model, norm=threat.norm, n_queries=QUERIES, eps=threat.radius, loss=loss, resc_schedule=False
    )
    attack.init_hyperparam(batch.x)
    with monkeypatch.context() as patch:
        patch.setattr(reference, "torch", ScriptedTorch(numbers_of(batch.draws, threat.norm, shape)))
        patch.setattr(reference, "L1_projection", exact_projection)
        # it computes in the default type, and rounds to float32 in its l1 projection
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        torch.set_default_dtype(torch.float64)
        try:
            attack.attack_single_run(batch.x, batch.y)
        finally:
            torch.set_default_dtype(torch.float32)
    return torch.cat(model.seen)


def queried_by_ours(batch: Batch, threat: ThreatModel, loss: str) -> Tensor:
    oracle = PlainOracle(Recorder(tuple(batch.x.shape[1:])))
    attack = build("square", threat, 4, queries=QUERIES, loss=loss)
    state, proposal = attack.start(batch, oracle, 0)
    # from the proposals, because a candidate that is the best point itself is not asked for again
    tried = [proposal.points.clone()]
    for i in range(attack.steps):
        state, proposal = attack.step(batch, state, oracle, i)
        tried.append(proposal.points.clone())
    return torch.cat(tried)


@pytest.mark.parametrize(("norm", "eps", "shape", "loss"), CASES)
def test_queries_the_reference_s_points(
    norm: str, eps: str, shape: tuple[int, int, int], loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.rand(1, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    batch = batch_of(Recorder(shape), x, torch.zeros(1, dtype=torch.int64), seed=5)
    threat = ThreatModel(norm, eps)
    theirs = queried_by_reference(batch, threat, loss, monkeypatch)
    ours = queried_by_ours(batch, threat, loss)
    assert ours.shape == theirs.shape == (QUERIES + 1, *shape)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)
    # the search must really have moved, and must really have turned candidates down
    values = Recorder(shape)(ours)
    margins = values[:, 1:].amax(dim=1) - values[:, 0]
    records = int((margins[1:] > margins.cummax(dim=0).values[:-1]).sum())
    assert 10 < records < QUERIES - 100


def test_window_schedule_is_the_reference_s() -> None:
    attack = reference.SquareAttack(None, p_init=0.8, resc_schedule=False)
    for query in range(10_000):
        assert share_of_image(query, 0.8) == attack.p_selection(query)


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
@pytest.mark.parametrize("height", [5, 8, 28, 32])
def test_window_sides_are_the_reference_s(norm: str, height: int) -> None:
    attack = reference.SquareAttack(None, norm=norm, p_init=0.8, resc_schedule=False)
    for query in (0, 11, 51, 201, 501, 1001, 2001, 4001, 6001, 8001):
        expected = round(math.sqrt(attack.p_selection(query) * height * height))
        if norm == "Linf":
            expected = max(expected, 1)
        else:
            expected = max(expected, 3)
            expected += expected % 2 == 0
        assert norms.get(norm).moves().side(share_of_image(query, 0.8), height, height) == min(expected, height)


@pytest.mark.parametrize(("norm", "order", "decay"), [("L2", 2, 2), ("L1", 1, 4)])
@pytest.mark.parametrize("side", [1, 2, 3, 5, 6, 13, 29])
def test_bumps_are_the_reference_s(
    norm: str, order: int, decay: int, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.threat.norms._pyramids import _pyramids

    attack = reference.SquareAttack(None, norm=norm, device="cpu")
    ours = _pyramids(side, order, decay, torch.float64, torch.device("cpu")).view(2, side, side)
    for turned, number in ((0, 0.2), (1, 0.7)):
        monkeypatch.setattr(reference, "torch", ScriptedTorch(iter([number])))
        torch.testing.assert_close(ours[turned].float(), attack.eta(side), rtol=1e-5, atol=1e-6)
