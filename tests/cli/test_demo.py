"""``harness demo``: the whole path in the current folder, here with an evaluator that answers at once."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from harness import checkpoints, training
from harness.checkpoints import _places
from harness.cli import demo
from tests.cli.conftest import Harness


@pytest.fixture
def shipped(
    folder: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A package that comes with ``natural`` and ``other``; training is cut to one short epoch."""
    package = tmp_path_factory.mktemp("package") / "harness"
    directory = package / "_shipped" / "checkpoints"
    directory.mkdir(parents=True)
    monkeypatch.setattr(_places, "_PACKAGE", package)
    point = checkpoints.load(trained / "tiny.pt")
    for name in ("natural", "other"):
        checkpoints.save(
            point.model, directory=directory, name=name, regime="natural", dataset="digits", threat="Linf:0.15"
        )
    short = ("--epochs", "1", "--limit", "100", "--steps", "1", "--validation", "0.2")
    monkeypatch.setattr(demo, "_TRAINING", (*demo._TRAINING, *short))
    return directory


def test_from_nothing_to_a_leaderboard(
    harness: Harness, shipped: Path, folder: Path, calls: list[dict[str, Any]]
) -> None:
    before = {path: path.read_bytes() for path in shipped.iterdir()}
    code, out, _ = harness("demo")
    assert code == 0
    with (folder / "leaderboards" / "demo" / "digits-Linf.csv").open() as file:
        rows = {row["checkpoint"]: row for row in csv.DictReader(file)}
    assert rows["bn_ft_demo"]["regime"] == "bn-ft"
    assert rows["bn_ft_demo"]["parent"] == "natural"
    assert all(row["pgd_acc"] and row["autoattack_acc"] for row in rows.values())
    assert {call["suite"] for call in calls} == {"pgd", "autoattack"}
    assert {str(call["threat"]) for call in calls} == {"Linf:0.15"}
    assert all(
        word in out for word in ("bn_ft_demo", "leaderboards/demo/digits-Linf.csv", "leaderboards/demo/digits-Linf.md")
    )
    assert {path: path.read_bytes() for path in shipped.iterdir()} == before
    tops = {path.relative_to(folder).parts[0] for path in folder.rglob("*")}
    assert tops == {"checkpoints", "leaderboards"}


def test_again_uses_what_is_there(
    harness: Harness, shipped: Path, calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert harness("demo").code == 0
    evaluated = len(calls)
    monkeypatch.setattr(training, "train_and_register", lambda *args, **settings: pytest.fail("trained again"))
    code, out, _ = harness("demo")
    assert code == 0
    assert "is there already" in out
    assert len(calls) == evaluated


def test_a_package_without_checkpoints(harness: Harness, shipped: Path) -> None:
    for path in shipped.iterdir():
        path.unlink()
    harness("demo").refused("install it again")
