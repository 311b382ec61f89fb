"""The reference runs unchanged, is counted truly, and leaves no trace of itself."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pyautoattack import AutoAttack, checks
from torch import Tensor, nn

from harness import evaluation
from harness.audit import kinds
from harness.errors import InvalidInput, ModelError, UnknownName
from harness.evaluation._pyautoattack import attack
from harness.results import store
from harness.threat import ThreatModel

SHAPE = (1, 6, 6)


def network(classes: int = 10, *, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(36, classes)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(classes, 36, generator=generator))
        layer.bias.zero_()
    return nn.Sequential(nn.Flatten(), layer).eval()


def samples(model: nn.Module, n: int = 6) -> tuple[Tensor, Tensor]:
    x = torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y = model(x).argmax(1)
    y[0] = (y[0] + 1) % 10  # one sample is wrong without attack
    return x, y


QUERIES = 300


@pytest.fixture
def small_budgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of the reference's attacks, with less to do than they have."""
    set_version = AutoAttack._set_version

    def shortened(self: Any, *args: Any, **options: Any) -> None:
        set_version(self, *args, **options)
        self.square.n_queries = QUERIES
        self.fab.n_iter = 20
        self.fab.n_target_classes = self.apgd_targeted.n_target_classes = 3

    monkeypatch.setattr(AutoAttack, "_set_version", shortened)


class Passes(nn.Module):
    """Counts on its own, to hold the outcome's counts against."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        return self.model(x)


@pytest.fixture(scope="module")
def cut() -> float:
    """An eps at which some of the samples stand and some fall (the median distance of a linear model)."""
    model = network()
    x, y = samples(model)
    with torch.no_grad():
        logits = model(x)
    weight = model[1].weight
    gaps = logits.gather(1, y[:, None]) - logits
    slopes = (weight[y][:, None] - weight[None]).abs().sum(-1)
    distances = (gaps / slopes).masked_fill(nn.functional.one_hot(y, 10).bool(), float("inf")).amin(1)
    return float(distances[1:].detach().median())


@pytest.mark.usefixtures("small_budgets")
def test_same_points_and_labels_as_calling_it_directly(cut: float) -> None:
    model = network()
    x, y = samples(model)
    outcome = attack(model, x, y, ThreatModel("Linf", str(cut)), seed=3, batch_size=4)
    with torch.random.fork_rng():
        points, labels = AutoAttack(model, norm="Linf", eps=cut, seed=3).run_standard_evaluation(x, y, batch_size=4)
    assert torch.equal(outcome.points, points)
    assert torch.equal(outcome.labels, labels)
    assert torch.equal(outcome.robust, labels == y)
    assert 0 < outcome.robust.sum() < 5


@pytest.mark.usefixtures("small_budgets")
def test_survivors_and_passes_add_up(cut: float) -> None:
    model = Passes(network())
    x, y = samples(model.model)
    outcome = attack(model, x, y, ThreatModel("Linf", str(cut)), seed=0)
    clean, *attacks = outcome.steps
    assert [step.name for step in attacks] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert (clean.before, clean.after) == (6, 5)
    # 5 passes for randomness, 1 for the range, 1 for dynamics, 1 clean
    assert (clean.forward, clean.backward) == (8 * 6, 0)
    assert all(step.before == former.after for former, step in zip(outcome.steps, attacks, strict=False))
    assert attacks[-1].after == outcome.robust.sum()
    assert sum(step.forward for step in outcome.steps) == model.seen
    by_name = {step.name: step for step in attacks}
    # APGD: a prediction, a gradient at the start and one an iteration, and the check of what it returned
    assert by_name["apgd-ce"].backward == 5 * 101
    assert by_name["apgd-ce"].forward == 5 * 103
    assert by_name["square"].backward == 0
    assert by_name["square"].forward > QUERIES * by_name["square"].after
    assert 0 < sum(step.seconds for step in outcome.steps) <= outcome.seconds + 1e-6


def test_attacks_that_found_nobody_standing_are_not_listed() -> None:
    model = network()
    x, y = samples(model)
    outcome = attack(model, x, y, "Linf:1", seed=0)
    assert [step.name for step in outcome.steps] == ["clean", "apgd-ce"]
    assert outcome.steps[-1].after == 0
    assert not outcome.robust.any()


def test_surroundings_are_left_as_found(
    cut: float, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    model = network()
    weight = model[1].weight
    weight.grad = torch.ones_like(weight)
    x, y = samples(model)
    before = x.clone(), y.clone(), weight.detach().clone(), torch.get_rng_state()

    def trace(*_: object) -> None:
        return None

    former = sys.gettrace()
    sys.settrace(trace)
    try:
        with caplog.at_level(logging.DEBUG):
            attack(model, x, y, ThreatModel("Linf", str(cut)), version="rand", seed=0)
        assert sys.gettrace() is trace
    finally:
        sys.settrace(former)
    assert torch.equal(weight.grad, torch.ones_like(weight))
    for tensor, old in zip((x, y, weight, torch.get_rng_state()), before, strict=True):
        assert torch.equal(tensor, old)
    assert capsys.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.name == "auto-attack"]


class Dynamic(nn.Module):
    """Takes a gradient inside its forward pass."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            torch.autograd.grad(self.model(leaf).sum(), leaf)
        return self.model(x)


def test_a_dynamic_defence_is_flagged_and_the_next_model_is_not() -> None:
    model = network()
    x, y = samples(model)
    dynamic = attack(Dynamic(model), x, y, "Linf:1", version="rand")
    assert kinds.DYNAMIC_DEFENCE() in dynamic.flags
    assert not any(checks.funcs.values())
    plain = attack(model, x, y, "Linf:1", version="rand")
    assert plain.flags == ()


class Noisy(nn.Module):
    """Another answer at every pass."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits + torch.randn_like(logits)


def test_its_warnings_become_flags_of_ours() -> None:
    model = network()
    x, y = samples(model)
    assert kinds.RANDOMISED() in attack(Noisy(model), x, y, "Linf:1").flags
    probabilities = nn.Sequential(model, nn.Softmax(dim=1))
    assert kinds.PROBABILITIES() in attack(probabilities, x, y, "Linf:1").flags


@pytest.mark.usefixtures("small_budgets")
def test_a_result_on_a_randomised_model_agrees_with_itself(tmp_path: Path) -> None:
    """Accuracy without attack is counted on the pass that the attacks set out from."""
    model = network()
    x, y = samples(model, 24)
    torch.manual_seed(0)
    done = evaluation.examine(
        Noisy(model), x, y, threat="Linf:0.02", suite="autoattack-reference", batch_size=10, workers=1
    )
    assert 0 < done.result.robust_acc < done.result.clean_acc < 1
    path = store.save(done.result, done.verdicts, tmp_path)
    assert store.read(path).n == 24


def test_too_few_classes_is_a_clear_error() -> None:
    model = network(classes=4)
    x, y = torch.rand(2, *SHAPE), torch.tensor([0, 1])
    with pytest.raises(InvalidInput, match="at least 10 classes, the model has 4"):
        attack(model, x, y, "Linf:0.1")


@pytest.mark.parametrize("wrong", [nn.Sequential(network(), nn.Unflatten(1, (5, 2))), nn.Flatten(0)])
def test_a_wrong_output_shape_is_a_clear_error(wrong: nn.Module) -> None:
    with pytest.raises(ModelError, match="expected logits of shape"):
        attack(wrong, torch.rand(2, *SHAPE), torch.tensor([0, 1]), "Linf:0.1")


def test_a_detached_graph_is_a_clear_error() -> None:
    class Detached(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return network()(x).detach()

    x, y = samples(network())
    with pytest.raises(ModelError, match="inside the reference AutoAttack"):
        attack(Detached(), x, y, "Linf:0.1")


def test_bad_arguments() -> None:
    model = network()
    x, y = samples(model)
    with pytest.raises(UnknownName, match="did you mean 'standard'"):
        attack(model, x, y, "Linf:0.1", version="standart")
    with pytest.raises(InvalidInput, match="batch size must be at least 1, got 0"):
        attack(model, x, y, "Linf:0.1", batch_size=0)
    with pytest.raises(InvalidInput, match="at least one image"):
        attack(model, x[:0], y[:0], "Linf:0.1")
