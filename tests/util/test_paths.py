"""One folder holds everything, and `HARNESS_HOME` says which."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.util import paths


def test_everything_lies_under_one_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {"cache", "checkpoints", "data", "leaderboards", "leaderboards/results", "runs", "study-runs"}
    roots = [getattr(paths, name) for name in paths.__all__ if name != "user_root"]
    monkeypatch.delenv("HARNESS_HOME", raising=False)
    assert {str(root()) for root in roots} == expected
    monkeypatch.setenv("HARNESS_HOME", "/srv/harness")
    assert {str(root()) for root in roots} == {f"/srv/harness/{name}" for name in expected}
    monkeypatch.setenv("HARNESS_HOME", "~/harness")
    assert {str(root()) for root in roots} == {str(Path.home() / "harness" / name) for name in expected}
    monkeypatch.setenv("HARNESS_HOME", "")
    assert {str(root()) for root in roots} == expected
