"""Passes are spent on samples that stand, counted, and nothing is believed that the judge has not confirmed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from harness import attacks
from harness.attacks import Attack, Batch, Oracle, Proposal, State
from harness.backends import equivalence
from harness.engine import preflight
from harness.errors import AttackError
from harness.evaluation import examine
from harness.suites import Step, Suite
from harness.threat import ThreatModel
from tests.engine.networks import network, samples
from tests.support import fix_choice

pytestmark = pytest.mark.usefixtures("unaudited")


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
    # a few iterations each: nowhere near 100
    assert first.forward < 10 * first.before


def test_passes_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    x, y = samples(model, 20)
    guarded: list[equivalence.Comparison] = []
    original = equivalence.compare

    def recorded(*args: Any, **kwargs: Any) -> equivalence.Comparison:
        guarded.append(original(*args, **kwargs))
        return guarded[-1]

    monkeypatch.setattr(equivalence, "compare", recorded)
    done = examine(model, x, y, threat="Linf:0.02", suite="pgd", workers=1)
    assert len(guarded) == 3, "on clean images, inside the ball, and where the attack ended"
    # alone, and twice together with a gradient once; the second sample is never alone
    preflight_forward, preflight_backward, again = 3 + 2, 2, 1
    total = done.verdicts.forward.sum()
    guard_forward, guard_backward = (sum(getattr(c, way).sum() for c in guarded) for way in ("forward", "backward"))
    assert total == 20 + preflight_forward + again + guard_forward + sum(step.forward for step in done.result.steps)
    spent = preflight_backward + guard_backward + sum(step.backward for step in done.result.steps)
    assert done.verdicts.backward.sum() == spent
    (step,) = done.result.steps
    survivors = int(done.verdicts.robust.sum())
    assert survivors
    per_run = 101  # 100 steps and the random start
    assert step.forward >= survivors * 5 * per_run


def test_survivors_are_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Recorder(network())
    guarded: list[int] = []
    original = equivalence.compare

    def recorded(*args: Any, **kwargs: Any) -> equivalence.Comparison:
        guarded.append(len(model.sizes))
        return original(*args, **kwargs)

    monkeypatch.setattr(equivalence, "compare", recorded)
    x, y = samples(model.inner, 64)
    model.sizes.clear()
    # PGD would let go of samples that come back to an earlier point
    suite = Suite("short", (Step("apgd", "apgd", {"steps": 30, "restarts": 1}),))
    done = examine(model, x, y, threat="Linf:0.02", suite=suite, workers=1, batch_size=16)
    step = done.result.steps[0]
    assert 0 < step.after < step.before // 2
    fewest = -(-step.after // 16)
    assert max(model.sizes) <= 16
    assert fewest < -(-step.before // 16), "the case must allow for packing"
    passes = model.sizes[: guarded[-1]]
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


def test_parallel_runs_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network(dtype=torch.float64)
    x, y = samples(model, 6)
    suite = Suite("t", (Step("apgd-t", "apgd", {"loss": "dlr-targeted", "steps": 10, "targets": 5}),))
    # no copy, because the guard fills whole batches, with some samples more often than with others
    monkeypatch.setattr(preflight, "eager", _cannot_be_copied)
    sizes = []
    for micro_batch in (1, 64):
        fix_choice(monkeypatch, micro_batch)
        sizes.append(examine(model, x, y, threat="Linf:0.01", suite=suite, workers=1))
    one, many = sizes
    assert np.array_equal(one.verdicts.robust, many.verdicts.robust)
    assert one.verdicts.robust.any()
    standing = one.verdicts.robust
    assert np.array_equal(one.verdicts.forward[standing], many.verdicts.forward[standing])


def _cannot_be_copied(*args: object, **kwargs: object) -> None:
    raise TypeError


@pytest.mark.parametrize("threat", ["L1:12", "L2:3", "Linf:8/255"])
def test_rounding_on_large_images_is_no_error_of_the_attack(threat: str) -> None:
    parsed = ThreatModel.parse(threat)
    x = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    far = (x + torch.randn(x.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    near = parsed.without_rounding(parsed.project(far, x), x)
    assert (parsed.distance(near, x) <= parsed.radius + parsed.tolerance).all()
    outside = parsed.without_rounding(far, x)
    assert torch.equal(outside, far), "what rounding does not explain is left where it is"
