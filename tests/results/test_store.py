"""The store writes whole files, overwrites nothing, and refuses what it cannot read."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from harness.errors import InvalidInput, ResultError, StorageError
from harness.results import store
from harness.results._evidence import content_sha256
from harness.results.record import Verdicts
from harness.util.files import write_atomically
from tests.results.records import make_result, make_verdicts


def saved(root: Path, **fields: object) -> Path:
    result = make_result(**fields)  # type: ignore[arg-type]
    return store.save(result, make_verdicts(result), root)


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    result = make_result()
    verdicts = make_verdicts(result)
    path = store.save(result, verdicts, tmp_path / "a" / "b")
    back = store.read(path)
    assert back.model_copy(update=dict.fromkeys(("samples", "samples_sha256", "content_sha256"))) == result
    assert path.with_name(str(back.samples)).is_file()
    for name, array in store.read_verdicts(path).arrays().items():
        np.testing.assert_array_equal(array, verdicts.arrays()[name])
    assert store.read_verdicts(path).robust.dtype == np.bool_


def test_the_name_carries_checkpoint_suite_threat_and_hash(tmp_path: Path) -> None:
    result = make_result("resnet", threat="Linf:8/255", suite="pgd")
    path = saved(tmp_path, checkpoint="resnet", threat="Linf:8/255", suite="pgd")
    assert path.name == f"resnet__pgd__Linf-8-255__{result.evaluation_id[:12]}.json"


@pytest.mark.parametrize("name", ["../../etc/evil", "/abs/olute", "..", "a\x00b\n", "x" * 400, "ü/ß", ""])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    root = tmp_path / "deep" / "results"
    path = saved(root, checkpoint=name)
    assert path.resolve().parent == root.resolve()
    assert {p.parent for p in tmp_path.rglob("*") if p.is_file()} == {root}
    assert store.read(path).checkpoint == name


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = saved(tmp_path)
    before = path.read_bytes()
    assert saved(tmp_path, robust=41) == path  # the same evaluation: the one that stands is kept
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2
    result = make_result(robust=39)  # a rerun that came out differently has the same inputs
    again = store.save(result, make_verdicts(result), tmp_path, force=True)
    assert again != path
    assert path.read_bytes() == before
    assert round(store.read_verdicts(path).robust.sum()) == 40
    assert round(store.read_verdicts(again).robust.sum()) == 39


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("robust", [40, 41])
def test_of_two_at_once_none_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, force: bool, robust: int) -> None:
    """Another process stores the same evaluation between our check and our JSON."""
    write, mine, other = write_atomically, make_result(robust=robust), make_result(robust=40)
    theirs: list[Path] = []

    def late(path: Path, content: bytes, *, replace: bool) -> None:
        if path.suffix == ".json" and not theirs:
            theirs.append(path)
            theirs[0] = store.save(other, make_verdicts(other), tmp_path)
        write(path, content, replace=replace)

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_atomically", late)
        path = store.save(mine, make_verdicts(mine), tmp_path, force=force)
    assert round(store.read_verdicts(theirs[0]).robust.sum()) == 40
    assert (path != theirs[0]) == force
    assert round(store.read_verdicts(path).robust.sum()) == (robust if force else 40)
    # nothing is left over
    stored = store.read_all(tmp_path).results
    assert len(stored) == 1 + force
    assert {f.name for f in tmp_path.iterdir()} == {p.name for p, _ in stored} | {r.samples for _, r in stored}


def test_another_evaluation_under_the_same_name_is_stored_beside_it(tmp_path: Path) -> None:
    first = make_result()
    second = first.model_copy(update={"evaluation_id": first.evaluation_id[:12] + "f" * 52})
    paths = [store.save(result, make_verdicts(result), tmp_path) for result in (first, second)]
    assert store.find(tmp_path, first.evaluation_id) == paths[0]
    assert store.find(tmp_path, second.evaluation_id) == paths[1] != paths[0]


def test_without_hard_links_nothing_is_overwritten_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*paths: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", unsupported)
    path = saved(tmp_path)
    assert store.read_verdicts(path).robust.sum() == 40
    with pytest.raises(FileExistsError):
        write_atomically(path, b"", replace=False)
    assert len(list(tmp_path.iterdir())) == 2


def test_find(tmp_path: Path) -> None:
    assert store.find(tmp_path / "missing", "0" * 64) is None
    path = saved(tmp_path)
    identity = make_result().evaluation_id
    assert store.find(tmp_path, identity) == path
    assert store.find(tmp_path, identity[:12] + "f" * 52) is None
    result = make_result()
    store.save(result, make_verdicts(result), tmp_path, force=True)
    assert store.find(tmp_path, identity) == path


def test_the_same_verdicts_are_the_same_bytes(tmp_path: Path) -> None:
    first, second = saved(tmp_path / "a"), saved(tmp_path / "b")
    assert first.with_suffix(".npz").read_bytes() == second.with_suffix(".npz").read_bytes()


def test_a_crash_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(StorageError, match="No space left on device"):
        saved(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_crash_between_the_files_leaves_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, calls = write_atomically, []

    def crash_at_second(path: Path, content: bytes, *, replace: bool) -> None:
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        write(path, content, replace=replace)

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_atomically", crash_at_second)
        with pytest.raises(KeyboardInterrupt):
            saved(tmp_path)
    assert store.find(tmp_path, make_result().evaluation_id) is None
    assert saved(tmp_path).is_file()


def test_adversarial_examples_are_stored_beside_the_result(tmp_path: Path) -> None:
    result = make_result()
    path = store.save(result, make_verdicts(result), tmp_path, adversarial=b"examples")
    kept = store.read(path).adversarial
    assert kept is not None
    assert path.with_name(kept.file).read_bytes() == b"examples"
    assert (kept.sha256, kept.samples) == (hashlib.sha256(b"examples").hexdigest(), 58)
    # a record that is made anew of it names the same file
    renamed = store.read(path).model_copy(update={"checkpoint": "other", "record_id": "0" * 64})
    again = store.read(store.save(renamed, make_verdicts(result), tmp_path, force=True))
    assert again.adversarial == kept
    assert len(list(tmp_path.glob("*.safetensors"))) == 1


@pytest.mark.parametrize("written", range(3))
def test_a_kill_between_the_files_leaves_nothing_that_claims_what_it_has_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    write, calls, result = write_atomically, [], make_result()

    def kill(path: Path, content: bytes, *, replace: bool) -> None:
        calls.append(path)
        if len(calls) > written:
            raise KeyboardInterrupt
        write(path, content, replace=replace)

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_atomically", kill)
        with pytest.raises(KeyboardInterrupt):
            store.save(result, make_verdicts(result), tmp_path, adversarial=b"examples")
    assert len(list(tmp_path.iterdir())) == written
    assert store.find(tmp_path, result.evaluation_id) is None
    path = store.save(result, make_verdicts(result), tmp_path, adversarial=b"examples")
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".json", ".npz", ".safetensors"]
    assert store.read(path).adversarial is not None


def test_a_wrong_number_of_adversarial_examples_is_a_contradiction(tmp_path: Path) -> None:
    result = make_result()
    path = store.save(result, make_verdicts(result), tmp_path, adversarial=b"examples")
    content = json.loads(path.read_text())
    content["adversarial"]["samples"] = 57
    path.write_text(json.dumps(content | {"content_sha256": content_sha256(content)}))
    with pytest.raises(ResultError, match="57 adversarial examples for 58 broken samples"):
        store.read(path)


def test_verdicts_of_another_result_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="41 samples are robust, but robust_acc is"):
        store.save(make_result(robust=40), make_verdicts(make_result(robust=41)), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_verdicts_need_one_shape() -> None:
    arrays = make_verdicts(make_result()).arrays()
    with pytest.raises(InvalidInput, match="one shape"):
        Verdicts(**{**arrays, "y": arrays["y"][:-1]})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "damaged: "),
        (lambda text: "", "damaged: "),
        (lambda text: "\x00\xff", "damaged: "),
        (lambda text: "[]", "not a result"),
        (lambda text: "{}", "schema version None"),
        (lambda text: text.replace('"schema_version": 2', '"schema_version": 3'), "schema version 3"),
        (lambda text: text.replace('"n": 100', '"n": 100, "extra": 1'), "extra"),
        (lambda text: text.replace('"clean_acc": 0.98', '"clean_acc": 9.8'), "clean_acc"),
        (lambda text: text.replace('"clean_acc": 0.98', '"clean_acc": NaN'), "NaN is no number"),
        (lambda text: text.replace('"n": 100', '"n": 0'), "damaged: n"),
        (lambda text: text.replace('"n": 100', '"n": "many"'), "damaged: n"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, damage: object, message: str) -> None:
    path = saved(tmp_path)
    text = path.read_text()
    damaged = damage(text)  # type: ignore[operator]
    assert damaged != text
    path.write_text(damaged)
    with pytest.raises(ResultError, match=message):
        store.read(path)
    other = saved(tmp_path, checkpoint="other")
    stored = store.read_all(tmp_path)
    assert [found for found, _ in stored.results] == [other]
    ((name, reason),) = stored.left_out
    assert name == path.name
    assert name in reason
    assert str(tmp_path) not in reason


def test_read_all_says_that_there_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="no results folder"):
        store.read_all(tmp_path / "missing")


def test_read_all_in_order_of_names(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        saved(tmp_path, checkpoint=name)
    (tmp_path / ".b.json.123.tmp").write_text("{")
    assert [result.checkpoint for _, result in store.read_all(tmp_path).results] == ["a", "b", "c"]


@pytest.mark.parametrize("samples", ["../elsewhere.npz", "/etc/passwd", None])
def test_verdicts_are_only_read_from_beside_the_result(tmp_path: Path, samples: str | None) -> None:
    path = saved(tmp_path / "results")
    content = json.loads(path.read_text())
    content["samples"] = samples
    path.write_text(json.dumps(content | {"content_sha256": content_sha256(content)}))
    with pytest.raises(ResultError, match="names no verdicts beside it"):
        store.read_verdicts(path)


@pytest.mark.parametrize("damage", ["truncated", "pickle", "other", "short", "missing"])
def test_damaged_verdicts_are_one_clear_error(tmp_path: Path, damage: str) -> None:
    path = saved(tmp_path)
    beside = path.with_suffix(".npz")
    arrays = make_verdicts(make_result()).arrays()
    if damage == "truncated":
        beside.write_bytes(beside.read_bytes()[:200])
    elif damage == "pickle":
        np.savez(beside, **{**arrays, "y": np.array([object()] * 100)})  # type: ignore[arg-type]
    elif damage == "other":
        np.savez(beside, wrong=np.arange(3))
    elif damage == "short":
        np.savez(beside, **{name: array[:50] for name, array in arrays.items()})
    else:
        beside.unlink()
    with pytest.raises(ResultError, match="verdicts"):
        store.read_verdicts(path)
