"""Workers: what they send, and that they are let go."""

from __future__ import annotations

import multiprocessing
import resource
import subprocess
import sys

import numpy as np
import pytest
import torch

from harness.attacks import build
from harness.backends.passes import Tally
from harness.engine.scheduling import rebalance, shares, stop_points
from harness.engine.types import Task, TaskResult
from harness.evaluation import examine
from harness.suites import Step, Suite
from harness.threat import ThreatModel
from tests.engine.networks import network, samples

pytestmark = pytest.mark.usefixtures("unaudited")


def test_results_need_few_open_files() -> None:
    model = network()
    x, y = samples(model, 600)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (160, hard))
    try:
        done = examine(model, x, y, threat="Linf:0.2", suite="pgd-20", workers=2, batch_size=2)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    broken = torch.from_numpy(done.verdicts.broken_by >= 0)
    assert broken.sum() > 300
    with torch.no_grad():
        assert (model(done.points[broken]).argmax(1) != y[broken]).all()
    assert np.isfinite(done.points.numpy()).all()


def test_workers_are_let_go() -> None:
    model = network()
    x, y = samples(model, 8)
    examine(model, x, y, threat="Linf:0.05", suite="fgsm", workers=2)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("samples_and_runs", [(13, 1), (13, 3), (1, 4), (2, 1), (40, 2)])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_work_is_dealt_out_evenly(samples_and_runs: tuple[int, int], size: int) -> None:
    standing, runs = samples_and_runs
    index = np.repeat(np.arange(standing) * 7 + 3, runs)
    dealt = shares(index, size)
    assert sorted(np.concatenate(dealt).tolist()) == list(range(len(index)))
    lengths = [len(share) for share in dealt]
    assert max(lengths) - min(lengths) <= 1
    assert len(dealt) == min(size, len(index))
    # a sample's runs stay together: at most one sample is divided at each border
    owners = [set(index[share].tolist()) for share in dealt]
    assert sum(map(len, owners)) <= standing + len(dealt) - 1


def test_a_worker_with_a_row_more_stops_early() -> None:
    parts = [np.arange(7), np.arange(6)]
    assert stop_points(parts, 2) == [6 / 7, 1.0]
    assert stop_points(parts, 3) == [1.0, 1.0]
    assert stop_points([np.arange(4), np.arange(4)], 2) == [1.0, 1.0]
    assert stop_points([np.arange(3), np.arange(2)], 2) == [1.0, 1.0], "batches would become too small"
    assert stop_points([np.arange(5), np.arange(5), np.arange(4)], 3) == [1.0] * 3, "one worker cannot help two"
    assert stop_points([np.arange(5), np.arange(5), np.arange(4), np.arange(4)], 4) == [0.8, 0.8, 1.0, 1.0]
    assert stop_points([np.arange(101), np.arange(100)], 2) == [1.0, 1.0]


def test_what_a_task_hands_back_is_dealt_out_once() -> None:
    index, runs = np.array([5, 5, 2, 8, 8]), np.array([0, 1, 1, 0, 1])
    task = Task(0, "step", build("pgd", ThreatModel.parse("Linf:0.1"), 6), 0, 0, 2, index, runs, torch.eye(5), 0.5)
    chunks = [
        {
            "index": torch.tensor([8, 5]),
            "runs": torch.tensor([1, 0]),
            "state": {"t": torch.tensor([81, 50])},
            "next": 6,
        },
        {
            "index": torch.tensor([2, 8]),
            "runs": torch.tensor([1, 0]),
            "state": {"t": torch.tensor([21, 80])},
            "next": 6,
        },
    ]
    found = TaskResult(Tally.empty(9), broken=[7])
    found.unfinished = 6, chunks
    standing = np.ones(9, dtype=bool)
    standing[2] = False
    (first, on), (second, after) = rebalance(task, found, 2, standing, step_rows=8)
    # the first piece also answers for what is over: the run that ended, and the sample that fell elsewhere
    assert sorted(zip(first.index, first.runs, strict=True)) == [(2, 1), (5, 0), (5, 1), (8, 1)]
    assert sorted(zip(second.index, second.runs, strict=True)) == [(8, 0)]
    assert on.result.broken == [7]
    assert on.result.unfinished is None
    assert after.result.broken == []
    assert [chunk["state"]["t"].tolist() for chunk in on.chunks + after.chunks] == [[81, 50], [80]]
    assert on.iteration == after.iteration == 6
    assert first.stop_at == second.stop_at == 1
    for piece in (first, second):
        rows = [list(zip(index, runs, strict=True)).index(pair) for pair in zip(piece.index, piece.runs, strict=True)]
        assert torch.equal(piece.logits, torch.eye(5)[rows])
    standing[:] = False
    ((alone, over),) = rebalance(task, found, 2, standing, step_rows=8)
    assert len(alone.index) == 5
    assert over.chunks == []


def test_a_sample_that_two_workers_break_counts_once() -> None:
    model = network()
    x, y = samples(model, 3)
    suite = Suite("runs", (Step("apgd-t", "apgd", {"loss": "dlr-targeted", "steps": 20, "targets": 4}),))
    alone, together = (
        examine(model, x, y, threat="Linf:0.2", suite=suite, workers=workers, batch_size=16) for workers in (1, 2)
    )
    assert (~together.verdicts.robust).any()
    # the example that was found first, not that of the worker who answered first
    assert (alone.verdicts.adv_pred == together.verdicts.adv_pred).all()
    assert (alone.points - together.points).abs().max() < 1e-5


def test_who_was_first_has_broken_a_sample() -> None:
    model = network()
    x, y = samples(model, 30)
    suite = Suite("runs", (Step("apgd-t", "apgd", {"loss": "dlr-targeted", "steps": 15, "targets": 5}),))
    for begin in range(0, 30, 3):
        part = slice(begin, begin + 3)
        alone, together = (
            examine(model.double(), x[part].double(), y[part], threat="L2:0.4", suite=suite, workers=n, batch_size=32)
            for n in (1, 2)
        )
        assert (alone.verdicts.adv_pred == together.verdicts.adv_pred).all(), begin
        assert torch.allclose(alone.points, together.points, atol=1e-12, rtol=0), begin


def test_threads_of_autograd_leave_one_worker() -> None:
    """As torch.compile begins them: a forked process could make no backward pass."""
    script = (
        "import torch\n"
        "from harness.engine import executors\n"
        "from harness.studies.scheduling import can_isolate\n"
        "cpu = torch.device('cpu')\n"
        "torch.compile(torch.nn.Linear(2, 2), backend='eager')(torch.ones(1, 2))\n"
        "print(executors.count(2, cpu), executors.count('auto', cpu), can_isolate(cpu))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1", "False"]
