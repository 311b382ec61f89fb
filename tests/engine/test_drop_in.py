"""The drop-in class: what the reference's class takes, does and returns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyautoattack
import pytest
import torch

from harness.autoattack import AutoAttack
from harness.engine import executors
from harness.errors import StorageError
from harness.robustbench import EvaluationState
from tests.engine.networks import network

pytestmark = pytest.mark.usefixtures("unaudited")

EPS = {"Linf": 0.03, "L2": 0.4, "L1": 1.5}


def adversary(**options: Any) -> AutoAttack:
    return AutoAttack(network(classes=10), **{"eps": 0.03, "device": "cpu", "verbose": False, **options})


def data(n: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    model = network(classes=10)
    x = torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    return x, model(x).argmax(1)


@pytest.mark.parametrize("norm", EPS)
@pytest.mark.parametrize("version", ["standard", "plus", "rand"])
def test_versions_have_the_references_budgets(norm: str, version: str) -> None:
    theirs = pyautoattack.AutoAttack(network(), norm=norm, eps=EPS[norm], version=version)
    mine = adversary(norm=norm, eps=EPS[norm], version=version)
    assert mine.attacks_to_run == theirs.attacks_to_run
    for ours, reference, fields in (
        (mine.apgd, theirs.apgd, ("n_restarts", "n_iter", "eot_iter", "use_largereps")),
        (mine.apgd_targeted, theirs.apgd_targeted, ("n_restarts", "n_iter", "n_target_classes", "use_largereps")),
        (mine.fab, theirs.fab, ("n_restarts", "n_iter", "n_target_classes", "alpha_max", "eta", "beta")),
        (mine.square, theirs.square, ("n_queries", "n_restarts", "p_init")),
    ):
        assert {f: getattr(ours, f) for f in fields} == {f: getattr(reference, f) for f in fields}


def test_a_budget_that_does_not_exist_is_refused() -> None:
    with pytest.raises(AttributeError, match=r"'n_iterations', expected one of .* did you mean 'n_iter'"):
        adversary().apgd.n_iterations = 3


def test_what_all_attacks_share_is_read_from_the_whole() -> None:
    attack = adversary(seed=3)
    assert (attack.apgd.eps, attack.fab.seed, attack.square.verbose, attack.apgd.norm) == (0.03, 3, False, "Linf")
    attack.apgd.eps = 0.03
    with pytest.raises(AttributeError, match=r"set adversary.epsilon to 0.1"):
        attack.apgd.eps = 0.1
    attack.epsilon = 0.1
    assert attack.apgd.eps == 0.1


def test_an_epsilon_set_later_counts() -> None:
    x, y = data()
    attack = adversary(version="custom", attacks_to_run=["apgd-ce"])
    attack.apgd.n_restarts, attack.apgd.n_iter = 1, 5
    attack.epsilon = 0.01
    assert float((attack.run_standard_evaluation(x, y) - x).abs().max()) <= 0.01 + 1e-6


@pytest.mark.parametrize(
    ("norm", "eps", "threat"), [("inf", "8/255", "Linf:8/255"), (2, 0.5, "L2:0.5"), ("L1", 12, "L1:12.0")]
)
def test_norms_and_radii_as_people_write_them(norm: Any, eps: Any, threat: str) -> None:
    assert str(adversary(norm=norm, eps=eps)._threat) == threat
    assert adversary(norm=float("inf"))._threat.norm == "Linf"


def test_it_says_what_the_reference_says(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    x, y = data()
    log = tmp_path / "log.txt"
    attack = adversary(version="custom", attacks_to_run=["apgd-ce"], verbose=True, log_path=log, eps=0.3)
    attack.apgd.n_iter = 10
    attack.run_standard_evaluation(x, y)
    said = capsys.readouterr().out
    assert said == log.read_text()
    for line in (
        "using custom version including apgd-ce.",
        "initial accuracy: 100.00%",
        "robust accuracy after APGD-CE: 0.00%",
    ):
        assert line in said
    assert "max Linf perturbation: 0.3" in said
    assert said.endswith("robust accuracy: 0.00%\n")
    attack.verbose = False
    attack.run_standard_evaluation(x, y)
    assert capsys.readouterr().out == ""


def test_doubts_are_warnings() -> None:
    net = network(classes=10)
    x, y = data()
    attack = AutoAttack(lambda images: net(images).softmax(1), eps=0.03, version="custom", attacks_to_run=["apgd-ce"])
    attack.device, attack.verbose, attack.apgd.n_iter = "cpu", False, 3
    with pytest.warns(UserWarning, match="probabilities"):
        attack.run_standard_evaluation(x, y)


def test_returns_what_the_reference_returns() -> None:
    x, y = data()
    attack = adversary(version="custom", attacks_to_run=["apgd-ce", "square"])
    attack.apgd.n_restarts, attack.apgd.n_iter, attack.square.n_queries = 1, 10, 20
    points = attack.run_standard_evaluation(x, y, bs=5)
    again, labels = attack.run_standard_evaluation(x, y, bs=12, return_labels=True)
    assert isinstance(points, torch.Tensor)
    assert points.shape == x.shape
    assert torch.allclose(points, again, atol=1e-6)
    assert torch.equal(labels, network(classes=10)(again).argmax(1))
    assert (labels != y).any()
    assert torch.equal(points[labels == y], x[labels == y])


def test_individual_attacks_each_see_all_samples() -> None:
    x, y = data()
    attack = adversary(version="custom", attacks_to_run=["apgd-ce", "apgd-dlr"])
    attack.apgd.n_restarts, attack.apgd.n_iter = 1, 10
    found = attack.run_standard_evaluation_individual(x, y, bs=12)
    assert list(found) == ["apgd-ce", "apgd-dlr"]
    labelled = attack.run_standard_evaluation_individual(x, y, bs=12, return_labels=True)
    for name, points in found.items():
        assert isinstance(points, torch.Tensor)
        assert torch.equal(labelled[name][0], points)
        assert (network(classes=10)(points).argmax(1) != y).any()


def test_state_path_holds_the_verdicts_and_ends_the_matter(tmp_path: Path) -> None:
    x, y = data()
    attack = adversary(version="custom", attacks_to_run=["apgd-ce"])
    attack.apgd.n_restarts, attack.apgd.n_iter = 1, 10
    path = tmp_path / "state.json"
    points = attack.run_standard_evaluation(x, y, bs=12, state_path=path)
    state = EvaluationState.from_disk(path)
    assert torch.equal(state.robust_flags.bool(), network(classes=10)(points).argmax(1) == y)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state.json", "state.json.safetensors"]
    assert torch.equal(attack.run_standard_evaluation(x, y, bs=12, state_path=path), points), "nothing is left to run"
    attack.epsilon = 0.02
    with pytest.raises(ValueError, match="another radius"):
        attack.run_standard_evaluation(x, y, bs=12, state_path=path)
    path.with_name("state.json.safetensors").write_bytes(b"damaged")
    attack.epsilon = 0.03
    assert torch.equal(attack.run_standard_evaluation(x, y, bs=12, state_path=path), points), "it is run again"
    other = adversary(version="custom", attacks_to_run=["square"])
    with pytest.raises(ValueError, match="other attacks"):
        other.run_standard_evaluation(x, y, state_path=path)


def test_the_state_stays_until_the_verdicts_are_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = data()
    attack = adversary(version="custom", attacks_to_run=["apgd-ce"])
    attack.apgd.n_restarts, attack.apgd.n_iter = 1, 10
    path, parts, write = tmp_path / "state.json", tmp_path / ".state.json.parts", EvaluationState.to_disk

    def full(state: EvaluationState, where: Path | str) -> None:
        raise StorageError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(EvaluationState, "to_disk", full)
        with pytest.raises(StorageError):
            attack.run_standard_evaluation(x, y, bs=12, state_path=path)
    assert list(parts.rglob("pool.pt"))

    def killed(state: EvaluationState, where: Path | str) -> None:
        write(state, where)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EvaluationState, "to_disk", killed)
        patch.setattr(executors, "execute", None)  # nothing is attacked again
        with pytest.raises(KeyboardInterrupt):
            attack.run_standard_evaluation(x, y, bs=12, state_path=path)
    assert list(parts.rglob("pool.pt"))
    attack.run_standard_evaluation(x, y, bs=12, state_path=path)
    assert {p.name for p in tmp_path.iterdir()} == {"state.json", "state.json.safetensors"}


def test_attacks_to_run_belongs_to_custom() -> None:
    with pytest.raises(ValueError, match="version='custom'"):
        adversary(version="standard", attacks_to_run=["square"])


def test_a_callable_is_a_model() -> None:
    net = network(classes=10)
    x, y = data()
    attack = AutoAttack(lambda images: net(images), eps=0.3, version="custom", attacks_to_run=["apgd-ce"], device="cpu")
    attack.apgd.n_iter = 10
    assert attack.clean_accuracy(x, y) == 1.0
    assert attack.clean_accuracy(attack.run_standard_evaluation(x, y), y) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("norm", EPS)
def test_the_references_verdict(norm: str) -> None:
    model = network(classes=10, gain=0.4)
    x = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(4))
    y = model(x).argmax(1)
    options = {"norm": norm, "eps": EPS[norm], "version": "standard", "seed": 0, "device": "cpu"}
    theirs, ours = pyautoattack.AutoAttack(model, **options), AutoAttack(model, **options, verbose=False)
    theirs.verbose = False
    for adversary in (theirs, ours):
        # all attacks, but small budgets
        adversary.apgd_targeted.n_target_classes = adversary.fab.n_target_classes = 3
        adversary.apgd.n_iter = adversary.apgd_targeted.n_iter = adversary.fab.n_iter = 40
        adversary.square.n_queries = 300
    _, labels = theirs.run_standard_evaluation(x, y, batch_size=16)
    mine = ours.run_standard_evaluation(x, y, bs=16)
    robust, reference = model(mine).argmax(1) == y, labels == y
    assert 0 < int(reference.sum()) < 16, "the case must have both"
    assert int((robust != reference).sum()) <= 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_points_are_not_moved_by_the_type_of_the_images(dtype: torch.dtype) -> None:
    x, y = data()
    attack = adversary(version="custom", attacks_to_run=["apgd-ce"], eps=8 / 255)
    attack.apgd.n_iter = 10
    points = attack.run_standard_evaluation(x.to(dtype), y)
    assert float((points.double() - x.to(dtype).double()).abs().max()) <= 8 / 255 + 1e-6
    assert points.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
