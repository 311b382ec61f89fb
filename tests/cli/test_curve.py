"""``harness curve``."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.cli.conftest import Harness

pytestmark = pytest.mark.usefixtures("unaudited")

QUICK = ("--suite", "fgsm", "--limit", "20", "--workers", "1")


def test_a_curve_of_a_shipped_checkpoint(harness: Harness, folder: Path) -> None:
    code, out, err = harness("curve", "natural", "--eps", "0,0.02,0.1,0.3", *QUICK, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert [point["eps"] for point in found["points"]] == ["0", "0.02", "0.1", "0.3"]
    accuracies = [point["robust_acc"] for point in found["points"]]
    assert accuracies == sorted(accuracies, reverse=True)
    assert found["median_distance"] is None
    table, picture = Path(found["files"]["table"]), Path(found["files"]["picture"])
    assert table.parent == folder / "leaderboards" / "curves"
    assert [row["eps"] for row in csv.DictReader(table.read_text().splitlines())] == ["0", "0.02", "0.1", "0.3"]
    assert picture.read_text().startswith("<?xml")
    assert len(list((folder / "leaderboards" / "results").glob("*.json"))) == 3
    shown = harness("curve", "natural", "--eps", "0.3,0.1,0.02", *QUICK)
    assert shown.code == 0
    assert "area under the curve" in shown.out
    assert len(list((folder / "leaderboards" / "results").glob("*.json"))) == 3
    assert harness("curve", "natural", "--eps", "0.3", *QUICK).code == 0
    assert len(list(table.parent.glob("*.csv"))) == 2  # other radii are another curve
    assert harness("leaderboard").code == 0
    assert "Robust accuracy against eps" in (folder / "leaderboards" / "digits-Linf-0.1-partial.html").read_text()


def test_what_makes_no_curve(harness: Harness, folder: Path) -> None:
    harness("curve", "natural", "--eps", "0", *QUICK).refused("an eps above 0")
    harness("curve", "natural", "--eps", "0.1,,0.2", *QUICK).refused("expected radii such as", code=2)
    harness("curve", "natural", "--eps", "0.1,1/10", *QUICK).refused("are the same")
    harness("curve", "natural", "--eps", "0.1,much", *QUICK).refused("much")
    harness("curve", "naturall", "--eps", "0.1", *QUICK).refused("did you mean 'natural'?")
    harness("curve", "natural", *QUICK).refused("--eps", code=2)
    assert list(folder.iterdir()) == []
