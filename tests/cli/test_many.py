"""Many evaluations in one call: what is meant by a name, and that one failure does not stop the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness import evaluation
from harness.checkpoints import matching
from harness.errors import CheckpointError, ModelError, UnknownName
from harness.evaluation import _evaluate
from tests.cli.conftest import Harness
from tests.registry.material import registered, small


@pytest.fixture
def three(tiny: Path) -> Path:
    """The checkpoints bn_a, bn_b and tiny."""
    for seed, name in enumerate(("bn_a", "bn_b")):
        registered(tiny.parent, name, small(seed=seed), source=str(seed))
    return tiny.parent


def test_what_names_mean(three: Path, folder: Path) -> None:
    Path("list.txt").write_text("# mine\ntiny\n\ncheckpoints/bn_?.pt\n")
    paths = [f"checkpoints/{name}.pt" for name in ("bn_a", "bn_b", "tiny")]
    assert matching(["bn_*"]) == paths[:2]
    assert matching(["bn_*.pt", "checkpoints/bn_[b]"]) == paths[:2]
    assert matching(["checkpoints"]) == paths
    assert matching(["list.txt"]) == ["tiny", *paths[:2]]
    assert matching(["tiny", "missing"]) == ["tiny", "missing"]


@pytest.mark.parametrize("name", ["cn_*", "empty", "none.txt", "nothing.txt"])
def test_names_that_mean_nothing(three: Path, folder: Path, name: str) -> None:
    (folder / "empty").mkdir()
    (folder / "nothing.txt").write_text("# nothing\n")
    with pytest.raises((UnknownName, CheckpointError), match=r"unknown checkpoint|holds no|cannot read|is empty"):
        matching([name])


@pytest.mark.usefixtures("three")
def test_every_combination_is_evaluated(harness: Harness, calls: list[dict[str, Any]]) -> None:
    ways = "--suite pgd --suite fgsm --eps 0.1 --eps 0.2 --seeds 0-1 --limit 10"
    code, out, err = harness("evaluate", "--checkpoint", "bn_*", *ways.split())
    assert code == 0
    done = [(call["checkpoint"], call["suite"], call["threat"].eps, call["seed"]) for call in calls]
    assert len(set(done)) == len(done) == 16
    assert done[0] == ("bn_a", "pgd", "0.1", 0)
    assert done[-1] == ("bn_b", "fgsm", "0.2", 1)
    assert "[16/16] bn_b, fgsm: " in err
    assert out.count("result leaderboards/results/") == 16
    assert out.splitlines()[-1].split()[0] == "bn_b"
    assert "50.0 % (50.0 % to 50.0 %)" in out
    code, out, _ = harness("evaluate", "--checkpoint", "bn_*", *ways.split(), "--json")
    assert (code, len(json.loads(out))) == (0, 16)


@pytest.mark.usefixtures("three")
def test_what_cannot_be_evaluated_is_said_before_the_first_attack(
    harness: Harness, calls: list[dict[str, Any]]
) -> None:
    with Path("checkpoints/bn_a.pt").open("ab") as file:
        file.write(b"more")
    code, out, err = harness("evaluate", "--checkpoint", "bn_*", "--suite", "pgd", "--limit", "10")
    assert code == 1
    assert [call["checkpoint"] for call in calls] == ["bn_b"]
    assert err.startswith("error: checkpoints/bn_a.pt, pgd, seed 0 cannot be evaluated: ")
    assert "failed: checkpoints/bn_a.pt, pgd" in out
    assert "robust 50.0 %" in out


@pytest.mark.parametrize("error", [ModelError("the model is tired"), RuntimeError("out of ideas"), OSError("no disk")])
@pytest.mark.usefixtures("three")
def test_a_failure_does_not_stop_the_others(
    harness: Harness, calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    run = _evaluate.run

    def sometimes(plan: evaluation.Plan, **how: Any) -> evaluation.Evaluation:
        if plan.target.name == "bn_a":
            raise error
        return run(plan, **how)

    monkeypatch.setattr(_evaluate, "run", sometimes)
    args = ("evaluate", "--checkpoint", "bn_*", "--suite", "pgd", "--limit", "10")
    code, out, err = harness(*args)
    assert code == 1
    assert [call["checkpoint"] for call in calls] == ["bn_b"]
    assert str(error) in err
    assert "failed: checkpoints/bn_a.pt, pgd, seed 0: " in out
    code, out, _ = harness(*args, "--json")
    assert (code, [one["checkpoint"] for one in json.loads(out)]) == (1, ["bn_b"])


@pytest.mark.usefixtures("three", "calls")
def test_wrong_names_and_options_stop_everything(harness: Harness) -> None:
    harness("evaluate", "--checkpoint", "bn_*", "--checkpoint", "missing").refused("unknown checkpoint 'missing'")
    harness("evaluate", "--checkpoint", "bn_*", "--suite", "pgdd").refused("unknown suite 'pgdd'")
    harness("evaluate", "--checkpoint", "tiny", "--suite", "pgd", "--suite", "pgdd").refused("unknown suite 'pgdd'")
    for seeds in ("a", "3-", "0-99999999", "-1"):
        harness("evaluate", "--checkpoint", "tiny", "--seeds", seeds).refused("expected seeds", code=2)
    harness("evaluate", "--checkpoint", "tiny", "--seeds", "0-1", "--seed", "3").refused("not both", code=2)


@pytest.mark.usefixtures("tiny")
def test_clean_accuracy_is_no_robustness(harness: Harness) -> None:
    code, out, _ = harness("evaluate", "--checkpoint", "tiny", "--suite", "clean", "--limit", "10", "--workers", "1")
    assert code == 0
    assert "clean  " in out
    assert "robust" not in out
