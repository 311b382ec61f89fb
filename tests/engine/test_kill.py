"""A process that is killed without warning loses nothing that was saved."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import sys, time
from pathlib import Path
import numpy as np
import torch
from harness.engine import snapshots
from harness.evaluation import examine
from harness.suites import Step, Suite
from tests.engine.networks import network, samples

torch.set_num_threads(1)
state, workers, slow = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
snapshots._INTERVAL = 0.05

class Slow(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = network()
    def forward(self, x):
        if x.sum() >= 0:  # decided by the data, so that no traced graph takes the place of this code
            time.sleep(slow)
        return self.inner(x)

x, y = samples(network(), 24)
suite = Suite("s", (Step("apgd-ce", "apgd", {"steps": 60}), Step("square", "square", {"queries": 150})))
done = examine(Slow().eval(), x, y, threat="Linf:0.02", suite=suite, workers=workers, state_dir=state, batch_size=8)
# of the attacks alone: how many passes a backend is timed with depends on its speed
print(done.verdicts.broken_by.tolist(), [(step.forward, step.backward) for step in done.result.steps])
"""


def start(state: Path, workers: int, slow: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(state), str(workers), str(slow)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def fresh_parts(state: Path, since: float) -> list[Path]:
    found = []
    for path in state.glob("*/part-*.pt"):
        with contextlib.suppress(FileNotFoundError):
            found += [path] if path.stat().st_mtime > since else []
    return found


@pytest.mark.slow
def test_killed_twice_and_given_again(tmp_path: Path) -> None:
    """With one worker, and then with two."""
    out, err = start(tmp_path / "whole", 2, 0.0).communicate(timeout=120)
    assert out, err
    state = tmp_path / "killed"
    for workers in (1, 2):
        began = time.time()
        process = start(state, workers, 0.02)
        deadline = time.monotonic() + 60
        while not fresh_parts(state, began) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.2)
        assert process.poll() is None, "it must still be running when it is killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert list(state.glob("*/pool.pt"))
    resumed, err = start(state, 2, 0.0).communicate(timeout=120)
    assert resumed == out, err
    assert list(state.iterdir()) == []
