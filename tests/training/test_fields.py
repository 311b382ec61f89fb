"""First values, crafting of a phase's own, rates of a part's own: each field does what it says, and alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harness import models, regimes
from harness.errors import InvalidInput
from harness.models._selectors import bn_layers
from harness.regimes import Init, PartOptimizer, Phase, Regime
from harness.threat import ThreatModel
from harness.threat.perturb import Crafting, begin, craft
from harness.training import Settings, identity
from harness.training import step as steps
from harness.training.initialize import initialize
from harness.training.plan import Plan, plan
from harness.training.schedules import SCHEDULES
from tests.training.tiny import ARCHITECTURE, digits, moved, parent, settings, trained

BN = ("bn-gamma", "bn-beta")


def made(**fields: Any) -> Regime:
    return Regime(**{"name": "mine", "summary": "a test", "loss": "adversarial"} | fields)


def planned(regime: Regime, **changes: Any) -> Plan:
    return plan(
        regime,
        settings(**changes),
        digits(),
        architecture=ARCHITECTURE,
        parent=None,
        device=torch.device("cpu"),
    )


def test_scales_can_be_a_constant_or_uniform() -> None:
    for value, lowest, highest in ((0.25, 0.25, 0.25), ("uniform", 0.0, 1.0)):
        model = planned(made(init=Init(bn_gamma=value))).model
        scales = torch.cat([layer.weight.detach() for layer in bn_layers(model.network).values()])
        assert lowest <= float(scales.min()) <= float(scales.max()) <= highest
        assert (len(set(scales.tolist())) > 100) == (value == "uniform")
        assert moved(planned(made()).model, model) == {
            f"{name}.weight" for name in bn_layers(model.network)
        }  # and nothing else


def test_convolutions_and_the_head_can_be_drawn_otherwise() -> None:
    plain = planned(made()).model
    convolutions = moved(plain, planned(made(init=Init(conv="kaiming-normal"))).model)
    head = moved(plain, planned(made(init=Init(head="orthogonal"))).model)
    assert len(convolutions) > 5
    assert not convolutions & head
    assert len(head) == 1
    model = planned(made(init=Init(head="orthogonal"))).model
    (name,) = head
    rows = model.network.state_dict()[name]
    assert torch.allclose(rows @ rows.T, torch.eye(len(rows)), atol=1e-5)


def test_kaiming_has_its_variance_and_depends_on_the_seed_alone() -> None:
    def built(seed: int) -> Tensor:
        model = models.build("resnet20", classes=10, shape=(3, 32, 32), seed=0)
        initialize(model, Init(conv="kaiming-normal"), seed)
        weights: Tensor = dict(model.network.named_parameters())["layer3.2.conv2.weight"].detach()
        return weights

    state = torch.get_rng_state()
    one, again, other = built(1), built(1), built(2)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    fan_in = one[0].numel()
    assert float(one.var()) == pytest.approx(2 / fan_in, rel=0.05)


def test_parts_that_are_reset_take_the_first_values_too(tmp_path: Path) -> None:
    start = parent(tmp_path)
    regime = made(start="parent", trained=("head",), reset=("bn-gamma",), init=Init(bn_gamma=0.5), loss="natural")
    after = trained(regime, start, epochs=1).last
    assert all(bool((layer.weight == 0.5).all()) for layer in bn_layers(after.network).values())
    with pytest.raises(InvalidInput, match="leave out init"):
        made(start="parent", init=Init(bn_gamma=0.5))


def test_a_phase_has_its_own_attack_threat_steps_and_start() -> None:
    regime = made(
        phases=(
            Phase(attack="fgsm", threat="Linf:0.05"),
            Phase(steps=5, crafting_start="clean"),
            Phase(step_size=0.01),
        )
    )
    first, second, third = (stage.crafting for stage in planned(regime, step_size=0.03).stages)
    assert (first.kind, first.steps, first.threat, first.step_size) == ("fgsm", 1, ThreatModel("Linf", "0.05"), 0.0625)
    assert (second.kind, second.steps, second.start) == ("pgd", 5, "clean")
    assert second.step_size == pytest.approx(2.5 * 0.15 / 5)  # a step size belongs to a number of steps
    assert (third.steps, third.step_size, third.start) == (2, 0.01, "random")


def test_a_step_size_is_written_as_a_radius_is() -> None:
    regime = made(phases=(Phase(step_size="2/255"), Phase(steps=3)))
    first, second = (stage.crafting for stage in planned(regime, step_size="4/255").stages)
    assert first.step_size == 2 / 255
    assert second.step_size == pytest.approx(2.5 * 0.15 / 3)
    (only,) = planned(made(), step_size="4/255").stages
    assert only.crafting.step_size == 4 / 255


def test_crafting_begins_at_the_image_where_that_is_asked_for() -> None:
    x = digits().x[:4]
    threat = ThreatModel("Linf", "0.1")
    clean = Crafting.of("pgd", threat, steps=1, start="clean")
    assert torch.equal(begin(x, clean, torch.Generator().manual_seed(0)), x)
    assert not torch.equal(begin(x, Crafting.of("pgd", threat, steps=1), torch.Generator().manual_seed(0)), x)
    model = planned(made()).model.eval()
    points = [
        craft(model, x, raises=lambda out: out.sum(), crafting=clean, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 1)
    ]
    assert torch.equal(*points)


def test_eps_grows_over_its_share_of_the_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    radii: list[float] = []
    original = steps.craft

    def noted(model: Any, x: Tensor, **how: Any) -> Tensor:
        points = original(model, x, **how)
        radii.append(how["crafting"].threat.radius)
        assert float((points - x).abs().max()) <= radii[-1] + 1e-6
        return points

    monkeypatch.setattr(steps, "craft", noted)
    trained(made(eps_ramp=0.5), None, epochs=4)
    full = 0.15
    assert radii[0] == pytest.approx(0.01 * full)
    half = len(radii) // 2
    assert radii[:half] == sorted(radii[:half])
    assert all(radius < full for radius in radii[:half])
    assert all(radius == pytest.approx(full) for radius in radii[half:])


def test_a_part_has_a_schedule_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[tuple[float, float]] = []
    original = steps.step

    def noted(run: Any, stage: Any, movers: Any, *rest: Any) -> Any:
        rates.append(tuple(mover.param_groups[0]["lr"] for mover in movers))
        return original(run, stage, movers, *rest)

    monkeypatch.setattr("harness.training.loop.step", noted)
    own = PartOptimizer(part=BN, learning_rate=0.5, schedule="step")
    trained(made(optimizers=(own,), loss="natural", learning_rate=0.2), None, epochs=4, schedule="constant")
    common, parts = zip(*rates, strict=True)
    assert set(common) == {0.2}
    assert list(parts) == [0.5 * SCHEDULES["step"](i / len(parts)) for i in range(len(parts))]


def test_weight_decay_of_a_phase() -> None:
    one = trained(made(loss="natural", weight_decay=0.5), None, epochs=1)
    other = trained(made(loss="natural"), None, epochs=1, weight_decay=0.5)
    assert not moved(one.last, other.last)
    assert moved(one.last, trained(made(loss="natural"), None, epochs=1).last)


def test_free_training_moves_parameters_at_every_gradient_of_crafting(monkeypatch: pytest.MonkeyPatch) -> None:
    moves = {False: 0, True: 0}
    original = torch.optim.SGD.step
    free = False

    def counted(self: torch.optim.SGD, *args: Any) -> Any:
        moves[free] += 1
        return original(self, *args)

    monkeypatch.setattr(torch.optim.SGD, "step", counted)
    for free in (False, True):
        trained(made(trained=BN, free=free), None, epochs=2, steps=3)
    assert moves[True] == 4 * moves[False]
    with pytest.raises(InvalidInput, match="free"):
        made(free=True, loss="mixed")


def test_free_points_stay_inside_the_threat_model_and_raise_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Tensor, Tensor]] = []
    original = steps.advance

    def noted(points: Tensor, gradient: Tensor, x: Tensor, crafting: Crafting) -> Tensor:
        after = original(points, gradient, x, crafting)
        seen.append((x, after))
        # the step goes up along the gradient that the parameters' step came from
        assert float(((after - points) * gradient).sum()) > 0
        return after

    monkeypatch.setattr(steps, "advance", noted)
    trained(made(free=True), None, epochs=1)
    assert seen
    for x, points in seen:
        assert float((points - x).abs().max()) <= 0.15 + 1e-6
        assert 0 <= float(points.min()) <= float(points.max()) <= 1


def test_new_fields_leave_the_identity_of_those_who_do_not_use_them() -> None:
    content = identity.content(made(), Settings())
    assert content["regime"]["stages"] == [{"loss": "adversarial"}]
    assert "init" not in content["regime"]
    assert identity.content(made(init=Init(bn_gamma=1.0)), Settings()) != content
    assert identity.content(made(eps_ramp=0.5), Settings()) != content
    assert identity.content(made(), Settings(seed=1)) != content


def test_the_late_layers_under_awp_are_without_the_head() -> None:
    stage = planned(regimes.get("awp-layers")).stages[0]
    assert stage.perturbed
    assert not any("head" in name or "fc" in name or "linear" in name for name in stage.perturbed)


def test_the_loss_of_the_log_is_that_of_the_full_crafting() -> None:
    row = trained(made(free=True, trained=BN), None, epochs=1).log[0]
    assert row.loss == pytest.approx(float(F.cross_entropy(torch.zeros(1, 10), torch.zeros(1).long())), rel=0.5)
