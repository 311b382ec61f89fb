"""What was taken back is not published, whichever record of its run the history names."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from harness.boards import withdrawal
from harness.errors import ResultError
from harness.publishing import Evidence
from harness.publishing.repository import publish
from harness.publishing.submission import Paper, submit
from harness.results import store

PAPER = Paper("Taken back", "https://example.org/x", "robust-harness contributors", "Unpublished 2026")


@pytest.fixture
def taken_back(evidence: Evidence, tmp_path: Path) -> Evidence:
    """The shipped result in a folder where another record of its run was retracted, whose files are gone."""
    folder = tmp_path / "results"
    folder.mkdir()
    for file in evidence.path.parent.glob(f"{evidence.path.stem}.*"):
        shutil.copy(file, folder)
    renamed = evidence.result.model_copy(update={"checkpoint": "renamed", "record_id": "0" * 64, "adversarial": None})
    other = store.save(renamed, evidence.verdicts, folder)
    withdrawal.retract(other, reason="trained on the test images")
    for file in folder.glob("renamed*"):
        file.unlink()
    return replace(evidence, path=folder / evidence.path.name)


def test_it_is_not_submitted(taken_back: Evidence, tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"cannot be submitted.*was taken back.*trained on the test images"):
        submit(taken_back, PAPER, tmp_path / "out")


def test_it_is_not_published(taken_back: Evidence, tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"cannot be published.*was taken back.*trained on the test images"):
        publish(taken_back, tmp_path / "out")
    assert not (tmp_path / "out").exists()
