"""An estimate is what the full suite would find, in an interval, and can be continued to the suite's own figure."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness import attacks, suites
from harness.errors import InvalidInput, ResultError
from harness.evaluation import _evaluate, plan_model
from harness.evaluation.estimation import Target, estimate
from harness.evaluation.plan import Plan
from harness.results import estimates, store
from harness.suites import Step, Suite
from harness.threat import ThreatModel
from tests.engine.networks import network, samples

pytestmark = pytest.mark.usefixtures("unaudited")

_TARGETED = {"loss": "dlr-targeted", "steps": 8}
SUITE = Suite(
    "short",
    (
        Step("apgd-ce", "apgd", {"loss": "ce", "steps": 2}),
        Step("apgd-t", "apgd", {**_TARGETED, "targets": 5}),
        Step("square", "square", {"queries": 60}),
    ),
    opening=(
        Step("apgd-ce", "apgd", {"loss": "ce", "steps": 2}),
        Step("apgd-t", "apgd", {**_TARGETED, "targets": 1}),
    ),
)
N = 120


def plan(suite: Suite | str = SUITE, threat: str = "Linf:0.006", seed: int = 0) -> Plan:
    model = network()
    x, y = samples(model, N)
    return plan_model(model, x, y, threat=threat, suite=suite, workers=1, seed=seed)


@pytest.fixture(scope="module")
def whole() -> _evaluate.Evaluation:
    return _evaluate.run(plan())


def test_an_estimate_narrows_to_the_figure_of_the_suite(
    tmp_path: Path, whole: _evaluate.Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 0.2 < whole.result.robust_acc < whole.result.clean_acc
    first = estimate(plan(), Target(half_width=0.15), tmp_path)
    record = first.record
    assert first.ran
    assert record.low <= whole.result.robust_acc <= record.high
    assert record.low <= record.robust_acc <= record.high <= record.opening_acc
    assert record.high - record.low <= 0.3
    assert 0 < record.attacked < record.survivors
    assert record.evaluation_id == whole.result.evaluation_id
    again = estimate(plan(), Target(half_width=0.15), tmp_path)
    assert (again.ran, again.record) == (False, record)

    attacked: list[int] = []
    original = _evaluate.run

    def counted(part: Plan, **arguments: object) -> _evaluate.Evaluation:
        attacked.extend(part.samples[2].tolist())
        return original(part, **arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(_evaluate, "run", counted)
    last = estimate(plan(), Target(half_width=0.0), tmp_path).record
    assert last.complete
    assert last.low == last.high == last.robust_acc == whole.result.robust_acc
    assert last.clean_acc == whole.result.clean_acc
    # nothing that was attacked before is attacked again
    assert len(attacked) == len(set(attacked)) == record.survivors - record.attacked


def test_no_board_ever_sees_an_estimate(tmp_path: Path) -> None:
    path = estimate(plan(), Target(half_width=0.2), tmp_path).path
    assert store.read_all(tmp_path).results == []
    assert json.loads(path.read_text())["kind"] == "estimate"
    with pytest.raises(ResultError):
        store.read(path)


def test_time_ends_an_estimate(tmp_path: Path) -> None:
    record = estimate(plan(), Target(seconds=1e-9), tmp_path).record
    assert record.attacked <= record.census + 32
    assert record.low <= record.high


def _figure(content: dict[str, object]) -> None:
    content["robust_acc"] = 0.99


def _count(content: dict[str, object]) -> None:
    content["attacked"] = 3


@pytest.mark.parametrize("change", [_figure, _count, None])
def test_an_estimate_that_was_changed_is_not_continued(
    tmp_path: Path, change: Callable[[dict[str, object]], None] | None
) -> None:
    path = estimate(plan(), Target(half_width=0.2), tmp_path).path
    if change is None:
        with np.load(path.with_suffix(".npz")) as arrays:
            changed = {name: arrays[name] for name in arrays}
        changed["broken"] = ~changed["broken"]
        np.savez_compressed(path.with_suffix(".npz"), **changed)
    else:
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
    with pytest.raises(ResultError, match="was changed after it was written"):
        estimates.read(path)


def test_what_cannot_be_estimated(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="the suite pgd has no opening"):
        estimate(plan("pgd"), Target(half_width=0.1), tmp_path)
    for wrong in ({}, {"half_width": 0.5}, {"half_width": -0.1}, {"seconds": 0.0}):
        with pytest.raises(InvalidInput):
            Target(**wrong)


@pytest.mark.parametrize("threat", ["Linf:8/255", "L2:0.5", "L1:12"])
def test_the_opening_of_autoattack_is_the_beginning_of_its_runs(threat: str) -> None:
    suite = suites.get("autoattack", ThreatModel.parse(threat))
    first, second = suite.opening
    assert first == suite.steps[0]
    whole = suite.steps[1]
    assert (second.name, second.attack) == (whole.name, whole.attack)
    assert {**second.parameters, "targets": 0} == {**whole.parameters, "targets": 0}
    short, long = (attacks.build(s.attack, ThreatModel.parse(threat), 10, **s.parameters) for s in (second, whole))
    assert (short.runs, short.steps) == (1, long.steps)
