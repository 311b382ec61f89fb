"""A stored result that was changed is never read as if it had not been."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.errors import ResultError
from harness.results import _verdict_file, leaderboard, store
from harness.results._evidence import contradiction, contradiction_of_verdicts
from harness.results.record import Result, Verdicts
from tests.house._tree import ROOT
from tests.results.records import make_result, make_verdicts

CHANGES = 300
(OLD,) = (ROOT / "tests" / "results" / "version_1").glob("*.json")


def saved(root: Path) -> Path:
    result = make_result(flags=("doubtful",), normalization={"mean": [0.5], "std": [0.4]}, training={"seed": 1})
    return store.save(result, make_verdicts(result), root)


def places(value: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every field, item and value of a parsed file."""
    if where:
        yield where
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield from places(part, (*where, key))


def changed(content: Any, where: tuple[Any, ...], chance: random.Random) -> Any:
    """The content with another value at one place, or without it."""
    copy = json.loads(json.dumps(content))
    holder = copy
    for key in where[:-1]:
        holder = holder[key]
    old = holder[where[-1]]
    others = [None, True, False, 0, 1, -1, 0.5, "", "other", [], {}, [old], {"a": old}, "8/255", 2, "pgd"]
    if isinstance(old, int | float):
        others += [old + 1, old - 1, -old, old * 2, str(old)]
    if isinstance(old, str):
        others += [f"{old} ", old.upper(), old[::-1]]
    if isinstance(old, list):
        others += [old + old, old[:-1]]
    others = [other for other in others if json.dumps(other) != json.dumps(old)]
    if chance.random() < 0.1:
        del holder[where[-1]]
    else:
        holder[where[-1]] = chance.choice(others)
    return copy


def is_refused(path: Path) -> bool:
    """Whether reading ends with a sentence that names the file."""
    try:
        store.read(path)
    except ResultError as error:
        return path.name in str(error)
    return False


def test_a_change_of_any_field_is_noticed(tmp_path: Path) -> None:
    path = saved(tmp_path)
    content, chance = json.loads(path.read_text()), random.Random(0)
    every = list(places(content))
    for number in range(max(CHANGES, len(every))):
        where = every[number] if number < len(every) else chance.choice(every)
        path.write_text(json.dumps(changed(content, where, chance)))
        assert is_refused(path), f"the change of {where} was not noticed"


def test_a_change_of_any_byte_of_the_verdicts_is_noticed(tmp_path: Path) -> None:
    path = saved(tmp_path)
    beside = path.with_suffix(".npz")
    content, chance = beside.read_bytes(), random.Random(0)
    for _ in range(CHANGES):
        position = chance.randrange(len(content))
        flipped = content[position] ^ (1 << chance.randrange(8))
        beside.write_bytes(content[:position] + bytes([flipped]) + content[position + 1 :])
        with pytest.raises(ResultError, match=path.name):
            store.read(path)
    beside.write_bytes(content)
    assert store.read(path).checkpoint == "bn_ft"


def test_verdicts_of_another_result_are_noticed(tmp_path: Path) -> None:
    first, second = make_result("a"), make_result("b", robust=39)
    paths = [store.save(result, make_verdicts(result), tmp_path) for result in (first, second)]
    paths[0].with_suffix(".npz").write_bytes(paths[1].with_suffix(".npz").read_bytes())
    with pytest.raises(ResultError, match="changed after they were written"):
        store.read(paths[0])
    assert store.read(paths[1]).checkpoint == "b"


def test_a_file_does_not_become_another_version(tmp_path: Path) -> None:
    path = saved(tmp_path)
    content = json.loads(path.read_text()) | {"schema_version": 1, "flags": []}
    path.write_text(json.dumps(content))
    with pytest.raises(ResultError, match="does not have its hash"):
        store.read(path)
    path.write_text(json.dumps(json.loads(OLD.read_text()) | {"schema_version": 2, "flags": []}))
    with pytest.raises(ResultError, match=path.name):
        store.read(path)


FIGURES = {
    "n": 400,
    "robust_acc": 0.9,
    "clean_acc": 0.5,
    "steps.0.before": 400,
    "steps.0.after": 0,
    "steps.0.forward": -1,
    "threat.radius": 0.1,
    "threat.eps": "0.1",
    "threat.norm": 9,
    "dataset.size": 10,
    "dataset.classes": 3,
    "seed": True,
    "samples": "other.npz",
}


@pytest.mark.parametrize("field", FIGURES)
def test_version_1_is_held_against_itself_and_its_verdicts(field: str, tmp_path: Path) -> None:
    path = tmp_path / OLD.name
    beside = OLD.with_suffix(".npz")
    (tmp_path / beside.name).write_bytes(beside.read_bytes())
    content = json.loads(OLD.read_text())
    path.write_text(json.dumps(content))
    assert store.read(path).n == 500
    *holders, last = (int(key) if key.isdecimal() else key for key in field.split("."))
    holder = content
    for key in holders:
        holder = holder[key]
    holder[last] = FIGURES[field]
    path.write_text(json.dumps(content))
    with pytest.raises(ResultError, match=path.name):
        store.read(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clean_acc": 0.981}, "no fractions"),
        ({"n": 101, "clean_acc": 98 / 101, "robust_acc": 40 / 101}, "101 samples of a split of 100"),
        ({"robust_acc": 0.41}, "do not lead from"),
        ({"clean_acc": 0.97}, "do not lead from"),
        ({"steps": []}, "do not lead from"),
    ],
)
def test_figures_that_contradict_each_other(change: dict[str, Any], message: str) -> None:
    assert contradiction(make_result()) is None
    assert message in str(contradiction(make_result().model_copy(update=change)))


def one(array: np.ndarray[Any, Any], row: int, value: int) -> np.ndarray[Any, Any]:
    copy = array.copy()
    copy[row] = value
    return copy


# of the 100 samples, 0 to 39 survive, 40 to 97 are broken, 98 and 99 are wrong without attack
@pytest.mark.parametrize(
    ("name", "row", "value", "message"),
    [
        ("index", 0, 1, "there twice"),
        ("index", 0, 100, "index is out of range"),
        ("index", 0, -1, "index is out of range"),
        ("y", 0, 10, "y is out of range"),
        ("y", 0, 5, "97 samples are correct"),
        ("clean_pred", 98, 8, "99 samples are correct"),
        ("robust", 0, 0, "39 samples are robust"),
        ("robust", 99, 1, "41 samples are robust"),
        ("broken_by", 40, -1, "the other way round"),
        ("broken_by", 0, 0, "the other way round"),
        ("broken_by", 40, 1, "broken_by is out of range"),
        ("broken_by", 99, 0, "wrong without it"),
        ("adv_pred", 40, 0, "right under attack"),
        ("adv_pred", 0, 3, "no step broke"),
        ("forward", 0, -1, "negative"),
    ],
)
def test_verdicts_that_contradict_the_figures(name: str, row: int, value: int, message: str) -> None:
    result = make_result()
    verdicts = make_verdicts(result)
    assert contradiction_of_verdicts(result, verdicts) is None
    arrays = verdicts.arrays()
    other = Verdicts(**{**arrays, name: one(arrays[name], row, value)})
    assert message in str(contradiction_of_verdicts(result, other))


def steps(*counts: tuple[str, int, int]) -> Result:
    result = make_result()
    (step,) = result.steps
    made = [
        step.model_copy(update={"name": str(i), "attack": a, "before": b, "after": c})
        for i, (a, b, c) in enumerate(counts)
    ]
    return result.model_copy(update={"steps": made})


def test_samples_are_broken_by_the_steps_that_say_so() -> None:
    verdicts = make_verdicts(make_result())
    assert contradiction_of_verdicts(steps(("pgd", 98, 40), ("fab", 40, 40)), verdicts) is None
    assert "by the verdicts" in str(contradiction_of_verdicts(steps(("pgd", 98, 50), ("fab", 50, 40)), verdicts))
    # the reference reports several steps and does not say which of them broke a sample
    assert contradiction_of_verdicts(steps(("same", 98, 50), ("same", 50, 40)), verdicts) is None


@pytest.mark.parametrize("damage", ["pickle", "shape", "type", "size", "more", "fewer", "bomb", "text"])
def test_damaged_arrays_are_refused_without_being_believed(damage: str, tmp_path: Path) -> None:
    arrays = make_verdicts(make_result()).arrays()
    path = tmp_path / "arrays.npz"
    other: dict[str, dict[str, Any]] = {
        "pickle": {"y": np.array([object()] * 100)},
        "shape": {"y": arrays["y"].reshape(10, 10)},
        "type": {"y": arrays["y"].astype(np.float32)},
        "size": {"y": arrays["y"][:50]},
        "more": {"z": arrays["y"]},
        "fewer": {},
        "bomb": {"y": np.zeros(10_000_000, np.int64)},
        "text": {},
    }
    stored = arrays | other[damage]
    if damage == "fewer":
        del stored["y"]
    np.savez_compressed(path, **stored)  # type: ignore[arg-type]
    content = b"text" if damage == "text" else path.read_bytes()
    with pytest.raises(ValueError, match=r"expected|no archive"):
        _verdict_file.unpacked(content, 100)


def test_a_header_that_promises_more_than_memory_holds() -> None:
    content = _verdict_file.packed(make_verdicts(make_result()))
    with pytest.raises(ValueError, match="expected"):
        _verdict_file.unpacked(content, 1 << 50)


def test_one_bad_file_never_stops_a_board(tmp_path: Path) -> None:
    good = saved(tmp_path)
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "b.json").symlink_to("/dev/zero")
    (tmp_path / "c.json").mkdir()
    (tmp_path / "d.json").symlink_to(tmp_path / "nothing")
    with (tmp_path / "e.json").open("wb") as file:
        file.truncate(1 << 33)
    (tmp_path / "f.json").write_text('{"schema_version": 2, "schema_version": 2}')
    (tmp_path / "g.json").write_text("[" * 100_000)
    stored = store.read_all(tmp_path)
    assert [path for path, _ in stored.results] == [good]
    assert [name for name, _ in stored.left_out] == [f"{letter}.json" for letter in "abcdefg"]
    (board,) = leaderboard.boards([result for _, result in stored.results], left_out=stored.left_out)
    assert board.left_out == tuple(stored.left_out)
    for path in leaderboard.write(board, tmp_path / "boards"):
        text = path.read_text(encoding="utf-8")
        assert all(f"{letter}.json" in text for letter in "abcdefg")
