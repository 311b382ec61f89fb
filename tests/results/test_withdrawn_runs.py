"""A run that was taken back does not come back: under no other name, record or file, and through no command."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pandas as pd
import pytest

import harness
from harness import evaluation
from harness.boards import withdrawal
from harness.cli import run
from harness.errors import ResultError
from harness.results import history, store
from harness.results._evidence import content_sha256
from harness.results.record import Result
from harness.util.validation import Record
from tests.results.records import make_result, make_verdicts

R = TypeVar("R", bound=Record)
LATER = "2025-02-01T00:00:00+00:00"

COMEBACKS: dict[str, Callable[[Result], Result]] = {
    "as it was": lambda result: result,
    "under another name": lambda result: changed(result, checkpoint="renamed", record_id="1" * 64),
    "by a suite of another name": lambda result: changed(result, suite="my-suite", record_id="2" * 64),
    "with other claims": lambda result: changed(result, model=changed(result.model, regime="gn"), record_id="3" * 64),
    "without its flags": lambda result: changed(result, flags=[], record_id="4" * 64),
    "recorded later": lambda result: changed(result, recorded=LATER, harness_version="9", verdicts_from="a.json"),
}


def changed(record: R, **fields: object) -> R:
    return record.model_copy(update=fields)


def saved(folder: Path, result: Result) -> Path:
    return store.save(result, make_verdicts(result), folder, force=True)


def first_run() -> Result:
    return make_result("first", flags=("a doubt",))


@pytest.fixture(params=[False, True], ids=["files kept", "files gone"])
def board(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A folder whose one run was taken back."""
    folder = tmp_path / "board"
    path = saved(folder, first_run())
    withdrawal.retract(path, reason="trained on the test images")
    if request.param:
        for file in folder.glob("first*"):
            file.unlink()
    return folder


@pytest.fixture(params=COMEBACKS)
def comeback(request: pytest.FixtureRequest) -> Result:
    """Another record of the same run."""
    return COMEBACKS[request.param](first_run())


def test_on_no_leaderboard(board: Path, comeback: Result) -> None:
    saved(board, comeback)
    assert [one.rows for one in harness.leaderboard(board)] == [()]


def test_not_in_a_table_without_the_reason(board: Path, comeback: Result) -> None:
    saved(board, comeback)
    said = harness.load_results(board)["withdrawn"].tolist()
    assert ["trained on the test images" in str(text) for text in said] == [True] * len(said)


def test_not_taken_in(board: Path, comeback: Result, tmp_path: Path) -> None:
    path = saved(tmp_path / "mine", comeback)
    with pytest.raises(ResultError, match=r"was taken back.*trained on the test images"):
        evaluation.take_in(path, board)


def test_not_taken_in_from_a_folder_that_took_it_back(board: Path, comeback: Result, tmp_path: Path) -> None:
    path = saved(board, comeback)
    with pytest.raises(ResultError, match=r"was taken back.*trained on the test images"):
        evaluation.take_in(path, tmp_path / "another board")


def test_neither_retracted_again_nor_in_the_place_of_another(board: Path, comeback: Result) -> None:
    path, other = saved(board, comeback), saved(board, make_result("other"))
    for take_back in (
        lambda: withdrawal.retract(path, reason="again"),
        lambda: withdrawal.supersede(path, other, reason="better"),
        lambda: withdrawal.supersede(other, path, reason="better"),
    ):
        with pytest.raises(ResultError, match=r"was taken back before.*trained on the test images"):
            take_back()
    assert len(history.read(board)) == 1


def test_compared_by_no_name_and_by_its_file_with_the_reason(
    board: Path, comeback: Result, capsys: pytest.CaptureFixture[str]
) -> None:
    path, other = saved(board, comeback), saved(board, make_result("other"))
    assert run(["compare", comeback.checkpoint, "other", "--results", str(board)]) == 1
    assert f"what {comeback.checkpoint} has in {board} was taken back (" in capsys.readouterr().err
    assert run(["compare", str(path), str(other), "--json"]) == 0
    notes = [note for note in json.loads(capsys.readouterr().out)["notes"] if "taken back" in note]
    assert len(notes) == 1
    assert "trained on the test images" in notes[0]


def test_not_in_folders_that_are_merged(board: Path, comeback: Result, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    saved(mine, comeback)
    saved(board, make_result("other"))
    for folders in ((board, mine), (mine, board)):
        assert [row.checkpoint for row in harness.leaderboard(folders)[0].rows] == ["other"], folders


def test_not_as_a_copy_whose_files_are_called_otherwise(board: Path, tmp_path: Path) -> None:
    """The names of the files beside it are part of a result, so that its content has another hash."""
    mine = tmp_path / "mine"
    path = saved(mine, first_run())
    shutil.copy(path.with_suffix(".npz"), mine / "other.npz")
    renamed = changed(store.read(path), samples="other.npz").model_dump(mode="json")
    renamed["content_sha256"] = content_sha256(renamed)
    (mine / "other.json").write_text(json.dumps(renamed))
    path.unlink()
    assert store.read(mine / "other.json").content_sha256 != history.read(board)[0].result
    with pytest.raises(ResultError, match="was taken back"):
        evaluation.take_in(mine / "other.json", board)
    (merged,) = harness.leaderboard([mine, board])
    assert merged.rows == ()


def test_another_run_of_the_same_evaluation_counts(board: Path) -> None:
    saved(board, changed(first_run(), started=LATER, seconds=3.0))
    (row,) = harness.leaderboard(board)[0].rows
    assert row.checkpoint == "first"


def test_figures_that_are_no_run_s_own_take_nothing_back_with_them(tmp_path: Path) -> None:
    """A forged record of a run is taken back without the run."""
    forged = changed(make_result("first", robust=90), evaluation_id=first_run().evaluation_id)
    saved(tmp_path, first_run())
    withdrawal.retract(saved(tmp_path, forged), reason="nobody can repeat it")
    (row,) = harness.leaderboard(tmp_path)[0].rows
    assert row.robust["autoattack"].value == 0.40
    assert row.flags[0].text == "a doubt"


def test_not_in_the_place_of_another_run_by_a_line_that_was_written_elsewhere(board: Path, comeback: Result) -> None:
    """As two histories make it that are merged: a retraction in one, a successor in the other."""
    path, other = saved(board, comeback), saved(board, make_result("other"))
    line = history.entry("superseded", other, store.read(other), reason="better", successor=store.read(path))
    history.add(board, line)
    assert harness.leaderboard(board)[0].rows == ()


def test_a_record_may_take_the_place_of_others_of_its_run(tmp_path: Path) -> None:
    """So that a name can be mended. The other records are gone; the last that was put in their place counts."""
    paths = [saved(tmp_path, changed(first_run(), checkpoint=name, record_id=name)) for name in ("a", "b", "c", "d")]
    withdrawal.supersede(paths[0], paths[1], reason="a name mistyped")
    assert [row.checkpoint for row in harness.leaderboard(tmp_path)[0].rows] == ["b"]
    with pytest.raises(ResultError, match=r"was taken back before.*a name mistyped"):
        withdrawal.supersede(paths[1], paths[2], reason="mistyped again")
    # written by hand, or merged from another copy of the history
    lines = [
        history.entry("superseded", old, store.read(old), reason="x", successor=store.read(new))
        for old, new in ((paths[1], paths[2]), (paths[2], paths[3]))
    ]
    for line in reversed(lines):
        history.add(tmp_path, line)
    assert [row.checkpoint for row in harness.leaderboard(tmp_path)[0].rows] == ["d"]
    frame = harness.load_results(tmp_path).set_index("checkpoint")
    assert frame.index[pd.isna(frame["withdrawn"])].tolist() == ["d"]
    withdrawal.retract(paths[3], reason="wrong under every name")
    assert harness.leaderboard(tmp_path)[0].rows == ()


def test_a_record_may_mend_the_name_of_the_suite_of_its_run(tmp_path: Path) -> None:
    old = saved(tmp_path, first_run())
    new = saved(tmp_path, changed(first_run(), suite="my-suite", record_id="2" * 64))
    withdrawal.supersede(old, new, reason="the suite's name")
    (row,) = harness.leaderboard(tmp_path)[0].rows
    assert list(row.robust) == ["my-suite"]
