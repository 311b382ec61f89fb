"""Arguments of an architecture are kept in the manifest and decide what a result is known by."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from harness import checkpoints
from harness.cli import run
from tests.evaluation.test_identity import planned

NET = """
from torch import nn


def net(num_classes, in_channels, width=4, slope=0.0):
    layers = nn.Conv2d(in_channels, width, 3), nn.LeakyReLU(slope), nn.Flatten(), nn.Linear(36 * width, num_classes)
    return nn.Sequential(*layers)
"""
IMPORT = ["import", "w.pt", "--architecture", "net.py:net", "--dataset", "digits", "--normalization", "none"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    (tmp_path / "net.py").write_text(NET)
    space: dict = {}
    exec(NET, space)
    torch.save(space["net"](10, 1, width=6).state_dict(), "w.pt")
    return tmp_path


def test_they_are_kept_and_used_again(folder: Path) -> None:
    assert run([*IMPORT, "--name", "wide", "--arch-args", "width=6,slope=0.1"]) == 0
    point = checkpoints.load("wide")
    assert point.manifest.arguments == {"width": 6, "slope": 0.1}
    assert point.model.network[1].negative_slope == 0.1
    again = ["import", "checkpoints/wide.pt", "--name", "again", "--architecture", "net.py:net", "--overwrite"]
    assert run(again) == 0
    assert checkpoints.load("again").manifest.arguments == {"width": 6, "slope": 0.1}


def test_a_misfit_says_how_the_factory_was_called(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*IMPORT, "--name", "wide"]) == 1
    said = capsys.readouterr().err
    assert "net.py:net was called with num_classes=10, in_channels=1, and may be given width=4, slope=0.0" in said


def test_they_are_part_of_the_identity(folder: Path) -> None:
    ids = set()
    for name, slope in (("a", "0.1"), ("b", "0.2"), ("c", "0.1")):
        assert run([*IMPORT, "--name", name, "--arch-args", f"width=6,slope={slope}"]) == 0
        ids.add(planned(checkpoints.load(name)).evaluation_id)
    assert len(ids) == 2
