"""Examples for training stay in the ball, raise the loss, and leave the model alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from harness.threat import ThreatModel
from harness.threat.perturb import Crafting, craft
from tests.training.tiny import digits, parent

KINDS = ("pgd", "fgsm", "r-fgsm")


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def model(tmp_path: Any) -> Any:
    return parent(tmp_path).model.requires_grad_(True)


@pytest.mark.parametrize("threat", ["Linf:0.15", "L2:0.8", "L1:3"])
@pytest.mark.parametrize("kind", KINDS)
def test_crafted_points_stay_in_the_ball_and_raise_the_loss(kind: Any, threat: str, model: Any) -> None:
    ball = ThreatModel.parse(threat)
    x, y = digits().x[:16], digits().y[:16]

    def loss(logits: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits, y, reduction="sum")

    points = craft(model, x, raises=loss, crafting=Crafting.of(kind, ball, steps=4), generator=_generator())
    assert points.shape == x.shape
    assert not points.requires_grad
    assert float(ball.distance(points, x).max()) <= ball.radius + ball.tolerance
    assert 0 <= float(points.min()) <= float(points.max()) <= 1
    with torch.no_grad():
        assert loss(model(points)) > loss(model(x))


@pytest.mark.parametrize("kind", KINDS)
def test_crafting_in_eval_mode_touches_nothing_of_the_model(kind: Any, model: Any) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x, y = digits().x[:8], digits().y[:8]
    crafting = Crafting.of(kind, ThreatModel("Linf", "0.15"), steps=3)
    craft(model, x, raises=lambda z: F.cross_entropy(z, y), crafting=crafting, generator=_generator())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_no_weight_gradient_is_computed_while_crafting(model: Any) -> None:
    asked: list[bool] = []
    model.network.conv1.register_forward_pre_hook(lambda m, i: asked.append(m.weight.requires_grad))
    crafting = Crafting.of("pgd", ThreatModel("Linf", "0.15"), steps=2)
    craft(model, digits().x[:4], raises=lambda z: z.sum(), crafting=crafting, generator=_generator())
    assert asked == [False, False]


def test_the_random_start_comes_from_the_generator_alone(model: Any) -> None:
    x, y = digits().x[:8], digits().y[:8]

    def points(seed: int) -> torch.Tensor:
        crafting = Crafting.of("pgd", ThreatModel("L2", "0.5"), steps=1, step_size=0.01)
        return craft(model, x, raises=lambda z: F.cross_entropy(z, y), crafting=crafting, generator=_generator(seed))

    state = torch.get_rng_state()
    assert torch.equal(points(1), points(1))
    assert not torch.equal(points(1), points(2))
    assert torch.equal(state, torch.get_rng_state())


def test_step_sizes_of_the_papers() -> None:
    ball = ThreatModel("Linf", "0.3")
    assert Crafting.of("pgd", ball, steps=10).step_size == pytest.approx(0.075)
    assert Crafting.of("fgsm", ball, steps=10) == Crafting("fgsm", ball, 1, pytest.approx(0.375))
    assert Crafting.of("r-fgsm", ball, steps=10).step_size == pytest.approx(0.15)
    assert Crafting.of("pgd", ball, steps=10, step_size=0.1).step_size == 0.1


def test_r_fgsm_moves_every_pixel_by_its_random_step_and_its_gradient_step(model: Any) -> None:
    x = torch.full((4, 1, 8, 8), 0.5)
    crafting = Crafting.of("r-fgsm", ThreatModel("Linf", "0.2"), steps=1)
    y = torch.arange(4)
    points = craft(model, x, raises=lambda z: F.cross_entropy(z, y), crafting=crafting, generator=_generator())
    # two steps of half the radius each: they add up or cancel
    steps = ((points - x).abs() / 0.1).round(decimals=4)
    assert set(steps.unique().tolist()) == {0.0, 2.0}
