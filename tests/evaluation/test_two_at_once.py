"""Two evaluations of the same thing at once: one runs, the other waits for it and takes what it has found."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from harness import evaluation
from harness.errors import StorageError
from harness.evaluation import _evaluate
from harness.results import store
from harness.results.parts import Shard
from harness.util.locks import alone
from tests.evaluation.test_durability import planned

pytestmark = pytest.mark.usefixtures("unaudited")


def test_one_runs_and_the_other_takes_its_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, run, second = [], _evaluate.run, []
    waiting = threading.Event()

    def counted(plan: evaluation.Plan, **settings: object) -> evaluation.Evaluation:
        runs.append(plan)
        assert waiting.wait(60), "the second one begins while the first one runs"
        return run(plan, **settings)  # type: ignore[arg-type]

    def other() -> None:
        while not runs:
            time.sleep(0.01)
        second.append(evaluation.obtain(planned(tmp_path), tmp_path))

    monkeypatch.setattr(_evaluate, "run", counted)
    monkeypatch.setattr("harness.evaluation.stored.warnings.warn", lambda *args, **settings: waiting.set())
    thread = threading.Thread(target=other)
    thread.start()
    first = evaluation.obtain(planned(tmp_path), tmp_path)
    thread.join()
    assert len(runs) == 1
    assert (first.ran, second[0].ran, second[0].path) == (True, False, first.path)
    assert list((tmp_path / ".harness-state").iterdir()) == []


def test_shards_are_run_by_one_each(tmp_path: Path) -> None:
    first = evaluation.obtain_part(planned(tmp_path), Shard(1, 2), tmp_path)
    assert not evaluation.obtain_part(planned(tmp_path), Shard(1, 2), tmp_path).ran
    assert first.ran
    assert list((tmp_path / ".harness-state").iterdir()) == []


def test_a_killed_owner_blocks_nobody(tmp_path: Path) -> None:
    place, ready = tmp_path / "one.lock", tmp_path / "ready"
    child = os.fork()
    if child == 0:
        with alone(place, waiting=lambda owner: None):
            ready.touch()
            time.sleep(60)
        os._exit(1)
    while not ready.exists():
        time.sleep(0.01)
    asked: list[str] = []
    stop = threading.Timer(0.3, os.kill, (child, signal.SIGKILL))
    stop.start()
    with alone(place, waiting=asked.append):
        assert asked == [str(child)]
    os.waitpid(child, 0)
    assert not place.exists()


def test_a_lock_left_over_by_a_kill_is_taken(tmp_path: Path) -> None:
    (tmp_path / "one.lock").write_text("12345")
    with alone(tmp_path / "one.lock", waiting=pytest.fail):
        pass


def test_a_file_system_without_locks_is_no_reason_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr("fcntl.flock", none)
    with alone(tmp_path / "one.lock", waiting=pytest.fail):
        pass


def test_a_state_of_another_user_is_not_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(tmp_path)
    plan.state.save_pool(dict, force=True)
    monkeypatch.setattr(os, "getuid", lambda: 4321)
    with pytest.raises(StorageError, match="is another user's: remove it, or choose another folder with --output"):
        evaluation.obtain(plan, tmp_path)


@pytest.mark.parametrize("refused", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_folder_that_cannot_be_written_is_said_before_the_attack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: int
) -> None:
    opened = os.open

    def refuse(path: str, *args: int, **settings: int) -> int:
        if str(path).endswith(".lock"):
            raise OSError(refused, os.strerror(refused), str(path))
        return opened(path, *args, **settings)

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(_evaluate, "run", None)
    with pytest.raises(StorageError, match=os.strerror(refused)) as told:
        evaluation.obtain(planned(tmp_path), tmp_path)
    assert "\n" not in str(told.value)


def test_a_disk_that_is_full_when_a_file_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="No space left on device"):
            evaluation.obtain(planned(tmp_path), tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []
    assert store.read(evaluation.obtain(planned(tmp_path), tmp_path).path).n == 20


def test_a_lock_that_leads_elsewhere_writes_nothing_there(tmp_path: Path) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("words")
    (tmp_path / "linked.lock").symlink_to(precious)
    with pytest.raises(StorageError, match="cannot write"), alone(tmp_path / "linked.lock", waiting=lambda owner: None):
        pass
    os.link(precious, tmp_path / "second-name.lock")
    with alone(tmp_path / "second-name.lock", waiting=lambda owner: None):
        pass
    assert precious.read_text() == "words"
