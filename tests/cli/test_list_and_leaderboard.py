"""``harness list`` and ``harness leaderboard``."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from harness import attacks, datasets, models, regimes, suites
from harness.results import store
from tests.cli.conftest import Harness
from tests.results.records import make_result, make_verdicts

KINDS = {
    "architectures": [*models.names(), *models.forms()],
    "attacks": attacks.names(),
    "datasets": datasets.names(),
    "regimes": regimes.names(),
    "suites": suites.names(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_list(harness: Harness, kind: str) -> None:
    code, out, err = harness("list", kind, "--json")
    assert (code, err) == (0, "")
    rows = json.loads(out)
    assert sorted(row["name"] for row in rows) == sorted(KINDS[kind])
    assert all(len(row["description"]) > 5 and "\n" not in row["description"] for row in rows)
    code, out, err = harness("list", kind)
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == len(rows) + 2
    assert all(row["name"] in out and row["description"] in out for row in rows)


@pytest.mark.usefixtures("tiny")
def test_list_checkpoints(harness: Harness) -> None:
    rows = json.loads(harness("list", "checkpoints", "--json").out)
    (row,) = [row for row in rows if row["name"] == "tiny"]
    assert row["description"] == "digits-resnet, natural, digits"
    assert "tiny" in harness("list", "checkpoints").out


def test_a_bad_manifest_is_named_and_the_others_are_listed(harness: Harness, tiny: Path) -> None:
    (tiny.parent / "broken.pt").touch()
    (tiny.parent / "broken.toml").write_text("name = '\x1b[31m'")
    code, out, err = harness("list", "checkpoints")
    assert code == 0
    assert "tiny" in out
    assert err.startswith("warning: left out: ")
    assert "broken.toml" in err
    assert "\x1b" not in err


@pytest.fixture
def results(folder: Path) -> Path:
    root = folder / "leaderboards" / "results"
    for result in (
        make_result("bn_ft", robust=40),
        make_result("bn_ft", suite="pgd", robust=44),
        make_result("natural", robust=1, regime="natural", parent=None),
        make_result("bn_ft", robust=5, clean=10, n=10, data="e" * 64),
    ):
        store.save(result, make_verdicts(result), root)
    return root


@pytest.mark.usefixtures("results")
def test_leaderboard(harness: Harness, folder: Path) -> None:
    code, out, err = harness("leaderboard")
    assert (code, err) == (0, "")
    assert "40.0 (30.9–49.8)" in out
    assert "partial runs" in out
    with (folder / "leaderboards" / "digits-Linf.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["rank"], row["checkpoint"], row["pgd_acc"]) for row in rows] == [
        ("1", "bn_ft", "0.440000"),
        ("2", "natural", ""),
    ]
    written = {path.name: path.read_bytes() for path in (folder / "leaderboards").glob("*.*")}
    assert {"digits-Linf.md", "digits-Linf-partial.csv", "digits-Linf-partial.md"} <= set(written)
    assert harness("leaderboard").code == 0
    assert {path.name: path.read_bytes() for path in (folder / "leaderboards").glob("*.*")} == written


@pytest.mark.usefixtures("results")
def test_leaderboard_in_chosen_formats(harness: Harness, folder: Path) -> None:
    (folder / "mine.py").write_text(
        "from harness.results.formats import Format\n"
        "names = Format('.names.txt', lambda board: ' '.join(row.checkpoint for row in board.rows))\n"
        "other = 3\n"
    )
    assert harness("leaderboard", "--format", "mine.py:names").code == 0
    boards = folder / "leaderboards"
    assert (boards / "digits-Linf.names.txt").read_text() == "bn_ft natural"
    assert not list(boards.glob("*.csv"))
    assert harness("leaderboard", "--format", "mine.py:names", "--format", "csv").code == 0
    assert list(boards.glob("*.csv"))
    harness("leaderboard", "--format", "mine.py:other").refused("must be a Format, got a int")
    harness("leaderboard", "--format", "cvs").refused("unknown format 'cvs'", "did you mean 'csv'?")


def test_leaderboard_json(harness: Harness, results: Path, folder: Path) -> None:
    moved = results.rename(folder / "moved")
    code, out, _ = harness("leaderboard", "--results", str(moved), "--output", "boards", "--json")
    assert code == 0
    full, partial = json.loads(out)
    assert (full["name"], full["threat"], full["partial"]) == ("digits-Linf", "Linf:0.15", False)
    assert [row["checkpoint"] for row in full["rows"]] == ["bn_ft", "natural"]
    assert full["rows"][1]["pgd_acc"] is None
    assert partial["partial"] is True
    assert all(Path(path).parent == folder / "boards" and Path(path).is_file() for path in full["files"])


def test_lists_fit_a_terminal(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    out = harness("list", "regimes").out
    assert out.splitlines()[0].split() == ["name", "description"]
    full = harness("list", "regimes", "-v").out
    assert len(full.splitlines()[0].split()) > 4
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    narrow = harness("list", "regimes").out.splitlines()
    assert max(map(len, narrow)) <= 80
    assert len(narrow) == len(out.splitlines())
