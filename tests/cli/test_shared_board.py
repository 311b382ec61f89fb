"""A board that several people share: results come in verified, are merged, and are taken back with a reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.errors import StorageError
from harness.results import history, store
from harness.results.identity import identified
from tests.cli.conftest import Harness
from tests.results.records import make_result, make_verdicts


def handed_in(folder: Path, robust: int = 40) -> Path:
    """A result of a checkpoint that nobody here has."""
    result = identified(make_result("nobody_has_it", robust=robust))
    return store.save(result, make_verdicts(result), folder)


QUICK = ("--suite", "fgsm", "--limit", "20", "--workers", "1", "--json")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one result of a shipped checkpoint and its adversarial examples."""
    from harness.cli import run

    folder = tmp_path_factory.mktemp("evaluated")
    assert run(["evaluate", "--checkpoint", "natural", "--eps", "0.3", "--output", str(folder), *QUICK]) == 0
    return folder


@pytest.fixture
def file(evaluated: Path, folder: Path) -> Path:
    """The same in a folder of its own."""
    shutil.copytree(evaluated, folder / "mine", dirs_exist_ok=True)
    return next((folder / "mine").glob("*.json"))


def test_a_result_is_verified_and_taken_in_once(harness: Harness, folder: Path, file: Path) -> None:
    outcome = harness("add", str(file), "--results", "board", "--by", "a colleague")
    assert (outcome.code, outcome.err) == (0, "")
    assert "WRONG" not in outcome.out
    assert outcome.out.endswith(", verified\n")
    ((path, taken),) = store.read_all(folder / "board").results
    assert taken == store.read(file)
    assert {one.name for one in path.parent.iterdir()} == {one.name for one in file.parent.iterdir()} | {history.FILE}
    (line,) = history.read(folder / "board")
    assert (line.action, line.by, line.result) == ("verified", "a colleague", taken.content_sha256)
    again = json.loads(harness("add", str(file), "--results", "board", "--json").out)
    assert (again["new"], again["result"]) == (False, str(path))
    assert len(history.read(folder / "board")) == 1
    assert harness("leaderboard", "--results", "board").code == 0
    assert "a colleague" in next((folder / "leaderboards").glob("*.html")).read_text()


def test_what_the_history_does_not_take_is_said_before_any_work(harness: Harness, folder: Path, file: Path) -> None:
    harness("add", str(file), "--results", "board", "--by", "x" * 201).refused("201 characters", "give a shorter one")
    assert not (folder / "board").exists()


def test_a_folder_that_is_none(harness: Harness, folder: Path, file: Path) -> None:
    for where in ("/dev/null", str(file)):
        harness("add", str(file), "--results", where).refused(f"got {where}, which is no folder", "--results")
    harness("compare", "a", "b", "--results", "/dev/null").refused("got /dev/null, which is no folder", "--results")
    (folder / "below").write_text("")
    harness("add", str(file), "--results", "below/board").refused("below")


def test_an_add_that_was_cut_off_is_completed_by_the_same_command(
    harness: Harness, folder: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("add", str(file), "--results", "board", "--by", "a colleague")

    def full(folder: Path, line: history.Entry) -> Path:
        raise StorageError("cannot write the history: no space")

    with monkeypatch.context() as patched:
        patched.setattr(history, "add", full)
        harness(*command).refused("no space")
    assert len(store.read_all(folder / "board").results) == 1
    outcome = harness(*command)
    assert (outcome.code, outcome.err) == (0, "")
    assert "is there already" in outcome.out
    assert outcome.out.endswith(", verified\n")
    assert len(store.read_all(folder / "board").results) == 1
    assert [line.by for line in history.read(folder / "board")] == ["a colleague"]
    assert ", verified" not in harness(*command).out  # once is enough
    assert harness("add", str(file), "--results", "board", "--by", "another").code == 0
    assert [line.by for line in history.read(folder / "board")] == ["a colleague", "another"]


def test_a_result_that_is_there_and_turned_out_wrong_is_not_noted(harness: Harness, folder: Path, file: Path) -> None:
    assert harness("add", str(file), "--results", "board", "--by", "me").code == 0
    (folder / "board" / history.FILE).unlink()
    next((folder / "board").glob("*.safetensors")).unlink()
    harness("add", str(file), "--results", "board", "--by", "me").refused("is there already", "not verified", "missing")
    assert history.read(folder / "board") == []


def test_images_that_the_data_set_does_not_have(harness: Harness, folder: Path) -> None:
    made = identified(make_result("nobody_has_it"))
    shape = made.dataset.model_copy(update={"shape": [8192, 8192, 32]})
    made = identified(made.model_copy(update={"dataset": shape}))
    path = store.save(made, make_verdicts(made), folder / "mine", adversarial=b"some points")
    harness("add", str(path), "--results", "board").refused("[8192, 8192, 32]", "digits has images of shape [1, 8, 8]")
    other = identified(made.model_copy(update={"dataset": shape.model_copy(update={"name": "nobody's"})}))
    path = store.save(other, make_verdicts(other), folder / "other", adversarial=b"some points")
    assert harness("add", str(path), "--results", "board").code == 0  # no more is read than there is


def test_what_is_wrong_is_not_taken_in(harness: Harness, folder: Path, file: Path) -> None:
    examples = file.with_suffix(".safetensors")
    content = examples.read_bytes()
    for damage, words in (
        (lambda: examples.write_bytes(content[:-1] + bytes([content[-1] ^ 1])), "changed after they were written"),
        (examples.unlink, "missing"),
        (lambda: file.with_suffix(".npz").write_bytes(b"x"), "changed after they were written"),
        (lambda: file.write_text(file.read_text().replace('"seed": 0', '"seed": 1')), "does not have its hash"),
        (lambda: file.write_text("{}"), "schema version None"),
    ):
        damage()
        harness("add", str(file), "--results", "board").refused(file.name, words)
    assert not (folder / "board").exists()


def test_what_cannot_be_verified_is_taken_in_without_that_line(harness: Harness, folder: Path) -> None:
    path = handed_in(folder / "mine")
    words = ("could not be checked", "nobody_has_it")
    harness("add", str(path), "--results", "board", "--require-verification").refused(*words)
    outcome = harness("add", str(path), "--results", "board")
    assert outcome.code == 0
    assert outcome.out.endswith(", not verified\n")
    assert history.read(folder / "board") == []
    assert len(store.read_all(folder / "board").results) == 1


def test_examples_of_a_result_that_cannot_be_verified_are_its_own(harness: Harness, folder: Path) -> None:
    made = identified(make_result("nobody_has_it"))
    path = store.save(made, make_verdicts(made), folder / "mine", adversarial=b"some points")
    path.with_suffix(".safetensors").write_bytes(b"other points")
    harness("add", str(path), "--results", "board").refused(path.name, "changed after they were written")
    path.with_suffix(".safetensors").write_bytes(b"x" * (1 << 20))
    harness("add", str(path), "--results", "board").refused(path.name, "are damaged", "bytes")
    path.with_suffix(".safetensors").unlink()
    harness("add", str(path), "--results", "board").refused(path.name, "No such file")
    assert not (folder / "board").exists()


def test_another_result_of_the_same_evaluation_gets_names_of_its_own(harness: Harness, folder: Path) -> None:
    for name, robust in (("a", 40), ("b", 41)):
        path = handed_in(folder / name, robust)
        assert harness("add", str(path), "--results", "board").code == 0
    found = [result.robust_acc for _, result in store.read_all(folder / "board").results]
    assert sorted(found) == [0.40, 0.41]
    assert "one evaluation by autoattack has different results" in harness("leaderboard", "--results", "board").out


def test_older_results_and_retracted_ones_do_not_come_in(harness: Harness, folder: Path) -> None:
    old = next((Path(__file__).resolve().parents[1] / "results" / "version_1").glob("*.json"))
    harness("add", str(old), "--results", "board").refused("older schema version", "evaluate again")
    path = handed_in(folder / "mine")
    assert harness("add", str(path), "--results", "board").code == 0
    ((there, _),) = store.read_all(folder / "board").results
    assert harness("retract", str(there), "--reason", "a leak").code == 0
    for one in folder.glob("board/nobody*"):
        one.unlink()
    harness("add", str(path), "--results", "board").refused("was taken back", "a leak")


def test_verify_leaves_a_line_only_where_a_name_is_given(harness: Harness, file: Path) -> None:
    assert harness("verify", str(file)).code == 0
    assert history.read(file.parent) == []
    assert "noted in" in harness("verify", str(file), "--by", "me").out
    assert [line.by for line in history.read(file.parent)] == ["me"]
    file.with_suffix(".safetensors").unlink()
    assert harness("verify", str(file), "--by", "me").code == 1
    assert len(history.read(file.parent)) == 1


def test_merged_superseded_and_shown(harness: Harness, folder: Path) -> None:
    paths = []
    for name, robust, seed in (("a", 40, 0), ("a", 45, 1), ("b", 30, 0)):
        result = make_result(f"model_{name}", robust=robust, seed=seed)
        paths.append(store.save(result, make_verdicts(result), folder / name))
    outcome = harness("supersede", str(paths[0]), str(paths[1]), "--reason", "the seed of the paper", "--by", "me")
    assert outcome.code == 0
    assert "superseded in favour of result" in outcome.out
    code, out, err = harness("leaderboard", "--results", "a", "--results", "b", "--json")
    assert (code, err) == (0, "")
    (board,) = json.loads(out)
    assert [(row["checkpoint"], row["autoattack_acc"]) for row in board["rows"]] == [
        ("model_a", 0.45),
        ("model_b", 0.3),
    ]
    assert [line["reason"] for line in board["history"]] == ["the seed of the paper"]
    assert "taken back: " in harness("leaderboard", "--results", "a", "--results", "b").out
    harness("compare", "model_a", "model_b", "--results", "a").refused("unknown evaluated checkpoint")
    harness("leaderboard", "--results", "a", "--results", "c").refused("no results folder c")
    harness("retract", str(paths[2])).refused("--reason", code=2)
