"""Verdicts depend on model, sample, threat, suite and seed, and on nothing else.

Which adversarial example is the first to be found may depend on the runs that are side by side; here it does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.backends.passes import Tally
from harness.engine import executors, preflight, runner
from harness.engine.runner import _disjoint
from harness.engine.snapshots import Part, State
from harness.engine.types import Index, Snapshot, TaskResult
from harness.evaluation import Evaluation, examine
from harness.suites import Step, Suite
from tests.engine.networks import network, samples

pytestmark = pytest.mark.usefixtures("unaudited")

THREAT = "Linf:0.03"
SUITE = Suite(
    "short",
    (
        Step("apgd-ce", "apgd", {"loss": "ce", "steps": 12}),
        Step("apgd-t", "apgd", {"loss": "dlr-targeted", "steps": 8, "targets": 5}),
        Step("fab-t", "fab", {"targeted": True, "targets": 5, "steps": 6}),
        Step("square", "square", {"queries": 60}),
    ),
)
N = 30


def run(seed: int = 0, order: torch.Tensor | None = None, **settings: object) -> Evaluation:
    model = network(dtype=torch.float64)
    x, y = samples(model, N)
    if order is not None:
        x, y = x[order], y[order]
    return examine(model, x, y, threat=THREAT, suite=SUITE, seed=seed, **{"workers": 1, **settings})


@pytest.fixture(scope="module")
def whole() -> Evaluation:
    return run()


@pytest.fixture(autouse=True)
def small_steps(whole: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even few samples are several chunks; only ``whole`` was run with the usual number of rows in a step."""
    monkeypatch.setattr(preflight, "_PASSES_PER_STEP", 0)


def same(a: Evaluation, b: Evaluation) -> None:
    for name in ("robust", "broken_by", "adv_pred", "clean_pred"):
        assert np.array_equal(getattr(a.verdicts, name), getattr(b.verdicts, name)), name
    assert torch.allclose(a.points, b.points, atol=1e-12, rtol=0)


def test_the_case_is_worth_testing(whole: Evaluation) -> None:
    broken = {step.name: step.before - step.after for step in whole.result.steps}
    assert 0 < whole.result.robust_acc < whole.result.clean_acc < 1
    assert sum(count > 0 for count in broken.values()) >= 2, broken


@pytest.mark.parametrize("batch_size", [1, 4, 7, 64])
def test_batch_size(whole: Evaluation, batch_size: int) -> None:
    same(whole, run(batch_size=batch_size))


@pytest.mark.parametrize("rows", [1, 40])
def test_rows_in_a_step(whole: Evaluation, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(preflight, "_MOST_IN_A_STEP", rows * 192)
    monkeypatch.setattr(preflight, "_PASSES_PER_STEP", 4)
    same(whole, run(batch_size=4))


def _first_stops_half_way(parts: list[Index], size: int) -> list[float]:
    return [0.5, *[1.0] * (len(parts) - 1)]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_what_a_task_hands_back_is_gone_on_with(whole: Evaluation, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    dealt = halts = 0
    original = runner.rebalance

    def counted(*args: Any, **rows: int) -> Any:
        nonlocal dealt, halts
        pieces = original(*args, **rows)
        dealt, halts = dealt + len(pieces), halts + 1
        return pieces

    monkeypatch.setattr(runner, "rebalance", counted)
    monkeypatch.setattr(runner, "stop_points", _first_stops_half_way)
    halves = run(workers=size)
    assert halts >= 3
    assert dealt > halts if size > 1 else dealt == halts
    same(whole, halves)
    if size == 1:
        assert np.array_equal(whole.verdicts.forward, halves.verdicts.forward)
        assert np.array_equal(whole.verdicts.backward, halves.verdicts.backward)


@pytest.mark.parametrize("size", [2, 3])
def test_worker_count(whole: Evaluation, size: int) -> None:
    done = run(workers=size)
    assert done.result.environment.workers == size
    same(whole, done)


def test_order(whole: Evaluation) -> None:
    order = torch.randperm(N, generator=torch.Generator().manual_seed(3))
    moved = run(order=order, batch_size=8)
    assert np.array_equal(moved.verdicts.robust, whole.verdicts.robust[order.numpy()])
    assert torch.allclose(moved.points, whole.points[order], atol=1e-12, rtol=0)


def test_shards(whole: Evaluation) -> None:
    parts = [run(order=torch.arange(start, N, 2)) for start in (0, 1)]
    for start, part in enumerate(parts):
        assert np.array_equal(part.verdicts.broken_by, whole.verdicts.broken_by[start::2])
        assert torch.allclose(part.points, whole.points[start::2], atol=1e-12, rtol=0)


def test_the_seed_is_used(whole: Evaluation) -> None:
    other = run(seed=1)
    assert not torch.equal(other.points, whole.points)
    assert other.result.evaluation_id != whole.result.evaluation_id


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    run()
    assert torch.equal(torch.get_rng_state(), before)


class Killed(BaseException):
    """Stands in for a signal: nothing in the package catches it."""


@pytest.mark.parametrize("dealt", [False, True], ids=["in-one-go", "dealt-anew"])
@pytest.mark.parametrize("stop", [5, 25, 50, 75])
def test_a_killed_run_goes_on_to_the_same_result(
    whole: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int, dealt: bool
) -> None:
    if dealt:
        monkeypatch.setattr(runner, "stop_points", _first_stops_half_way)
    _write_everything(monkeypatch)
    saves = 0
    original = executors.execute

    def killing(*args: object, **kwargs: object) -> object:
        keep = kwargs["checkpoint"]

        def counted(shot: object) -> None:
            nonlocal saves
            keep(shot)  # type: ignore[operator]
            saves += 1
            if saves == stop:
                raise Killed

        return original(*args, **{**kwargs, "checkpoint": counted})  # type: ignore[arg-type]

    monkeypatch.setattr(executors, "execute", killing)
    with pytest.raises(Killed):
        run(state_dir=tmp_path, batch_size=11)
    (folder,) = tmp_path.iterdir()
    assert (folder / "pool.pt").exists()
    assert list(folder.glob("part-*.pt"))
    resumes = []
    monkeypatch.setattr(executors, "execute", lambda *a, **k: resumes.append(k["resume"]) or original(*a, **k))
    resumed = run(state_dir=tmp_path, batch_size=11)
    assert resumes[0] is not None
    assert resumes[0].iteration >= 0
    same(whole, resumed)
    assert np.array_equal(resumed.verdicts.forward, run(batch_size=11).verdicts.forward)
    assert list(tmp_path.iterdir()) == [], "the state is removed at the end"


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("wave", [1, 2, 3, 4])
def test_a_run_killed_before_what_was_handed_back_is_done(
    whole: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wave: int, size: int
) -> None:
    monkeypatch.setattr(runner, "stop_points", _first_stops_half_way)
    once = run(workers=2)
    halts = 0
    original = runner._SuiteRun._rebalanced

    def killing(*args: Any) -> Any:
        nonlocal halts
        again = original(*args)
        halts += bool(again)
        if halts == wave:
            raise Killed
        return again

    with monkeypatch.context() as patched:
        patched.setattr(runner._SuiteRun, "_rebalanced", killing)
        with pytest.raises(Killed):
            run(state_dir=tmp_path, workers=2)
    assert list(tmp_path.glob("*/part-*-together.pt"))
    resumed = run(state_dir=tmp_path, workers=size)
    same(whole, resumed)
    if size == 2:
        assert np.array_equal(resumed.verdicts.forward, once.verdicts.forward)
        assert np.array_equal(resumed.verdicts.backward, once.verdicts.backward)
    assert list(tmp_path.iterdir()) == []


def _write_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every write is due, and old parts stay, as they do where a process was killed."""
    monkeypatch.setattr(State, "_is_due", lambda self, kind: self.folder is not None)
    monkeypatch.setattr(State, "_remove", lambda self, pattern, *, but="": None)


def test_the_state_of_another_model_is_not_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Evaluation
) -> None:
    x, y = samples(network(dtype=torch.float64), N)
    nets = network(dtype=torch.float64), network(seed=5, dtype=torch.float64)

    def evaluate(net: torch.nn.Module, **settings: object) -> Evaluation:
        class Called(torch.nn.Module):  # its weights are nowhere to be seen
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                out: torch.Tensor = net(x)
                return out

        return examine(Called().eval(), x.float(), y, threat=THREAT, suite=SUITE, **{"workers": 1, **settings})

    for net in nets:
        net.float()
    alone = evaluate(nets[1])
    _write_everything(monkeypatch)
    monkeypatch.setattr(State, "clear", lambda self: None)
    first = evaluate(nets[0], state_dir=tmp_path)
    second = evaluate(nets[1], state_dir=tmp_path)
    assert first.result.evaluation_id == second.result.evaluation_id, "the case must be one of equal names"
    assert np.array_equal(second.verdicts.robust, alone.verdicts.robust)
    assert not np.array_equal(first.verdicts.robust, second.verdicts.robust)


class _Killed(BaseException):
    pass


def test_parts_of_another_model_are_not_taken_up_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nets = [network(seed=seed).float() for seed in (0, 5)]
    x, y = samples(nets[0], 20 * N)
    with torch.no_grad():
        both = nets[1](x).argmax(1) == y
    x, y = x[both][:N], y[both][:N]
    one_step = Suite("one", (Step("pgd", "pgd", {"steps": 30, "restarts": 1, "step_size": 0.004}),))

    def evaluate(net: torch.nn.Module, workers: int, **settings: object) -> Evaluation:
        class Called(torch.nn.Module):  # its weights are nowhere to be seen
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                out: torch.Tensor = net(x)
                return out

        return examine(Called().eval(), x, y, threat=THREAT, suite=one_step, workers=workers, batch_size=8, **settings)

    alone = evaluate(nets[1], 1)
    _write_everything(monkeypatch)
    with monkeypatch.context() as patched:
        patched.setattr(State, "clear", lambda self: None)
        other = evaluate(nets[0], 2, state_dir=tmp_path)
    assert other.result.clean_acc == alone.result.clean_acc == 1, "or no part of one would fit the other"
    assert (alone.verdicts.robust & ~other.verdicts.robust)[1::2].any()
    (folder,) = tmp_path.iterdir()
    assert list(folder.glob("part-*.pt")), "the case must be one of parts that are left behind"

    def kill(tick: object) -> None:
        raise _Killed

    with pytest.raises(_Killed):
        evaluate(nets[1], 1, state_dir=tmp_path, progress=kill)
    assert (folder / "pool.pt").exists()
    same(alone, evaluate(nets[1], 1, state_dir=tmp_path))


def test_parts_of_other_worker_counts_are_not_run_twice() -> None:
    def part(rows: list[int], iteration: int, runs: list[int] | None = None) -> Part:
        snapshot = Snapshot(iteration, [], TaskResult(Tally.empty(9)))
        return Part(0, 0, 1, torch.tensor(rows), torch.tensor(runs or [0] * len(rows)), 1.0, snapshot)

    chosen = _disjoint([part([0, 2, 4], 3), part([1, 3, 5], 7), part([0, 1, 2, 3], 9), part([6], 1)])
    assert [p.index.tolist() for p in chosen] == [[0, 1, 2, 3], [6]]
    # another run of the same sample is other work
    chosen = _disjoint([part([0, 1], 3, [0, 0]), part([1, 2], 2, [1, 1]), part([2], 1, [1])])
    assert [p.index.tolist() for p in chosen] == [[0, 1], [1, 2]]


def test_a_damaged_state_is_started_over(whole: Evaluation, tmp_path: Path) -> None:
    folder = tmp_path / whole.result.evaluation_id
    folder.mkdir()
    (folder / "pool.pt").write_bytes(b"PK\x03\x04 cut short")
    same(whole, run(state_dir=tmp_path))
