"""Workers: what they send, and that they are let go."""

from __future__ import annotations

import multiprocessing
import resource

import numpy as np
import pytest
import torch

from harness.evaluation import examine
from harness.suites import Step, Suite
from harness.workers import shares
from tests.engine.networks import network, samples


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
