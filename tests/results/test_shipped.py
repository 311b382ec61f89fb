"""The leaderboards in the clone are what its results say."""

from __future__ import annotations

from pathlib import Path

import pytest

import harness
from harness import datasets
from harness.cli.demo import _NAME as DEMO
from harness.results import leaderboard, store

FOLDER = Path(__file__).resolve().parents[2] / "leaderboards"


def test_the_shipped_leaderboards_can_be_rebuilt(tmp_path: Path) -> None:
    if not FOLDER.is_dir():
        pytest.skip("the leaderboards are not part of this copy of the sources")
    assert list((FOLDER / "results").glob("*.json")), "a clone ships the results of its checkpoints"
    standard = {name: datasets.about(name).threats for name in datasets.names()}
    stored = store.read_all(FOLDER / "results")
    assert stored.left_out == []
    # `make demo` adds results of its own, which are not shipped, and ranks them elsewhere
    results = [result for _, result in stored.results if result.checkpoint != DEMO]
    for board in leaderboard.boards(
        results, standard, survivors=lambda result: store.read_survivors(FOLDER / "results", result)
    ):
        for path in leaderboard.write(board, tmp_path):
            standing = FOLDER / path.name
            assert standing.is_file(), "run: harness leaderboard"
            assert standing.read_bytes() == path.read_bytes(), "run: harness leaderboard"
    for path, _ in stored.results:
        assert len(store.read_verdicts(path)) > 0


@pytest.mark.parametrize("path", sorted((FOLDER / "results").glob("*.json")), ids=lambda path: path.stem)
def test_the_shipped_results_can_be_verified(path: Path) -> None:
    verification = harness.verify(path)
    assert [check for check in verification.checks if not check.holds] == []
