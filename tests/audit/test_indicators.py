"""Attacks that failed are noticed: by what they left behind, and by simple attacks that must not do better."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import harness
from harness import checkpoints
from harness.audit import indicators
from harness.audit.indicators import Attacked
from harness.suites import Step, Suite
from harness.threat import ThreatModel
from harness.util import plugins
from tests.audit.planted import PLANTED, Around, Backward, base, before, digits, gradient
from tests.house._tree import ROOT
from tests.support import fix_choice

X, Y = digits(24)
THREAT = ThreatModel("Linf", "0.15")


@pytest.fixture(autouse=True)
def no_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes are made by the first copy, without finding out how many rows are fastest."""
    fix_choice(monkeypatch)


def attacked(model: nn.Module, threat: ThreatModel = THREAT, **changes: Any) -> Attacked:
    """The outcome of an attack that broke nothing, unless ``changes`` say otherwise."""
    with torch.no_grad():
        predicted = model(X.clone()).argmax(1)
    outcome = {"robust": predicted == Y, "points": X, "adversarial": predicted, "predicted": predicted}
    where = {"index": np.arange(len(X)), "total": len(X), "differentiable": True, "device": torch.device("cpu")}
    return Attacked(model=model, x=X, y=Y, threat=threat, **where, **(outcome | changes))


def codes(outcome: Attacked) -> set[str]:
    trials, failed = indicators.probe(outcome)
    return {flag.code for flag in (*indicators.flags(trials, len(X)), *failed)}


def half_broken() -> Attacked:
    """Half of the samples broken by one perturbation, which breaks the others as well."""
    model = Around(after=lambda z, x: torch.where(x[:, :, 0, 0] > 0.9, z.roll(1, 1), z))
    corner = torch.zeros_like(X[0])
    corner[0, 0, 0] = 1.0
    robust = model(X).argmax(1) == Y
    robust[::2] = False
    points = torch.where(robust[:, None, None, None], X, (X + corner).clamp(0, 1))
    adversarial = model(points).argmax(1)
    return attacked(model, ThreatModel("Linf", "1"), robust=robust, points=points, adversarial=adversarial)


def right_at_the_images(g: Tensor) -> Tensor:
    return -g if RECORDED[0] else g


RECORDED = [False]


def noticing(x: Tensor) -> Tensor:
    """The gradient is reversed at points that are not in steps of 1/16, as the digits are."""
    RECORDED[0] = bool((x * 16 - (x * 16).round()).abs().amax() > 1e-3)
    return Backward.apply(x, right_at_the_images)  # type: ignore[no-any-return, no-untyped-call]


class Weakening(Attacked):
    """An attack that does worse in a larger ball."""

    def climbed(self, x: Tensor, y: Tensor, threat: ThreatModel, *, steps: int = 10) -> Tensor:
        return torch.arange(len(x)) < (0 if threat.radius > 0.2 or steps == 1 else 3)


def weakening() -> Attacked:
    return Weakening(**vars(attacked(base())))


FAILED: dict[str, tuple[Callable[[], Attacked], str, str]] = {
    "noise is stronger": (lambda: attacked(base(), ThreatModel("Linf", "0.6")), "noise-gains", "gains"),
    "others' perturbations are stronger": (half_broken, "transfer-gains", "gains"),
    "ten steps are stronger": (lambda: attacked(base()), "short-pgd-gains", "gains"),
    "one step is stronger than ten": (
        lambda: attacked(before(noticing)(), ThreatModel("Linf", "0.2")),
        "one-step-stronger",
        "larger-eps",
    ),
    "a larger ball is worse": (weakening, "larger-eps-weaker", "larger-eps"),
    "no ball is no help": (lambda: attacked(gradient(torch.neg)()), "unbounded-fails", "unbounded"),
    "answers have changed": (
        lambda: attacked(base(), predicted=(Y + 1) % 10, robust=Y < 0),
        "unstable-verdicts",
        "stability",
    ),
}


@pytest.mark.parametrize("name", FAILED)
def test_an_attack_that_failed_is_noticed(name: str) -> None:
    make, code, _ = FAILED[name]
    found = codes(make())
    assert code in found
    assert "check-failed" not in found


@pytest.mark.parametrize("name", FAILED)
def test_each_indicator_is_needed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, code, indicator = FAILED[name]
    rest = tuple(other for other in indicators.names() if other != indicator)
    assert len(rest) == len(indicators.names()) - 1
    monkeypatch.setattr(plugins, "own_members", lambda package: rest)
    assert code not in codes(make())


def evaluated(model: nn.Module, *steps: Step, threat: str = "Linf:0.15") -> set[str]:
    result = harness.evaluate(model, X, Y, threat=threat, suite=Suite("own", steps), workers=1)
    return {flag.code for flag in result.flags}


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"steps": 1, "restarts": 1}, "few-steps"),
        ({"steps": 20, "restarts": 1, "step_size": 1e-9}, "steps-too-short"),
        ({"steps": 20, "restarts": 1, "step_size": 1e-9}, "short-pgd-gains"),
    ],
)
def test_a_crippled_suite_is_noticed(parameters: dict[str, Any], code: str) -> None:
    assert code in evaluated(base(), Step("pgd", "pgd", parameters))


def test_claims_that_the_judge_rejects_are_noticed() -> None:
    model = PLANTED["another where gradients are recorded"].make()
    assert "claims-rejected" in evaluated(model, Step("pgd", "pgd", {"steps": 10, "restarts": 1}))


SILENT = """
from dataclasses import dataclass
from harness.attacks import Proposal
from harness.attacks.pgd import pgd

def silent(threat, classes):
    attack = pgd(threat, classes, steps=10, restarts=1)
    kind = type(attack)

    class Silent(kind):
        def start(self, batch, oracle, run):
            state, proposal = kind.start(self, batch, oracle, run)
            return state, Proposal(proposal.points, proposal.claimed & False)

        def step(self, batch, state, oracle, i):
            state, proposal = kind.step(self, batch, state, oracle, i)
            return state, Proposal(proposal.points, proposal.claimed & False)

    return Silent(**vars(attack))
"""


def test_success_that_is_not_claimed_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "silent.py"
    file.write_text(SILENT)
    assert "success-unclaimed" in evaluated(base(), Step("silent", f"{file}:silent", {}))


@pytest.mark.parametrize("name", ["natural", "at_full", "bn_ft"])
@pytest.mark.parametrize("threat", ["Linf:0.15", "L2:1"])
def test_attacks_on_healthy_models_get_no_flag(name: str, threat: str) -> None:
    model = checkpoints.load(ROOT / "checkpoints" / f"{name}.pt").model
    step = Step("apgd", "apgd", {"loss": "ce", "steps": 20}), Step("apgd-t", "apgd", {"loss": "dlr", "steps": 20})
    assert evaluated(model, *step, threat=threat) == set()


@pytest.mark.parametrize("threat", ["Linf:0.15", "L2:1"])
def test_gradients_that_are_nan_are_mended_and_counted(threat: str) -> None:
    steps = Step("pgd", "pgd", {"steps": 20, "restarts": 1})
    model = base()
    plain = harness.evaluate(model, X, Y, threat=threat, suite=Suite("own", (steps,)), workers=1)
    rooted = PLANTED["gradients NaN"].make()
    mended = harness.evaluate(rooted, X, Y, threat=threat, suite=Suite("own", (steps,)), workers=1)
    (flag,) = (flag for flag in mended.flags if flag.code == "nan-gradient" and "step" in flag.figures)
    assert 0 < int(flag.figures["samples"]) <= len(X)
    assert mended.robust_acc <= plain.robust_acc + 0.1


@pytest.mark.parametrize("factor", [2.0**-20, 2.0**12])
def test_logits_of_an_unusual_size_are_attacked_as_well_as_others(factor: float) -> None:
    """The judge sees them as they are; a power of two changes no digit of what attacks see."""
    suite = Suite("own", (Step("pgd", "pgd", {"steps": 20, "restarts": 1}), Step("square", "square", {"queries": 20})))
    threat = "Linf:0.08"
    plain = harness.evaluate(base(), X, Y, threat=threat, suite=suite, workers=1)
    scaled = harness.evaluate(Around(after=lambda z, x: z * factor), X, Y, threat=threat, suite=suite, workers=1)
    assert "logits-rescaled" in {flag.code for flag in scaled.flags}
    assert 0 < plain.robust_acc < 1
    assert abs(scaled.robust_acc - plain.robust_acc) <= 1 / len(X)


def test_a_backward_pass_that_raises_names_the_call() -> None:
    def raises(g: Tensor) -> Tensor:
        raise RuntimeError("only in training mode")

    with pytest.raises(harness.errors.NoGradient, match=r"in step pgd: .*backward pass raised .*only in training mode"):
        evaluated(gradient(raises)(), Step("pgd", "pgd", {"steps": 5, "restarts": 1}))
