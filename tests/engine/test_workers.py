"""Workers: what they send, and that they are let go."""

from __future__ import annotations

import multiprocessing
import resource

import numpy as np
import torch

from harness.evaluation import examine
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
