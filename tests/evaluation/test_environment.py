"""The record of the machine says which commit the package ran from."""

from __future__ import annotations

import subprocess

import pytest
import torch

from harness.evaluation.environment import environment
from harness.settings import Settings
from tests.house._tree import ROOT


def test_the_commit_of_a_clone_is_recorded() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this copy of the sources is no clone")
    head = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    found = environment(Settings(), device=torch.device("cpu"), passes=[], batch_size=1, workers=1)
    assert found.git_commit == head.stdout.strip()
    assert found.git_dirty in (True, False)
