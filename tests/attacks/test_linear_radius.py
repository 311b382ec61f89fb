"""Against a linear model the distance to the decision boundary is known: every attack must find it.

Just beyond that radius every sample must fall, just below it none may. Every registered attack is held to
it, in every norm that it claims.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness import attacks
from harness.threat import ThreatModel
from tests.support import batch_of, drive, linear_model

SAMPLES = 12
RADIUS = {"Linf": 0.02, "L2": 0.05, "L1": 0.03}
DUAL = {"Linf": 1.0, "L2": 2.0, "L1": float("inf")}
BELOW, BEYOND = 0.98, 1.05


@dataclass(frozen=True)
class Budget:
    """What an attack gets, and on what it must succeed.

    Attributes:
        beyond: factors on the radius at which every sample must fall, where `BEYOND` is too little.
        searches_classes: it looks for the nearest class, not for the likeliest.
        classes, shape: of the model.
        smooth: the weights are the same all over a channel.
    """

    parameters: dict[str, Any] = field(default_factory=dict)
    beyond: dict[str, float] = field(default_factory=dict)
    searches_classes: bool = False
    classes: tuple[int, ...] = (2, 3, 5)
    shape: tuple[int, int, int] = (3, 4, 4)
    smooth: bool = False


# An attack that is not named here is held to `Budget()`.
BUDGETS: dict[str, list[Budget]] = {
    "apgd": [
        Budget({"loss": "ce", "steps": 100}),
        Budget({"loss": "dlr", "steps": 60}),
        Budget({"loss": "dlr-targeted", "steps": 60}, searches_classes=True),
        Budget({"loss": "dlr-targeted", "steps": 60, "larger_radii": True}, searches_classes=True),
    ],
    "fab": [
        Budget({"steps": 20}, searches_classes=True),
        Budget({"steps": 20, "targeted": True}, searches_classes=True),
    ],
    "pgd": [
        Budget({"loss": "ce", "steps": 60, "restarts": 1}),
        Budget({"loss": "margin", "steps": 60, "restarts": 1}),
        # away from the boundary the slope of the DLR loss leans towards the third class, whose best pixel is another
        Budget({"loss": "dlr", "steps": 60, "restarts": 1}, beyond={"L1": 1.2}),
    ],
    # The windows of the random search do not reach the last row and column (nor do the reference's), and
    # its bumps in L2 are peaked and of both signs, so that no sum of them is the best point.
    "square": [
        Budget(
            {"queries": 500},
            beyond={"Linf": 1.5, "L2": 3, "L1": 1.5},
            classes=(2,),
            shape=(1, 10, 10),
            smooth=True,
        )
    ],
}


def cases() -> list[Any]:
    return [
        pytest.param(name, norm, budget, classes, id=f"{name}-{number}-{norm}-{classes}")
        for name in attacks.names()
        for number, budget in enumerate(BUDGETS.get(name, [Budget()]))
        for norm in RADIUS
        for classes in budget.classes
    ]


def model_for(norm: str, classes: int, budget: Budget) -> nn.Module:
    """A linear model whose logits are equal at mid-grey."""
    model = linear_model(classes, budget.shape, seed=classes)
    weight, bias = model[1].weight, model[1].bias
    if budget.smooth:
        planes = weight.view(classes, budget.shape[0], -1)
        planes.copy_(planes[:, :, :1].clone())
    elif norm == "L1":
        # The best step spends all on the value with the largest weight, but the sparse steps of APGD never
        # get below two values. So two values share the largest difference of every two classes.
        weight[:, 10:12] = 6 * torch.arange(classes, dtype=weight.dtype)[:, None]
    # margins of some units at the radius, where the cross-entropy neither saturates nor mixes in far classes
    weight.mul_(8 / (RADIUS[norm] * (weight[0] - weight[1]).norm(p=DUAL[norm])))
    bias.copy_(-0.5 * weight.sum(dim=1))
    return model


def at_radius(model: nn.Module, norm: str, shape: tuple[int, int, int], *, clear: bool) -> tuple[Tensor, Tensor]:
    """Samples that all lie exactly ``RADIUS[norm]`` from the nearest decision boundary, and their classes.

    Margins grow linearly from mid-grey. So every sample is put on its own ray from there, where its margin
    over the nearest class, divided by the dual norm of the difference of the two rows of weights, is the
    radius.

    Args:
        clear: one other class is by far the likeliest, and so the nearest; otherwise the nearest need not be
            the likeliest, and an attack that follows the likeliest may miss it.
    """
    weight = model[1].weight
    classes = len(weight)
    generator = torch.Generator().manual_seed(11)
    rows = torch.arange(SAMPLES)
    y = rows % classes
    wanted = torch.rand(SAMPLES, classes, generator=generator, dtype=weight.dtype)
    if clear:
        wanted -= 3
        wanted[rows, (y + 1) % classes] = 1
    wanted[rows, y] = 2
    rays = wanted @ torch.linalg.pinv(weight).T
    logits = rays @ weight.T
    gaps = logits.gather(1, y[:, None]) - logits
    duals = (weight[y][:, None] - weight[None]).norm(p=DUAL[norm], dim=2)
    nearest = (gaps / duals).scatter(1, y[:, None], float("inf")).amin(dim=1, keepdim=True)
    offsets = rays * RADIUS[norm] / nearest
    assert offsets.abs().max() + 3 * RADIUS[norm] < 0.5, "the box must be out of reach"
    # on a grid, what is added to a value and taken back leaves no rounding behind, which APGD would count
    x = ((0.5 + offsets) * 2**20).round() / 2**20
    return x.view(-1, *shape), y


@pytest.mark.parametrize(("name", "norm", "budget", "classes"), cases())
def test_breaks_all_beyond_the_radius_and_none_below(name: str, norm: str, budget: Budget, classes: int) -> None:
    model = model_for(norm, classes, budget)
    x, y = at_radius(model, norm, budget.shape, clear=not budget.searches_classes)
    batch = batch_of(model, x, y)
    assert torch.equal(batch.logits.argmax(dim=1), y)

    def attacked(factor: float) -> tuple[ThreatModel, Tensor, Tensor]:
        threat = ThreatModel(norm, repr(factor * RADIUS[norm]))
        return threat, *drive(attacks.build(name, threat, classes, **budget.parameters), model, batch)

    threat, broken, points = attacked(budget.beyond.get(norm, BEYOND))
    assert broken.all(), f"{int((~broken).sum())} of {SAMPLES} samples stand"
    assert (threat.distance(points, x) <= threat.radius * (1 + 1e-9)).all()
    assert points.min() >= 0
    assert points.max() <= 1
    assert (model(points).argmax(dim=1) != y).all()

    _, broken, _ = attacked(BELOW)
    assert not broken.any()
