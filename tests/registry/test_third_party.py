"""Public checkpoints that were trained elsewhere, imported and evaluated as a user does it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.cli import run
from harness.results import stats
from tests.support import SHARED

pytestmark = pytest.mark.skipif(not (SHARED / "models").is_dir(), reason="no shared models")


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HARNESS_HOME", raising=False)


def answer(capsys: pytest.CaptureFixture[str], *args: str | Path) -> dict[str, Any]:
    """What a command prints as JSON."""
    capsys.readouterr()
    code = run([*map(str, args), "--json"])
    out, err = capsys.readouterr()
    assert code == 0, err
    told: dict[str, Any] = json.loads(out)
    return told


def test_a_natural_resnet20_as_accurate_as_known_and_not_robust(capsys: pytest.CaptureFixture[str]) -> None:
    file, images = SHARED / "models" / "cifar10_resnet20_natural.th", SHARED / "data" / "cifar10_test_600.npz"
    described = ["--architecture", "resnet20", "--normalization", "imagenet", "--dataset", "cifar10"]
    told = answer(capsys, "import", file, "--name", "public", *described)
    assert told["notes"] == ["took the prefix 'module.' off all names", "set 19 missing BN batch counters to zero"]
    evaluate = ["evaluate", "--checkpoint", "public", "--dataset", images, "--workers", "1"]
    clean = answer(capsys, *evaluate, "--suite", "clean")
    assert (clean["n"], clean["partial"], clean["threat"]) == (600, False, "Linf:8/255")
    assert clean["clean_acc"] == pytest.approx(0.9173, abs=0.01)
    attacked = answer(capsys, *evaluate, "--suite", "pgd", "--limit", "20")
    assert (attacked["n"], attacked["partial"]) == (20, True)
    low, high = stats.wilson(round(20 * attacked["clean_acc"]), 20)
    assert low <= 0.9173 <= high
    assert attacked["robust_acc"] == 0
    assert attacked["flags"] == []


def test_a_robust_lenet5_as_accurate_as_known_and_still_robust(capsys: pytest.CaptureFixture[str]) -> None:
    file, images = SHARED / "models" / "mnist_lenet5_advtrained.pt", SHARED / "data" / "mnist_test.npz"
    described = ["--architecture", "lenet5", "--normalization", "none", "--dataset", "mnist"]
    answer(capsys, "import", file, "--name", "public", *described)
    evaluate = ["evaluate", "--checkpoint", "public", "--dataset", images, "--workers", "1", "--limit", "50"]
    told = answer(capsys, *evaluate, "--suite", "pgd-20")
    assert (told["n"], told["threat"], told["clean_acc"]) == (50, "Linf:0.3", 1.0)
    # the reference AutoAttack, far stronger, leaves 45 of these
    assert 45 <= round(50 * told["robust_acc"]) < 50
    assert told["steps"][0]["backward"] >= 45 * 20
