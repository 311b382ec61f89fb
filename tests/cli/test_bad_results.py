"""Bad results never stop a leaderboard: good ones are ranked, and every format names what was left out and why."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.results import store
from harness.results._evidence import content_sha256
from harness.results.record import AdversarialRecord
from tests.cli.conftest import Harness
from tests.results.records import make_result, make_verdicts


def saved(folder: Path, *args: Any, **fields: Any) -> Path:
    result = make_result(*args, **fields)
    return store.save(result, make_verdicts(result), folder)


def rewritten(path: Path, **changes: Any) -> None:
    """The file with other fields, and the hash that belongs to them."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(content | {"content_sha256": content_sha256(content)}))


def later_schema(path: Path) -> None:
    rewritten(path, schema_version=3)


def changed(path: Path) -> None:
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))


def not_a_number(path: Path) -> None:
    path.write_text(path.read_text().replace('"robust_acc": 0.4', '"robust_acc": NaN'))


def gigabyte(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 30)


def device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def no_verdicts(path: Path) -> None:
    path.with_suffix(".npz").unlink()


def contradictory(path: Path) -> None:
    rewritten(path, robust_acc=0.9)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (later_schema, "schema version 3; this harness reads versions 1 to 2"),
        (changed, "was changed after it was written"),
        (not_a_number, "NaN is no number"),
        (gigabyte, "it has 1,073,741,824 bytes"),
        (device, "it is no regular file"),
        (pipe, "it is no regular file"),
        (no_verdicts, "No such file"),
        (contradictory, "contradicts itself"),
    ],
)
def test_it_is_left_out_and_named(harness: Harness, folder: Path, damage: Callable[[Path], None], words: str) -> None:
    saved(folder / "results", "good", robust=30)
    bad = saved(folder / "results", "bad")
    damage(bad)
    code, out, err = harness("leaderboard", "--results", "results", "--output", "boards")
    assert (code, err) == (0, "")
    assert "good" in out
    assert f"left out: the result {bad.name}" in out or f"of the result {bad.name}" in out
    for ending in ("html", "csv", "md", "tex"):
        (board,) = (folder / "boards").glob(f"*.{ending}")
        text = board.read_text(encoding="utf-8").replace("\\_", "_")
        assert "good" in text
        assert bad.name in text
        assert words in text
    harness("compare", str(bad), str(bad), "--results", "results").refused(bad.name)
    harness("retract", str(bad), "--reason", "x").refused(bad.name)
    harness("add", str(bad), "--results", "elsewhere").refused(bad.name)


def test_folders_without_a_result(harness: Harness, folder: Path) -> None:
    (folder / "empty").mkdir()
    saved(folder / "results", "good")
    harness("leaderboard", "--results", "empty").refused("no results in empty", "harness evaluate")
    harness("leaderboard", "--results", "missing").refused("no results folder missing")
    assert harness("leaderboard", "--results", "empty", "--results", "results").code == 0
    gigabyte(folder / "empty" / "large.json")
    harness("leaderboard", "--results", "empty").refused("no results in empty", "large.json", "bytes")


def test_mixed_data_sets_are_boards_of_their_own(harness: Harness, folder: Path) -> None:
    saved(folder / "results", "a")
    saved(folder / "results", "b", dataset="mnist", data="e" * 64)
    boards = json.loads(harness("leaderboard", "--results", "results", "--json").out)
    assert [(board["dataset"], [row["checkpoint"] for row in board["rows"]]) for board in boards] == [
        ("digits", ["a"]),
        ("mnist", ["b"]),
    ]
    harness("compare", "a", "b", "--results", "results").refused("results of one data set", "digits", "mnist")


def test_models_of_one_name_are_told_apart(harness: Harness, folder: Path) -> None:
    saved(folder / "results", "a", weights="1" * 64)
    saved(folder / "results", "a", weights="2" * 64, robust=30)
    (board,) = json.loads(harness("leaderboard", "--results", "results", "--json").out)
    assert [row["checkpoint"] for row in board["rows"]] == ["a (11111111)", "a (22222222)"]


def test_missing_examples_are_a_flag_of_the_row(harness: Harness, folder: Path) -> None:
    made = make_result("a").model_copy(
        update={"adversarial": AdversarialRecord(file="a.safetensors", sha256="f" * 64, samples=58)}
    )
    store.save(made, make_verdicts(made), folder / "results")
    harness("leaderboard", "--results", "results", "--output", "boards")
    for ending in ("html", "csv", "md"):
        (board,) = (folder / "boards").glob(f"*.{ending}")
        assert "the adversarial examples of autoattack are missing" in board.read_text()
    (folder / "results" / "a.safetensors").write_bytes(b"")
    (row,) = json.loads(harness("leaderboard", "--results", "results", "--json").out)[0]["rows"]
    assert "are missing" not in row["flags"]
