"""An evaluation that runs in many places is the evaluation that runs in one, whatever is lost on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import cluster, evaluation
from harness.cluster import HandedOver, Options, Queue, Task
from harness.engine.types import AttackProgress
from harness.errors import HarnessError, InvalidInput, ModelError, UnknownName, WorkerLost
from harness.evaluation import Evaluation, Plan, Stored
from harness.evaluation.stored import running_alone
from harness.results import joining, parts, store
from harness.results.parts import Shard
from harness.util.pool import WorkerPool, can_fork
from tests.evaluation.test_shards import PGD, plan, same, undivided
from tests.house._tree import ROOT
from tests.support import leave_out_audits
from tests.util.test_pool import all_end

pytestmark = pytest.mark.usefixtures("unaudited")

forks = pytest.mark.skipif(not can_fork(), reason="processes cannot be forked here")


@pytest.fixture(scope="module")
def planned() -> Plan:
    return plan(suite=PGD)


@pytest.fixture(scope="module")
def whole(planned: Plan) -> Evaluation:
    with pytest.MonkeyPatch.context() as monkeypatch:
        leave_out_audits(monkeypatch)
        return undivided(planned)


class Inline:
    """Runs tasks here, unless ``mishap`` has something else in mind for one."""

    slots = 2

    def __init__(self, mishap: Callable[[Queue, Task], bool] = lambda queue, task: False) -> None:
        self.mishap = mishap
        self.ran: list[Shard] = []

    def run(self, queue: Queue) -> None:
        while task := queue.next():
            if self.mishap(queue, task):
                continue
            self.ran.append(task.shard)
            part = evaluation.run_part(task.plan, task.shard, progress=lambda tick: queue.further(task, tick))
            parts.save(part, queue.root)
            queue.done(task)


def is_whole(whole: Evaluation, planned: Plan, root: Path) -> None:
    found = joining.survey(parts.folder_of(root, planned.evaluation_id)).parts
    same(whole, joining.join(found))
    (stored,) = [store.read(path) for path in root.glob("*.json")]
    assert stored.robust_acc == whole.result.robust_acc


class TestQueue:
    def test_what_was_lost_is_run_again_and_nothing_else(
        self, planned: Plan, whole: Evaluation, tmp_path: Path
    ) -> None:
        lost: list[Shard] = []

        def once(queue: Queue, task: Task) -> bool:
            if task.shard.number % 2 or task.shard in lost:
                return False
            lost.append(task.shard)
            queue.lost(task, "its node is gone")
            return True

        told: list[AttackProgress] = []
        executor = Inline(once)
        with pytest.warns(UserWarning, match=r"shard [24]/5 was lost, because its node is gone: it is run again"):
            (stored,) = cluster.evaluate([planned], executor, tmp_path, shards=5, progress=told.append)
        assert isinstance(stored, Stored)
        assert stored.ran
        assert sorted(shard.number for shard in executor.ran) == [1, 2, 3, 4, 5]
        assert told[-1] == AttackProgress("5 of 5 shards done", 1.0, whole.result.steps[-1].after, told[-1].total)
        assert told[-1].total == whole.result.steps[0].before
        is_whole(whole, planned, tmp_path)
        again = Inline()
        (found,) = cluster.evaluate([planned], again, tmp_path)
        assert (found, again.ran) == (replace(stored, ran=False), [])

    def test_parts_that_are_there_are_not_run_again(self, planned: Plan, whole: Evaluation, tmp_path: Path) -> None:
        evaluation.obtain_part(planned, Shard(2, 3), tmp_path)
        executor = Inline()
        cluster.evaluate([planned], executor, tmp_path)
        assert executor.ran == [Shard(1, 3), Shard(3, 3)], "cut as the part that is there"
        is_whole(whole, planned, tmp_path)
        cluster.evaluate([planned], executor, tmp_path, force=True)
        assert len(executor.ran) == 2 + 2, "all again, cut as suits the executor"

    def test_an_evaluation_that_fails_does_not_stop_the_others(self, planned: Plan, tmp_path: Path) -> None:
        other = plan(suite=PGD, seed=1)

        def fail(queue: Queue, task: Task) -> bool:
            if task.plan is planned:
                queue.failed(task, ModelError("its output is NaN"))
            return task.plan is planned

        executor = Inline(fail)
        failed, stored = cluster.evaluate([planned, other], executor, tmp_path, shards=3)
        assert str(failed) == "its output is NaN"
        assert isinstance(stored, Stored)
        assert len(executor.ran) == 3

    def test_a_shard_that_is_always_lost_is_at_fault(self, planned: Plan, tmp_path: Path) -> None:
        def always(queue: Queue, task: Task) -> bool:
            if task.shard.number == 2:
                queue.lost(task, "it runs out of memory")
            return task.shard.number == 2

        with pytest.warns(UserWarning, match="it is run again"):
            (failed,) = cluster.evaluate([planned], Inline(always), tmp_path, shards=3)
        assert isinstance(failed, WorkerLost)
        assert "shard 2/3 was lost 5 times, last because it runs out of memory" in str(failed)

    def test_what_is_handed_over_is_not_waited_for(self, planned: Plan, tmp_path: Path) -> None:
        executor = Inline(lambda queue, task: task.shard.number == 3)
        (elsewhere,) = cluster.evaluate([planned], executor, tmp_path, shards=3)
        assert isinstance(elsewhere, HandedOver)
        assert (elsewhere.there, elsewhere.missing) == (2, [Shard(3, 3)])

    def test_what_cannot_be_cut_does_not_stop_the_others(self, planned: Plan, tmp_path: Path) -> None:
        few = shorter(planned, 3)
        executor = Inline()
        failed, stored = cluster.evaluate([few, planned], executor, tmp_path, shards=4)
        assert str(failed) == "3 samples cannot be cut into 4 shards: take at most 3"
        assert isinstance(stored, Stored)
        assert len(executor.ran) == 4

    def test_executors_that_there_are_not(self) -> None:
        with pytest.raises(UnknownName, match=r"unknown executor 'cloud': expected one of devices"):
            cluster.executor("cloud", Options())


class TestPartsThatAreThere:
    def test_one_that_is_damaged_stops_no_other_evaluation(self, planned: Plan, tmp_path: Path) -> None:
        other = plan(suite=PGD, seed=1)
        for shard in (Shard(1, 2), Shard(2, 2)):
            evaluation.obtain_part(other, shard, tmp_path)
        evaluation.obtain_part(planned, Shard(1, 2), tmp_path).path.write_bytes(b"noise")
        executor = Inline()
        failed, stored = cluster.evaluate([planned, other], executor, tmp_path)
        assert "is damaged" in str(failed)
        assert isinstance(stored, Stored)
        assert (stored.ran, executor.ran) == (False, []), "all its parts were there"

    def test_one_of_another_evaluation_is_refused_before_anything_runs(self, planned: Plan, tmp_path: Path) -> None:
        other = evaluation.obtain_part(plan(suite=PGD, seed=1), Shard(1, 1), tmp_path).path.parent
        other.rename(parts.folder_of(tmp_path, planned.evaluation_id))
        executor = Inline()
        (failed,) = cluster.evaluate([planned], executor, tmp_path)
        assert "is of another evaluation" in str(failed)
        assert not executor.ran

    def test_two_cuts_are_refused_before_anything_runs(self, planned: Plan, tmp_path: Path) -> None:
        for shard in (Shard(1, 3), Shard(2, 4)):
            evaluation.obtain_part(planned, shard, tmp_path)
        executor = Inline()
        (failed,) = cluster.evaluate([planned], executor, tmp_path)
        assert "was cut into 3 and into 4 shards" in str(failed)
        assert not executor.ran

    def test_force_removes_none_before_all_is_checked(self, planned: Plan, tmp_path: Path) -> None:
        there = evaluation.obtain_part(planned, Shard(1, 3), tmp_path).path
        (failed,) = cluster.evaluate([planned], Inline(), tmp_path, shards=31, force=True)
        assert isinstance(failed, InvalidInput)
        assert there.exists()

    def test_force_over_a_damaged_result(self, planned: Plan, tmp_path: Path) -> None:
        (first,) = cluster.evaluate([planned], Inline(), tmp_path)
        assert isinstance(first, Stored)
        first.path.write_text("{")
        (again,) = cluster.evaluate([planned], Inline(), tmp_path, force=True)
        assert isinstance(again, Stored)
        assert (again.ran, again.result.robust_acc) == (True, first.result.robust_acc)
        assert again.path != first.path

    def test_one_that_goes_meanwhile_is_not_elsewhere(self, planned: Plan, tmp_path: Path) -> None:
        def remove(queue: Queue, task: Task) -> bool:
            if task.shard.number == 3:
                Task(planned, Shard(1, 3)).path(tmp_path).unlink()
            return False

        (failed,) = cluster.evaluate([planned], Inline(remove), tmp_path, shards=3)
        assert "1 of 3 parts are missing" in str(failed)

    def test_one_under_the_name_of_another_fails_its_evaluation(self, planned: Plan, tmp_path: Path) -> None:
        def copy(queue: Queue, task: Task) -> bool:
            if task.shard.number == 2:
                path = Task(planned, Shard(1, 3)).path(tmp_path)
                task.path(tmp_path).write_bytes(path.read_bytes())
                queue.done(task)
            return task.shard.number == 2

        (failed,) = cluster.evaluate([planned], Inline(copy), tmp_path, shards=3)
        assert "holds shard 1/3 and has the name of another: remove it" in str(failed)

    def test_an_evaluation_is_joined_when_its_last_part_is_done(self, planned: Plan, tmp_path: Path) -> None:
        other = plan(suite=PGD, seed=1)

        def interrupt(queue: Queue, task: Task) -> bool:
            if task.plan is other:
                raise KeyboardInterrupt
            return False

        with pytest.raises(KeyboardInterrupt):
            cluster.evaluate([planned, other], Inline(interrupt), tmp_path, shards=2)
        assert evaluation.find(planned, tmp_path) is not None


def shorter(planned: Plan, n: int) -> Plan:
    """An evaluation of the first few samples alone."""
    return replace(planned, target=replace(planned.target, x=planned.target.x[:n], y=planned.target.y[:n]))


def on_devices(planned: Plan, root: Path, names: str = "cpu,cpu", timeout: float = 60, shards: int = 5) -> Any:
    executor = cluster.executor("devices", Options(devices=names, timeout=timeout))
    (outcome,) = cluster.evaluate([planned], executor, root, shards=shards)
    return outcome


@forks
class TestDevices:
    @pytest.fixture
    def mishap(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
        """Something happens to the process that first runs some shard."""
        obtain = evaluation.obtain_part

        def install(number: int, happens: Callable[[], None], *, always: bool = False) -> None:
            def obtain_part(planned: Plan, shard: Shard, root: Path, **rest: Any) -> Any:
                marker = tmp_path / "happened"
                if shard.number == number and (always or not marker.exists()):
                    marker.touch()
                    happens()
                return obtain(planned, shard, root, **rest)

            monkeypatch.setattr(evaluation, "obtain_part", obtain_part)

        return install

    def test_they_find_what_one_process_finds(self, planned: Plan, whole: Evaluation, tmp_path: Path) -> None:
        on_devices(planned, tmp_path)
        is_whole(whole, planned, tmp_path)

    @pytest.mark.parametrize(
        ("happens", "timeout", "words"),
        [
            (lambda: os.kill(os.getpid(), signal.SIGKILL), 60, r"cpu is not used any more: a worker process died"),
            (lambda: time.sleep(60), 1.5, r"cpu is not used any more: its process said nothing for \d+ s"),
        ],
        ids=["dies", "hangs"],
    )
    def test_a_device_that_fails_leaves_its_shards_to_the_others(
        self,
        planned: Plan,
        whole: Evaluation,
        tmp_path: Path,
        mishap: Callable[..., None],
        happens: Callable[[], None],
        timeout: float,
        words: str,
    ) -> None:
        mishap(2, happens)
        with pytest.warns(UserWarning, match=words):
            on_devices(planned, tmp_path, timeout=timeout)
        is_whole(whole, planned, tmp_path)

    def test_an_error_of_the_device_itself_is_not_the_models(
        self, planned: Plan, tmp_path: Path, mishap: Callable[..., None]
    ) -> None:
        def broken() -> None:
            try:
                raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nmore")
            except RuntimeError as error:
                raise ModelError("the model raised something") from error

        mishap(1, broken)
        with pytest.warns(UserWarning, match=r"cpu is not used any more: CUDA error: an illegal memory access was enc"):
            on_devices(planned, tmp_path, shards=2)

    def test_no_device_is_left(self, planned: Plan, tmp_path: Path, mishap: Callable[..., None]) -> None:
        mishap(3, lambda: os.kill(os.getpid(), signal.SIGKILL), always=True)
        with (
            pytest.warns(UserWarning, match="it is run again"),
            pytest.raises(WorkerLost, match=r"no device is left and [1-3] shards are to be done") as told,
        ):
            on_devices(planned, tmp_path)
        assert "\n" not in str(told.value)

    def test_a_model_that_fails_is_said(self, planned: Plan, tmp_path: Path, mishap: Callable[..., None]) -> None:
        def fail() -> None:
            raise ModelError("its output is NaN")

        mishap(2, fail)
        failed = on_devices(planned, tmp_path)
        assert isinstance(failed, HarnessError)
        assert str(failed) == "its output is NaN"

    def test_one_that_waits_for_another_process_does_not_hang(self, planned: Plan, tmp_path: Path) -> None:
        ready = tmp_path / "ready"
        holder = os.fork()
        if holder == 0:
            with running_alone(evaluation.shard_plan(planned, Shard(1, 1)), tmp_path):
                ready.touch()
                time.sleep(60)
            os._exit(1)
        while not ready.exists():
            time.sleep(0.01)
        threading.Timer(7, os.kill, (holder, signal.SIGKILL)).start()
        # there is no other device
        assert isinstance(on_devices(planned, tmp_path, names="cpu", timeout=5, shards=1), Stored)
        os.waitpid(holder, 0)

    def test_a_parent_that_was_stopped_blames_nobody(
        self, planned: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monotonic, wait = time.monotonic, WorkerPool.wait
        stopped = 0.0

        def wait_for_long_once(pool: WorkerPool, seconds: float | None = None) -> Any:
            nonlocal stopped
            if stopped:
                return wait(pool, seconds)
            stopped = 1000.0
            return []

        monkeypatch.setattr(WorkerPool, "wait", wait_for_long_once)
        monkeypatch.setattr(time, "monotonic", lambda: monotonic() + stopped)
        assert isinstance(on_devices(planned, tmp_path, names="cpu", shards=1), Stored)

    def test_a_defect_is_one_sentence_and_fails_its_evaluation_alone(
        self, planned: Plan, tmp_path: Path, mishap: Callable[..., None]
    ) -> None:
        def fail() -> None:
            raise ValueError("no such\nthing")

        mishap(2, fail)
        other = plan(suite=PGD, seed=1)
        executor = cluster.executor("devices", Options(devices="cpu"))
        failed, stored = cluster.evaluate([planned, other], executor, tmp_path, shards=2)
        assert isinstance(stored, Stored)
        assert isinstance(failed, HarnessError)
        assert str(failed) == "unexpected ValueError: no such thing"
        assert "in fail" in failed.__notes__[0], "what --debug shows"

    @pytest.mark.parametrize(
        ("names", "words"),
        [("cpu,", "devices are written as all, 0,1 or cpu,cpu, got 'cpu,'"), ("tpu", "unknown device 'tpu'")],
    )
    def test_devices_that_there_are_not(self, names: str, words: str) -> None:
        with pytest.raises(InvalidInput, match=words):
            cluster.executor("devices", Options(devices=names))

    @pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
    @pytest.mark.parametrize("names", ["all", "0,1"])
    def test_gpus_where_there_are_none(self, names: str) -> None:
        with pytest.raises(InvalidInput, match=r"has no GPU|has 0 CUDA devices"):
            cluster.executor("devices", Options(devices=names))

    @pytest.mark.skipif(sys.platform != "linux", reason="elsewhere they end at their next message")
    def test_no_process_outlives_a_killed_parent(self, tmp_path: Path) -> None:
        script = tmp_path / "parent.py"
        script.write_text(_PARENT)
        parent = subprocess.Popen(
            [sys.executable, str(script), str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert parent.stdout is not None
        children = [int(parent.stdout.readline()) for _ in range(2)]
        parent.kill()
        parent.wait()
        parent.stdout.close()
        assert all_end(children)


_PARENT = """
import os, sys, time
from pathlib import Path
from harness import cluster, evaluation
from tests.evaluation.test_shards import PGD, plan, same, undivided

def obtain_part(*given, **more):
    os.write(1, f"{os.getpid()}\\n".encode())
    time.sleep(600)

evaluation.obtain_part = obtain_part
executor = cluster.executor("devices", cluster.Options(devices="cpu,cpu"))
cluster.evaluate([plan(suite=PGD)], executor, Path(sys.argv[1]), shards=4)
"""
