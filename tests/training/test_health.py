"""A network that did not train is told from one that did."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from harness import regimes
from harness.checkpoints import manifest_path, read_manifest
from harness.cli.demo import _NAME as DEMO
from harness.training import register
from harness.training.health import Health, assess
from tests.house._tree import ROOT
from tests.training.tiny import digits, trained


def judged(losses: list[float], robust: list[float] | None = None, *, adversarial: bool = True, **more: int) -> Health:
    rows: list[dict[str, float | None]] = [{"phase": 1, "loss": loss} for loss in losses]
    for row, value in zip(rows, robust or [], strict=bool(robust)):
        row["validation_robust_acc"] = value
    found = assess(rows, classes=10, adversarial=adversarial, **more)
    assert found is not None
    return found


def test_a_loss_of_guessing_is_no_training() -> None:
    assert judged([2.6, 2.4, 2.336]).verdict == "not trained"
    assert judged([2.6, 2.4, 2.336]).reason == "its loss ends at 2.336, and guessing has 2.303"
    assert judged([math.log(10)] * 5).verdict == "not trained"
    # what counts is where it ends
    assert judged([2.0, 1.5, 2.31]).verdict == "not trained"
    assert judged([2.6, 2.3, 2.2, 2.199, 2.198]).verdict == "trained"


def test_a_loss_that_still_falls_is_no_training() -> None:
    falling = [2.2 - 0.04 * epoch for epoch in range(30)]
    found = judged(falling)
    assert found.verdict == "not trained"
    assert found.fall == pytest.approx(0.04 * 30 / 10)
    assert found.reason == (
        "its loss still falls, by 5.2 % of ln(classes) in the last tenth of the epochs, more than 1 %"
    )
    assert judged([*falling, *[falling[-1]] * 4]).trained
    # what falls by little falls by little, whatever share of a small loss that is
    assert judged([0.02 / (epoch + 1) for epoch in range(30)]).trained
    rising = [1.0 + 0.04 * epoch for epoch in range(10)]
    assert judged(rising).trained


def test_few_epochs_have_no_slope() -> None:
    assert judged([2.2, 1.1]).fall is None
    assert judged([2.2, 1.1]).trained


def test_robustness_that_collapses() -> None:
    steady = [1.5] * 5
    found = judged(steady, [0.3, 0.4, 0.42, 0.1, 0.02])
    assert found.verdict == "collapsed"
    assert "from 42.0 to 2.0 %" in found.reason
    assert (found.best_robust_acc, found.final_robust_acc) == (0.42, 0.02)
    assert judged(steady, [0.3, 0.4, 0.42, 0.4, 0.3]).trained
    # a few images of noise, and natural training, which has no robustness to lose
    assert judged(steady, [0.0, 0.02, 0.08, 0.02, 0.0]).trained
    assert judged(steady, [0.3, 0.4, 0.42, 0.1, 0.02], adversarial=False).trained


def test_the_last_phase_that_trained_counts() -> None:
    rows: list[dict[str, float | None]] = [
        *({"phase": 1, "loss": 2.5} for _ in range(3)),
        *({"phase": 2, "loss": 1.0} for _ in range(4)),
        {"phase": 3, "loss": None},
    ]
    found = assess(rows, classes=10, adversarial=True, steps_per_epoch=12)
    assert found is not None
    assert (found.verdict, found.final_loss, found.passes, found.steps) == ("trained", 1.0, 7, 84)
    assert assess([{"phase": 1, "loss": None}], classes=10, adversarial=True) is None


# `make demo` adds a network of its own, which is not shipped
SHIPPED = sorted(log for log in (ROOT / "checkpoints").glob("*.csv") if log.stem != DEMO)


@pytest.mark.parametrize("log", SHIPPED, ids=lambda log: log.stem)
def test_the_shipped_networks_trained(log: Path) -> None:
    found = _assessed(log, adversarial=log.stem != "natural")
    assert (found.verdict, found.steps) == ("trained", 2160)


def test_the_bn_layers_of_a_random_network_do_not_train_in_270_steps() -> None:
    found = _assessed(Path(__file__).with_name("too_few_steps.csv"), adversarial=True)
    assert (found.verdict, found.steps) == ("not trained", 270)
    assert "its loss ends at 2.336" in found.reason


def _assessed(log: Path, *, adversarial: bool) -> Health:
    with log.open() as file:
        rows = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    found = assess(rows, classes=10, adversarial=adversarial, steps_per_epoch=18)
    assert found is not None
    return found


def test_a_training_says_how_it_went(tmp_path: Path) -> None:
    regime = regimes.get("natural")
    outcome = trained(regime, None)
    health = outcome.facts["health"]
    assert health["steps"] == 3 * (64 // 24)
    assert health["final_loss"] == pytest.approx(outcome.log[-1].loss, abs=1e-5)
    assert health["best_loss"] == pytest.approx(min(row.loss or 9 for row in outcome.log), abs=1e-5)
    norms = [row.gradient_norm for row in outcome.log]
    assert all(norm is not None and norm > 0 for norm in norms)
    assert health["gradient_norm"] == pytest.approx(norms[-1], abs=1e-5)
    written = register(outcome, regime=regime, dataset=digits(), parent=None, directory=tmp_path, name="n", kept="last")
    assert written.last is not None
    assert read_manifest(manifest_path(written.last)).training["health"] == health


def test_nothing_trained_has_no_health(tmp_path: Path) -> None:
    from tests.training.tiny import parent

    assert "health" not in trained(regimes.get("bn-stats-only"), parent(tmp_path)).facts
