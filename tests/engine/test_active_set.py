"""Passes are spent on samples that stand, counted, and nothing is believed that the judge has not confirmed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from harness import attacks
from harness.attacks import Attack, Batch, Oracle, Proposal, State
from harness.engine import preflight
from harness.errors import AttackError
from harness.evaluation import examine
from harness.suites import Step, Suite
from harness.threat import ThreatModel
from tests.engine.networks import network, samples


class Recorder(nn.Module):
    """Passes a network on and notes how large each batch was."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        out: Tensor = self.inner(x)
        return out

    def __deepcopy__(self, memo: object) -> Recorder:
        return self  # so that accelerated passes are seen as well


@dataclass(frozen=True)
class Scripted(Attack):
    """Claims what a table says: sample ``i`` at iteration ``table[i]`` (by the order of its first pixel)."""

    threat: ThreatModel
    shift: float = 0.0
    runs: int = 1
    steps: int = 6
    seen: list[int] = field(default_factory=list)

    def start(self, batch: Batch, oracle: Oracle, run: int) -> tuple[State, Proposal]:
        oracle.logits(batch.x)
        return {"point": batch.x.clone()}, Proposal(batch.x, torch.zeros(len(batch), dtype=torch.bool))

    def step(self, batch: Batch, state: State, oracle: Oracle, i: int) -> tuple[State, Proposal]:
        self.seen.append(len(batch))
        oracle.logits(state["point"])
        return state, Proposal(batch.x + self.shift, torch.ones(len(batch), dtype=torch.bool))


SUITE = Suite("scripted", (Step("scripted", "scripted"),))


def scripted(monkeypatch: pytest.MonkeyPatch, attack: Attack) -> None:
    monkeypatch.setattr(attacks, "build", lambda *args, **parameters: attack)


def test_a_broken_sample_costs_nothing_more() -> None:
    model = network()
    x, y = samples(model, 40)
    done = examine(model, x, y, threat="Linf:0.3", suite="autoattack", workers=1)
    assert done.result.robust_acc == 0
    first = done.result.steps[0]
    assert first.after == 0
    assert all(step.forward == 0 for step in done.result.steps[1:])
    # clean, at most three looks at the first two samples, and a few steps each: nowhere near 100 iterations
    assert done.verdicts.forward.max() < 20
    assert done.verdicts.forward[~(done.verdicts.clean_pred == y.numpy())].max() == 1


def test_passes_add_up() -> None:
    model = network()
    x, y = samples(model, 20)
    done = examine(model, x, y, threat="Linf:0.02", suite="pgd", workers=1)
    # alone, twice together, accelerated with a gradient and without; the second sample is never alone
    look = 5 + 3
    again = 1
    total = done.verdicts.forward.sum()
    assert total == 20 + look + again + sum(step.forward for step in done.result.steps)
    assert done.verdicts.backward.sum() == 2 * 2 + sum(step.backward for step in done.result.steps)
    standing = done.verdicts.robust
    per_run = 101  # 100 steps and the random start
    assert set(done.verdicts.forward[standing][2:]) == {5 * per_run - 0 + 1} or standing.sum() == 0


def test_survivors_are_packed() -> None:
    model = Recorder(network())
    x, y = samples(model.inner, 64)
    model.sizes.clear()
    suite = Suite("short", (Step("pgd", "pgd", {"steps": 30, "restarts": 1}),))
    done = examine(model, x, y, threat="Linf:0.02", suite=suite, workers=1, batch_size=16)
    step = done.result.steps[0]
    assert 0 < step.after < step.before // 2
    fewest = -(-step.after // 16)
    assert max(model.sizes) <= 16
    assert fewest < -(-step.before // 16), "the case must allow for packing"
    *passes, again = model.sizes
    assert again == 1, "one look at the model after the attack"
    assert sum(passes[-fewest:]) == step.after, "the last iteration takes as few passes as it can"


def test_a_point_outside_the_ball_is_an_error_of_the_attack(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    x, y = samples(model, 8)
    scripted(monkeypatch, Scripted(ThreatModel("Linf", "0.1"), shift=0.2))
    with pytest.raises(AttackError, match=r"scripted proposed a point outside Linf:0.1 for sample \d+: distance 0.2"):
        examine(model, x * 0.5, y, threat="Linf:0.1", suite=SUITE, workers=1)


def test_a_point_outside_the_box_is_an_error_of_the_attack(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    x, y = samples(model, 8)
    scripted(monkeypatch, Scripted(ThreatModel("Linf", "0.1"), shift=0.09))
    with pytest.raises(AttackError, match=r"pixels .* to 1\.0"):
        examine(model, x, y, threat="Linf:0.1", suite=SUITE, workers=1)


def test_nan_points_are_an_error_of_the_attack(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    x, y = samples(model, 8)
    scripted(monkeypatch, Scripted(ThreatModel("Linf", "0.1"), shift=float("nan")))
    with pytest.raises(AttackError, match="outside"):
        examine(model, x, y, threat="Linf:0.1", suite=SUITE, workers=1)


def test_what_the_judge_rejects_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    x, y = samples(model, 10)
    attack = Scripted(ThreatModel("Linf", "0.1"))  # claims the clean image, which is classified correctly
    scripted(monkeypatch, attack)
    done = examine(model, x, y, threat="Linf:0.1", suite=SUITE, workers=1)
    assert done.result.robust_acc == done.result.clean_acc
    assert done.result.steps[0].rejected == 9 * attack.steps
    assert attack.seen == [9] * attack.steps


def test_confirmed_points_are_adversarial() -> None:
    model = network()
    x, y = samples(model, 40)
    for threat in ("Linf:0.05", "L2:0.5", "L1:4"):
        done = examine(model, x, y, threat=threat, suite="autoattack-rand", workers=1)
        broken = torch.from_numpy(done.verdicts.broken_by >= 0)
        assert broken.any()
        with torch.no_grad():
            assert (model(done.points[broken]).argmax(1) != y[broken]).all()
        parsed = ThreatModel.parse(threat)
        assert (parsed.distance(done.points, x) <= parsed.radius + parsed.tolerance).all()
        assert done.points.min() >= 0
        assert done.points.max() <= 1
        assert torch.equal(done.points[~broken], x[~broken])


def test_lanes_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network(dtype=torch.float64)
    x, y = samples(model, 6)
    suite = Suite("t", (Step("apgd-t", "apgd", {"loss": "dlr-targeted", "steps": 10, "targets": 5}),))
    sizes = []
    for lanes in (1, 64):
        monkeypatch.setattr(preflight, "_lanes", lambda *_, lanes=lanes: lanes)
        sizes.append(examine(model, x, y, threat="Linf:0.01", suite=suite, workers=1))
    one, many = sizes
    assert np.array_equal(one.verdicts.robust, many.verdicts.robust)
    assert one.verdicts.robust.any()
    standing = one.verdicts.robust
    assert np.array_equal(one.verdicts.forward[standing], many.verdicts.forward[standing])


@pytest.mark.parametrize("threat", ["L1:12", "L2:3", "Linf:8/255"])
def test_rounding_on_large_images_is_no_error_of_the_attack(threat: str) -> None:
    parsed = ThreatModel.parse(threat)
    x = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    far = (x + torch.randn(x.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    near = parsed.without_rounding(parsed.project(far, x), x)
    assert (parsed.distance(near, x) <= parsed.radius + parsed.tolerance).all()
    outside = parsed.without_rounding(far, x)
    assert torch.equal(outside, far), "what rounding does not explain is left where it is"
