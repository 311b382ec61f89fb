"""A fast copy that says something else than the model is refused, before the attack or after it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks._foreign import load
from benchmarks._foreign import samples as benchmark_samples
from harness.backends import Backend, equivalence
from harness.backends.equivalence import FEWEST, Guard, chosen
from harness.backends.passes import Passes
from harness.engine import preflight
from harness.errors import HarnessError
from harness.evaluation import Evaluation, examine
from harness.suites import Step, Suite
from harness.threat import ThreatModel
from harness.threat.rng import Draws, sample_keys
from tests.backends.corrupted import CLASSES, CORRUPTED, SHAPE, SIZE, Residual, WrongGradient, WrongLogits, negated, off
from tests.support import SHARED, fix_choice, of_strong_suites

THREAT = ThreatModel.parse("Linf:0.02")
MODEL = Residual()
SUITE = Suite(
    "two steps",
    (
        # small steps from a random point, so that gradients on the way to the border matter
        Step("pgd", "pgd", {"loss": "ce", "steps": 20, "restarts": 1, "step_size": 0.002}),
        Step("apgd-dlr", "apgd", {"loss": "dlr", "steps": 12}),
    ),
)


def images(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(seed))


X = images(30)


def guarded(fast: nn.Module, x: Tensor = X, precision: str = "fp32", size: int = SIZE) -> equivalence.Comparison:
    """The last of the comparisons that precede an attack."""
    guard = Guard(Passes(MODEL, CLASSES, size), THREAT, size)
    rows = chosen(sample_keys(x), max(FEWEST, size))
    draws = Draws(sample_keys(x[rows]), 0, "test")
    return guard.before(Passes(fast, CLASSES, size, precision), x[rows], draws)[-1]


@pytest.mark.parametrize("kind", CORRUPTED)
def test_a_corrupted_copy_is_refused(kind: str) -> None:
    assert not guarded(CORRUPTED[kind](MODEL, X)).agreed


@pytest.mark.parametrize("n", [1, 2, 5, 30])
@pytest.mark.parametrize("size", [1, 3, SIZE, 40])
def test_an_honest_copy_is_not(n: int, size: int) -> None:
    honest = copy.deepcopy(MODEL).to(memory_format=torch.channels_last)
    compared = guarded(honest, X[:n], size=size)
    assert compared.agreed, str(compared)
    assert len(compared.logits) == min(n, max(FEWEST, size))


def test_the_worst_sample_is_named() -> None:
    rows = chosen(sample_keys(X), FEWEST)
    wrong = WrongGradient(MODEL, negated, lambda z: (z == X[rows[7]]).flatten(1).all(1))
    guard = Guard(Passes(MODEL, CLASSES, SIZE), THREAT, SIZE)
    (compared,) = guard.before(Passes(wrong, CLASSES, SIZE), X[rows], Draws(sample_keys(X[rows]), 0, "test"))[:1]
    assert compared.worst == 7 or compared.agreed, "a single sample may agree beside its clean image"
    compared = equivalence.compare(guard.plain, Passes(wrong, CLASSES, SIZE), X[rows], size=SIZE)
    assert compared.worst == 7
    assert "gradient cosine at least -1.0" in str(compared)


def test_every_pass_is_counted() -> None:
    class Counting(nn.Module):
        rows = 0

        def forward(self, x: Tensor) -> Tensor:
            Counting.rows += len(x)
            out: Tensor = MODEL(x)
            return out

    model = Counting()
    compared = equivalence.compare(Passes(model, CLASSES, SIZE), Passes(model, CLASSES, SIZE), X[:25], size=SIZE)
    assert compared.forward.sum() == Counting.rows
    # the plain model's, three full batches, and two losses of seven rows and of one
    assert compared.backward.sum() == 25 + 3 * SIZE + 2 * (7 + 1)


def test_zero_gradients_agree_with_zero_gradients() -> None:
    class Flat(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = MODEL(x.round())
            return out

    flat = Flat()
    guard = Guard(Passes(flat, CLASSES, SIZE), THREAT, SIZE)
    assert guard.before(Passes(flat, CLASSES, SIZE), X, Draws(sample_keys(X), 0, "test"))[-1].agreed
    assert not guarded(flat).agreed


def test_rounding_at_a_kink_is_no_disagreement() -> None:
    """The gradient of |x| at zero is anybody's guess."""
    clean = X.clone()
    clean[3, 0] = 0.5

    class Kink(nn.Module):
        def __init__(self, side: float) -> None:
            super().__init__()
            self.side = side

        def forward(self, x: Tensor) -> Tensor:
            bent = torch.where(x - 0.5 + self.side > 0, x - 0.5, 0.5 - x)[:, :1]
            out: Tensor = MODEL(torch.cat([bent, x[:, 1:]], dim=1))
            return out

    guard = Guard(Passes(Kink(1e-8), CLASSES, SIZE), THREAT, SIZE)
    fast = Passes(Kink(-1e-8), CLASSES, SIZE)
    assert not equivalence.compare(guard.plain, fast, clean, size=SIZE).agreed, "the case must be one"
    assert guard.before(fast, clean, Draws(sample_keys(clean), 0, "test"))[-1].agreed


def test_bfloat16_may_round() -> None:
    def rounded(logits: Tensor) -> Tensor:
        return logits + (logits.bfloat16().float() - logits).detach()

    assert guarded(WrongLogits(MODEL, rounded), precision="bf16").agreed
    assert not guarded(WrongLogits(MODEL, rounded), precision="fp32").agreed


def with_copy(monkeypatch: pytest.MonkeyPatch, make: Callable[[nn.Module], nn.Module]) -> None:
    """Let ``make`` make the fast copy, and take it to be the faster one."""

    def corrupted(model: nn.Module, *, precision: str) -> Backend:
        return Backend(make(copy.deepcopy(model)), torch.contiguous_format, ("eager",), precision)

    monkeypatch.setattr(preflight, "eager", corrupted)
    fix_choice(monkeypatch, SIZE)


def evaluated(model: nn.Module = MODEL, suite: Suite = SUITE, **settings: Any) -> Evaluation:
    y = MODEL(X).argmax(1)
    return examine(model, X, y, threat=THREAT, suite=suite, **{"workers": 1, **settings})


@pytest.fixture(scope="module")
def honest() -> Evaluation:
    done = evaluated()
    assert 0.1 < done.result.robust_acc < 0.9
    assert all(step.after for step in done.result.steps), "some must survive each step"
    return done


def same(a: Evaluation, b: Evaluation) -> None:
    assert np.array_equal(a.verdicts.robust, b.verdicts.robust)


@pytest.mark.parametrize("kind", ["gradient zero", "gradient turned beyond row 2", "not a number in one row"])
@pytest.mark.parametrize("workers", [1, 2])
def test_the_model_itself_is_attacked_instead(
    honest: Evaluation, monkeypatch: pytest.MonkeyPatch, kind: str, workers: int
) -> None:
    with_copy(monkeypatch, lambda model: CORRUPTED[kind](model, X))
    done = evaluated(workers=workers)
    same(done, honest)
    assert done.result.flags == honest.result.flags
    (first, why) = done.result.environment.passes[:2]
    assert first == "plain"
    assert "disagrees with the plain model" in why


def _far(points: Tensor) -> Tensor:
    """Where an attack ends, and no random point is: most pixels at the border of the ball."""
    return off(points, X) > 0.6 * THREAT.radius


LATE: dict[str, Callable[[nn.Module], nn.Module]] = {
    "gradient zero": lambda model: WrongGradient(model, torch.zeros_like, _far),
    "gradient turned": lambda model: WrongGradient(model, negated, _far),
}


@pytest.mark.parametrize("kind", LATE)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_copy_that_is_wrong_where_the_attack_ends(
    honest: Evaluation, monkeypatch: pytest.MonkeyPatch, kind: str, workers: int
) -> None:
    with_copy(monkeypatch, LATE[kind])
    with monkeypatch.context() as unguarded:
        unguarded.setattr(Guard, "after", lambda self, fast, points, x, draws: _nothing_wrong(len(points)))
        wrong = evaluated(workers=workers)
        assert wrong.result.robust_acc > honest.result.robust_acc, "the case must be one that matters"
    done = evaluated(workers=workers)
    same(done, honest)
    (flag,) = [flag for flag in done.result.flags if flag.code == "passes-replaced"]
    assert flag.figures["step"] == "pgd"
    assert "plain from pgd on" in done.result.environment.passes


def _nothing_wrong(m: int) -> equivalence.Comparison:
    zeros, none = np.zeros(m), np.zeros(m, np.int64)
    return equivalence.Comparison(zeros, np.ones(m), zeros, equivalence.TOLERANCES["fp32"], none, none)


def test_a_copy_that_fails_where_the_attack_goes_is_not_the_models_fault(
    honest: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fails(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.inner(x)
            return torch.where(_far(x)[:, None], float("nan"), logits)

    with_copy(monkeypatch, Fails)
    done = evaluated()
    same(done, honest)
    assert any("NaN or infinite logits" in str(flag) for flag in done.result.flags)


def _without_a_deep_shortcut(model: Any) -> nn.Module:
    """The gradient of an identity shortcut left out; what the model computes is the same."""
    model.network.block3[2].register_forward_hook(lambda block, inputs, out: out - inputs[0] + inputs[0].detach())
    return cast(nn.Module, model)


PUBLISHED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "gradient zero": lambda model: WrongGradient(model, torch.zeros_like),
    "gradient turned beyond row 2": lambda model: CORRUPTED["gradient turned beyond row 2"](model, X),
    "gradient of a deep shortcut left out": _without_a_deep_shortcut,
}


@pytest.mark.usefixtures("unaudited")  # an audit looks at the plain model alone
@pytest.mark.parametrize("kind", PUBLISHED)
def test_the_robustness_of_a_published_network_is_not_overstated(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Unguarded, these copies report 0.867, 0.833 and up to 0.500."""
    if not (SHARED / "models" / "resnet32_at_all.pt").is_file():
        pytest.skip("the published checkpoint is not here")
    model, (x, y) = load("resnet32_at_all.pt", SHARED), benchmark_samples("resnet32_at_all.pt", 30, SHARED)
    with_copy(monkeypatch, PUBLISHED[kind])
    suite = Suite("short", (Step("apgd-ce", "apgd", {"loss": "ce", "steps": 10}),))
    done = examine(model, x, y, threat="Linf:8/255", suite=suite, workers=1).result
    assert done.robust_acc == pytest.approx(13 / 30, abs=0.04)
    assert of_strong_suites(done.flags) == []
    assert done.environment.passes[0] == "plain"


class Killed(BaseException):
    pass


def test_a_killed_run_goes_on_with_the_plain_model(
    honest: Evaluation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with_copy(monkeypatch, LATE["gradient turned"])

    def kill(tick: Any) -> None:
        if tick.step == "apgd-dlr":
            raise Killed

    with pytest.raises(Killed):
        evaluated(state_dir=tmp_path, progress=kill)
    done = evaluated(state_dir=tmp_path)
    same(done, honest)
    assert [flag.code for flag in done.result.flags].count("passes-replaced") == 1
    assert "plain from pgd on" in done.result.environment.passes


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (WrongLogits(MODEL, lambda logits: logits + 0.1 * torch.randn_like(logits)), "the model is randomised"),
        (WrongLogits(MODEL, lambda logits: logits - 0.5 * logits.mean(0)), "depends on the rest of the batch"),
        (WrongLogits(MODEL, torch.Tensor.detach), "the model has no gradient"),
    ],
    ids=["random", "of the batch", "no gradient"],
)
def test_a_model_that_cannot_be_compared_is_attacked_as_it_is(model: nn.Module, why: str) -> None:
    done = evaluated(model.eval(), Suite("square", (Step("square", "square", {"queries": 5}),)))
    assert any(note.startswith("plain") and why in note for note in done.result.environment.passes)


def test_the_last_points_are_where_the_attack_was(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Tensor, Tensor]] = []
    original = Guard.after

    def recorded(self: Guard, fast: Passes, points: Tensor, x: Tensor, draws: Draws) -> equivalence.Comparison:
        asked.append((points, x))
        return original(self, fast, points, x, draws)

    monkeypatch.setattr(Guard, "after", recorded)
    done = evaluated()
    assert len(asked) == 2 + len(SUITE.steps)
    for (points, x), step in zip(asked[2:], done.result.steps, strict=True):
        assert len(points) == min(FEWEST, step.after)
        assert (off(points, x) > 0.7 * THREAT.radius).all(), "a random point is at half the radius"
        assert (THREAT.distance(points, x) <= THREAT.radius + THREAT.tolerance).all()


def test_the_plain_models_own_errors_are_raised() -> None:
    class Fragile(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = MODEL(x)
            return torch.where((off(x, X) > 0)[:, None], float("nan"), out)

    with pytest.raises(HarnessError, match=r"in step pgd: the model returned NaN"):
        evaluated(Fragile().eval())
