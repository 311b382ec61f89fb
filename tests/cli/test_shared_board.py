"""A board that several people share: results come in verified, are merged, and are taken back with a reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

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
