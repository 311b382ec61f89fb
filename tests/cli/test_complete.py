"""``harness evaluate`` of networks that come with their weights, without an import first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from harness import datasets, models
from harness.models.sources import Complete
from tests.cli.conftest import Harness
from tests.cli.test_data import write
from tests.support import trained_looking

QUICK = ("--suite", "fgsm", "--limit", "20", "--workers", "1", "--json")


def test_an_exported_file(harness: Harness, folder: Path) -> None:
    program = torch.export.export(
        trained_looking("digits-resnet").eval(),
        (torch.rand(2, 1, 8, 8),),
        dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
    )
    torch.export.save(program, folder / "net.pt2")
    outcome = harness("evaluate", "--checkpoint", "net.pt2", "--dataset", "digits", *QUICK)
    assert outcome.code == 0, outcome.err
    told = json.loads(outcome.out)
    assert (told["checkpoint"], told["n"]) == ("net.pt2", 20)
    verified = harness("verify", told["result"], "--checkpoint", "net.pt2", "--json")
    assert verified.code == 0, verified.out


def test_a_library_s_network_on_a_folder(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    write(datasets.load("digits", limit=30), "images", tuple("0123456789"), below=7)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    monkeypatch.setattr(models, "complete", lambda name: Complete(network, 10, (1, 8, 8), None))
    asked = ("evaluate", "--checkpoint", "timm:resnet18", "--dataset", "images", "--norm", "Linf", "--eps", "0.1")
    outcome = harness(*asked, *QUICK)
    assert outcome.code == 0, outcome.err
    assert (json.loads(outcome.out)["checkpoint"], json.loads(outcome.out)["dataset"]) == ("resnet18", "images")
