"""What a kill costs: passes made again, counted for kills at many moments, on a clock that passes move."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.engine import executors, runner, snapshots
from harness.engine.executors import InProcess
from harness.evaluation import Evaluation, examine
from harness.evaluation import _evaluate as evaluate_module
from harness.suites import Step, Suite
from tests.engine.networks import network, samples

pytestmark = pytest.mark.usefixtures("unaudited")  # what is looked at before and after is none of the attack's passes

N, BATCH = 24, 8
SECONDS_A_ROW = 0.04
SUITE = Suite(
    "resumed",
    (
        Step("apgd-ce", "apgd", {"loss": "ce", "steps": 15}),
        Step("apgd-t", "apgd", {"loss": "dlr-targeted", "steps": 10, "targets": 4}),
        Step("square", "square", {"queries": 60}),
    ),
)


class Killed(BaseException):
    """Stands in for a signal: nothing in the package catches it."""


class Meter:
    """Counts rows, moves the clock by them, and kills at a given one; a copy of the network has the same one."""

    def __init__(self) -> None:
        self.rows = 0
        self.kill_at: int | None = None
        self.now = 0.0
        self.seconds_a_row = SECONDS_A_ROW
        self.fast_until = 0

    def __deepcopy__(self, memo: object) -> Meter:
        return self

    def monotonic(self) -> float:
        return self.now

    def count(self, rows: int) -> None:
        self.rows += rows
        self.now += self.seconds_a_row * rows if self.rows > self.fast_until else 0.0
        if self.kill_at is not None and self.rows > self.kill_at:
            raise Killed


class Counted(torch.nn.Module):
    """A network with a meter."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network(dtype=torch.float64)
        self.meter = Meter()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() >= 0:  # decided by the data, so that no traced graph takes the place of this code
            self.meter.count(len(x))
        out: torch.Tensor = self.inner(x)
        return out


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    counted = Counted().eval()
    meter = counted.meter
    monkeypatch.setattr(snapshots, "time", meter)
    # several workers, one after the other in this process: the same tasks and the same saved parts
    monkeypatch.setattr(executors, "executor", lambda size, *parts: InProcess(*parts, size=size))
    original = runner.preflight.prepare

    def prepare(*args: Any, **settings: Any) -> Any:
        kill_at, meter.kill_at = meter.kill_at, None
        now = meter.now
        prepared = original(*args, **settings)
        meter.now, meter.kill_at, meter.rows = (
            now,
            kill_at,
            0,
        )  # what is redone at every start is none of the attack's passes
        return prepared

    monkeypatch.setattr(runner.preflight, "prepare", prepare)
    return counted


def attack(
    model: Counted, folder: Path, workers: int, kill_at: int | None = None, suite: Suite = SUITE
) -> tuple[Evaluation | None, int]:
    """The evaluation, None if it was killed, and the rows that went through the model."""
    x, y = samples(network(dtype=torch.float64), N)
    model.meter.kill_at = kill_at
    settings: dict[str, Any] = {"workers": workers, "batch_size": BATCH, "state_dir": folder}
    try:
        return examine(model, x, y, threat="Linf:0.001", suite=suite, **settings), model.meter.rows
    except Killed:
        return None, model.meter.rows


# two writes one behind the other, the step that every worker was at, and the clean pass that ends with a write
def allowed(workers: int) -> float:
    return workers * (2 * snapshots._INTERVAL / SECONDS_A_ROW + 3 * BATCH)


@pytest.mark.parametrize(("before", "after"), [(1, 1), (1, 2), (2, 1), (3, 2)])
def test_a_kill_costs_few_passes(model: Counted, tmp_path: Path, before: int, after: int) -> None:
    rows = attack(model, tmp_path / "before", before)[1]
    whole, same = attack(model, tmp_path / "after", after)
    assert whole is not None
    # workers that share the runs of a sample do not see at once that another has broken it
    rows = max(rows, same)
    bound = allowed(before)
    assert bound < rows / 3, "or the test would say nothing"
    for moment in (1, 3, 5):
        folder = tmp_path / f"killed-{moment}"
        killed, spent = attack(model, folder, before, rows * moment // 6)
        assert killed is None
        resumed, rest = attack(model, folder, after)
        assert resumed is not None
        assert (resumed.verdicts.robust == whole.verdicts.robust).all()
        assert (resumed.verdicts.adv_pred == whole.verdicts.adv_pred).all()
        assert spent + rest - rows <= bound, f"killed after {spent} of {rows} rows"
        assert list(folder.iterdir()) == []


def test_killed_again_and_again(model: Counted, tmp_path: Path) -> None:
    """Every kill costs no more than one alone, whatever the numbers of workers were before."""
    whole, rows = attack(model, tmp_path / "whole", 2)
    assert whole is not None
    total, resumed, starts = 0, None, 0
    while resumed is None and starts < 30:
        resumed, spent = attack(model, tmp_path / "killed", 2 - starts % 2, round(1.3 * allowed(2)))
        total, starts = total + spent, starts + 1
    assert resumed is not None, "it never came to its end"
    assert starts >= 5
    assert (resumed.verdicts.robust == whole.verdicts.robust).all()
    assert total - rows <= (starts - 1) * allowed(2)


def test_work_is_not_lost_because_a_round_before_was_short(
    model: Counted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pool that was not due at the end of a round is written while the next one runs."""
    suite = Suite("rounds", (Step("pgd", "pgd", {"steps": 40, "restarts": 2}),))
    monkeypatch.setattr(runner, "parallel_runs", lambda left, surviving, rows: 1)
    whole, rows = attack(model, tmp_path / "whole", 1, suite=suite)
    assert whole is not None
    model.meter.fast_until = rows * 55 // 100
    killed, spent = attack(model, tmp_path / "killed", 1, rows * 95 // 100, suite)
    assert killed is None
    _, rest = attack(model, tmp_path / "killed", 1, suite=suite)
    assert spent + rest - rows <= allowed(1) < rows / 4


def test_tasks_that_were_split_are_saved_beside_each_other(model: Counted, tmp_path: Path) -> None:
    """Killed when one half has come further and the other has not been saved since."""
    suite = Suite("one", (Step("pgd", "pgd", {"steps": 60, "restarts": 1, "step_size": 2e-5}),))
    whole, rows = attack(model, tmp_path / "whole", 1, suite=suite)
    assert whole is not None
    assert whole.verdicts.robust.sum() > N / 2
    _, first = attack(model, tmp_path / "killed", 1, rows * 3 // 4, suite)
    _, second = attack(model, tmp_path / "killed", 2, (rows - first) // 2 + 2 * BATCH, suite)
    resumed, third = attack(model, tmp_path / "killed", 2, suite=suite)
    assert resumed is not None
    assert (resumed.verdicts.robust == whole.verdicts.robust).all()
    assert first + second + third - rows <= allowed(1) + 4 * BATCH < rows / 4


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_known_of_clean_images_is_kept(model: Counted, tmp_path: Path, workers: int) -> None:
    suite = Suite("short", (Step("fgsm", "fgsm", {}),))
    _, rows = attack(model, tmp_path / "whole", workers, suite=suite)
    model.meter.seconds_a_row = 1.0
    killed, spent = attack(model, tmp_path / "killed", workers, N - 1, suite)
    assert killed is None
    assert not list(tmp_path.glob("killed/*/pool.pt"))
    resumed, rest = attack(model, tmp_path / "killed", workers, suite=suite)
    assert resumed is not None
    assert spent + rest - rows <= BATCH


def test_a_step_that_ends_is_always_written(model: Counted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "_INTERVAL", 1e9)
    whole, rows = attack(model, tmp_path / "whole", 1)
    assert whole is not None
    ends, before = [], rows - sum(step.forward for step in whole.result.steps)
    for step in whole.result.steps:
        before += step.forward
        ends.append(before)
    for position, end in enumerate(ends[:-1]):
        folder = tmp_path / str(position)
        attack(model, folder, 1, end + 2 * BATCH)
        (state,) = folder.iterdir()
        saved = snapshots.State(state).pool()
        assert saved is not None
        assert saved["position"] == [position + 1, 0]


def test_the_state_stays_until_the_result_is_stored(model: Counted, tmp_path: Path) -> None:
    from harness.evaluation.plan import plan_model

    x, y = samples(network(dtype=torch.float64), N)
    plan = plan_model(model, x, y, threat="Linf:0.01", suite=SUITE, workers=1, state_dir=tmp_path)
    done = evaluate_module.run(plan, keep_state=True)
    (folder,) = tmp_path.iterdir()
    assert (folder / "pool.pt").is_file()
    spent = model.meter.rows
    again = evaluate_module.run(plan, keep_state=True)
    assert model.meter.rows < spent / 20, "nothing is attacked again"
    assert (again.verdicts.robust == done.verdicts.robust).all()
    again.state.clear()
    assert list(tmp_path.iterdir()) == []
