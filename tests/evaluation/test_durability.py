"""A disk that is full, or a folder that is not what it should be: one sentence, and nothing that was found is lost."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import checkpoints, datasets, evaluation
from harness.engine import executors
from harness.errors import StorageError
from harness.evaluation import Plan
from harness.results import store

pytestmark = pytest.mark.usefixtures("unaudited")

POINT, DIGITS = checkpoints.load("natural"), datasets.load("digits", limit=20)


def planned(root: Path, workers: int = 1) -> Plan:
    states = root / ".harness-state"
    return evaluation.plan_checkpoint(
        POINT, DIGITS, threat="Linf:0.15", suite="pgd-20", workers=workers, state_dir=states
    )


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file may become larger than ``size`` bytes, whoever writes it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray[Any, Any]:
    root = tmp_path_factory.mktemp("whole")
    return store.read_verdicts(evaluation.obtain(planned(root), root).path).broken_by


@pytest.mark.parametrize("workers", [1, 2])
def test_a_disk_that_is_full_from_the_start(tmp_path: Path, whole: np.ndarray[Any, Any], workers: int) -> None:
    with full_disk(1000), pytest.raises(StorageError, match="make room or choose another folder") as told:
        evaluation.obtain(planned(tmp_path, workers), tmp_path)
    assert "\n" not in str(told.value)
    assert list(tmp_path.glob("*")) == [tmp_path / ".harness-state"]
    stored = evaluation.obtain(planned(tmp_path, workers), tmp_path)
    assert np.array_equal(store.read_verdicts(stored.path).broken_by, whole)
    assert list((tmp_path / ".harness-state").iterdir()) == []


@pytest.mark.parametrize("ending", [".npz", ".safetensors", ".json"])
def test_a_disk_that_is_full_when_the_result_is_stored(
    tmp_path: Path, whole: np.ndarray[Any, Any], monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    write = store.write_atomically

    def full(path: Path, content: bytes, *, replace: bool) -> None:
        if path.suffix == ending:
            raise StorageError(f"cannot write {path}: No space left on device")
        write(path, content, replace=replace)

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_atomically", full)
        with pytest.raises(StorageError):
            evaluation.obtain(planned(tmp_path), tmp_path)
    assert list(tmp_path.glob("*.json")) == []
    monkeypatch.setattr(executors, "execute", None)  # nothing is attacked again
    stored = evaluation.obtain(planned(tmp_path), tmp_path)
    assert np.array_equal(store.read_verdicts(stored.path).broken_by, whole)
    assert evaluation.verify(stored.path).holds
    assert sorted(path.suffix for path in tmp_path.iterdir() if path.is_file()) == [".json", ".npz", ".safetensors"]


def test_a_file_in_the_place_of_the_states_folder(tmp_path: Path) -> None:
    (tmp_path / ".harness-state").write_text("")
    with pytest.raises(StorageError, match=r"cannot write .*harness-state"):
        evaluation.obtain(planned(tmp_path), tmp_path)


def test_a_state_that_somebody_else_wrote_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state says which samples are unbroken, and a folder may come from anywhere."""
    mine, again = planned(tmp_path).state_name, planned(tmp_path).state_name
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "another user"))
    assert mine == again != planned(tmp_path).state_name
    monkeypatch.setenv("XDG_CONFIG_HOME", "/proc/nowhere")
    assert planned(tmp_path).state_name == planned(tmp_path).record_id, "where no secret can be kept, runs still go on"
