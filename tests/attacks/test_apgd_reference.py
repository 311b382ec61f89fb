"""APGD goes where the authors' code goes, point by point: every pass that their model sees is compared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from torch import Tensor, nn

from harness import attacks
from harness.attacks import Batch
from harness.attacks._base import Loss
from harness.threat import ThreatModel
from harness.threat.rng import Draws
from tests.support import PlainOracle, batch_of

STEPS = 100
TOLERANCE = 1e-9
EPS = {"Linf": "0.02", "L2": "0.25", "L1": "2"}
LOSSES = ("ce", "dlr", "dlr-targeted")


class Recording(PlainOracle):
    """Keeps the points that passes are made at."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.points: list[Tensor] = []

    def logits(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        self.points.append(x.clone())
        return super().logits(x, rows)

    def gradient(self, x: Tensor, loss: Loss, rows: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        self.points.append(x.clone())
        return super().gradient(x, loss, rows)


@pytest.fixture
def in_double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The reference calls ``.float()`` and makes tensors of the default type: here both mean float64."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    yield
    torch.set_default_dtype(default)


@pytest.fixture
def case(in_double: None) -> tuple[nn.Module, Batch]:
    """A smooth network with random weights, and samples of 3x8x8 whose labels are its predictions."""
    torch_state = torch.get_rng_state()
    torch.manual_seed(5)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(8, 12, 3, stride=2),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(108, 10),
    ).requires_grad_(False)
    model[-1].weight *= 6
    x = torch.rand(7, 3, 8, 8)
    # pixels at the edges of the box, as real images have them
    x[0] = (x[0] * 4).round() / 4
    torch.set_rng_state(torch_state)
    return model, batch_of(model, x, model(x).argmax(dim=1))


def reference(
    norm: str, loss: str, model: nn.Module, batch: Batch, *, n_iter: int = STEPS, **options: Any
) -> tuple[APGDAttack, list[Tensor]]:
    """The authors' attack, and the list that the points which it asks about will be put in."""
    points: list[Tensor] = []

    def watched(x: Tensor) -> Tensor:
        points.append(x.detach().clone())
        return model(x)

    common = {"n_iter": n_iter, "norm": norm, "eps": float(EPS[norm]), "device": "cpu", **options}
    if loss == "dlr-targeted":
        attack = APGDAttack_targeted(watched, **common)
    else:
        attack = APGDAttack(watched, loss=loss, **common)
    attack.init_hyperparam(batch.x)
    return attack, points


def same_noise(monkeypatch: pytest.MonkeyPatch, batch: Batch) -> None:
    """Give the reference the random numbers that ours will draw."""
    shape = tuple(batch.x.shape[1:])
    monkeypatch.setattr(torch, "rand", lambda *_, **__: batch.draws.uniform(0, shape))
    monkeypatch.setattr(torch, "randn", lambda *_, **__: batch.draws.normal(0, shape))
    monkeypatch.setattr(torch, "randn_like", lambda *_, **__: batch.draws.normal(0, shape))


def on_grid(values: Tensor) -> Tensor:
    return (values * 64).round() / 64


def ours(
    norm: str, model: nn.Module, batch: Batch, *, run: int = 0, steps: int = STEPS, **parameters: Any
) -> tuple[Recording, Tensor, Tensor]:
    """What ours asked about, who was claimed, and the loss of the best point."""
    attack = attacks.build("apgd", ThreatModel(norm, EPS[norm]), 10, steps=steps, **parameters)
    oracle = Recording(model)
    state, proposal = attack.start(batch, oracle, run)
    claimed = proposal.claimed.clone()
    for i in range(steps):
        state, proposal = attack.step(batch, state, oracle, i)
        claimed |= proposal.claimed
    if parameters.get("eot", 1) == 1 and steps > 1:
        # the first step is looked at before its gradient is taken: one point, asked about twice
        assert torch.equal(oracle.points[1], oracle.points[2])
        del oracle.points[1]
    return oracle, claimed, state["best_loss"]


def compare(theirs: list[Tensor], mine: list[Tensor]) -> None:
    assert len(theirs) == len(mine)
    gaps = [float((a - b).abs().max()) for a, b in zip(theirs, mine, strict=True)]
    worst = max(gaps)
    assert worst <= TOLERANCE, f"first apart at pass {next(i for i, g in enumerate(gaps) if g > TOLERANCE)}: {worst}"


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("norm", EPS)
def test_same_points_and_losses(
    norm: str, loss: str, case: tuple[nn.Module, Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = case
    attack, points = reference(norm, loss, model, batch)
    target = 2
    if loss == "dlr-targeted":
        attack.y_target = batch.logits.sort(dim=1)[1][:, -(target + 2)]
    same_noise(monkeypatch, batch)
    _, acc, best_loss, _ = attack.attack_single_run(batch.x, batch.y)

    oracle, claimed, best = ours(norm, model, batch, run=target, loss=loss)

    compare(points, oracle.points)
    assert float((best - best_loss).abs().max()) <= TOLERANCE
    assert torch.equal(claimed, ~acc)
    assert not claimed.all(), "samples that stand are needed for a comparison to the end"


@pytest.mark.parametrize("loss", LOSSES)
def test_same_points_with_larger_radii(
    loss: str, case: tuple[nn.Module, Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = case
    # the reference takes its first width from how many values of the start differ from the image, those by
    # one rounding included; on a grid of 1/64 adding noise and taking it back is exact, so that none does
    drawn = Draws.normal
    monkeypatch.setattr(Draws, "normal", lambda *at: on_grid(drawn(*at)))
    x = on_grid(batch.x)
    batch = batch_of(model, x, model(x).argmax(dim=1))
    eps = float(EPS["L1"])
    attack, points = reference("L1", loss, model, batch)
    if loss == "dlr-targeted":
        attack.y_target = batch.logits.sort(dim=1)[1][:, -2]
    same_noise(monkeypatch, batch)
    _, acc, best_loss, _ = attack.decr_eps_pgd(batch.x, batch.y, [3 * eps, 2 * eps, eps], [30, 30, 40])

    oracle, claimed, best = ours("L1", model, batch, loss=loss, larger_radii=True)

    compare(points, oracle.points)
    assert float((best - best_loss).abs().max()) <= TOLERANCE
    # a point within eps may turn up in an earlier phase, where the reference does not look
    assert not (~acc & ~claimed).any()


@pytest.mark.parametrize("norm", ["Linf", "L1"])
def test_same_averaged_gradients(norm: str, case: tuple[nn.Module, Batch], monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = case
    attack, points = reference(norm, "ce", model, batch, eot_iter=3)
    same_noise(monkeypatch, batch)
    attack.attack_single_run(batch.x, batch.y)
    oracle, _, _ = ours(norm, model, batch, eot=3)
    # the reference averages once more after the last step, for a gradient that nothing uses
    compare(points[: len(oracle.points)], oracle.points)
    assert len(points) == len(oracle.points) + 2


@pytest.mark.parametrize("rho", [0.6, 0.9])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("steps", [1, 7, 33])
def test_same_points_on_other_schedules(
    norm: str, rho: float, steps: int, case: tuple[nn.Module, Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = case
    attack, points = reference(norm, "dlr", model, batch, rho=rho, n_iter=steps)
    same_noise(monkeypatch, batch)
    attack.attack_single_run(batch.x, batch.y)
    oracle, _, _ = ours(norm, model, batch, loss="dlr", rho=rho, steps=steps)
    compare(points, oracle.points)
