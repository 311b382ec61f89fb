"""Worker processes answer, fail and are lost as they should, and none outlives the process that forked it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError, InvalidInput, UnknownName, WorkerLost
from harness.util import pool
from harness.util.pool import Answer, Failure, Progress, Report, WorkerPool, can_fork

pytestmark = pytest.mark.skipif(not can_fork(), reason="processes cannot be forked here")
FRESH = pytest.mark.parametrize("fresh", [False, True], ids=["kept", "fresh"])


def square(number: int, report: Report) -> tuple[int, int]:
    report(0.5, number)
    return number**2, os.getpid()


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # a zombie that nobody has collected yet is dead as well
    state = Path(f"/proc/{process}/stat")
    with contextlib.suppress(OSError):
        return state.read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def all_end(processes: list[int], seconds: float = 10) -> bool:
    until = time.monotonic() + seconds
    while any(map(is_alive, processes)) and time.monotonic() < until:
        time.sleep(0.02)
    return not any(map(is_alive, processes))


@FRESH
def test_answers_come_in_the_order_of_the_requests(fresh: bool) -> None:
    heard: list[Progress] = []
    with WorkerPool(2, square, fresh=fresh) as workers:
        answers = workers.run(range(5), heard.append)
    assert [value for value, _ in answers] == [0, 1, 4, 9, 16]
    processes = {process for _, process in answers}
    assert os.getpid() not in processes
    assert len(processes) == 5 if fresh else len(processes) <= 2
    assert all(message.detail == message.key for message in heard)
    assert all_end(sorted(processes))


@FRESH
def test_workers_share_what_was_there_before_and_need_no_pickling(fresh: bool) -> None:
    large = [lambda number: number + 1]
    with WorkerPool(1, lambda request, report: large[0](request), fresh=fresh) as workers:
        assert workers.run([1], lambda progress: None) == [2]


@FRESH
@pytest.mark.parametrize(
    ("raised", "expected", "text"),
    [
        (InvalidInput("no good"), InvalidInput, "no good"),
        (UnknownName("suite", "a", ["b"]), HarnessError, "unknown suite 'a': expected one of b"),
        (OSError(28, "No space left on device", "file"), HarnessError, "file: No space left on device"),
    ],
    ids=["plain", "not to be pickled", "of the system"],
)
def test_errors_come_back(fresh: bool, raised: Exception, expected: type[HarnessError], text: str) -> None:
    def fail(request: object, report: Report) -> None:
        raise raised

    with WorkerPool(1, fail, fresh=fresh) as workers, pytest.raises(expected) as told:
        workers.run([None], lambda progress: None)
    assert str(told.value) == text


@FRESH
def test_a_defect_comes_back_with_its_place(fresh: bool) -> None:
    def broken(request: object, report: Report) -> None:
        raise KeyError("oops")

    with (
        WorkerPool(1, broken, fresh=fresh) as workers,
        pytest.raises(RuntimeError, match=r"(?s)oops.*in a worker:\n.*in broken"),
    ):
        workers.run([None], lambda progress: None)


def test_what_cannot_be_sent_back_is_a_defect() -> None:
    with WorkerPool(1, lambda request, report: lambda: None) as workers, pytest.raises(RuntimeError, match="pickle"):
        workers.run([None], lambda progress: None)


@FRESH
def test_a_lost_worker_fails_its_request_and_no_other(fresh: bool) -> None:
    def serve(request: str, report: Report) -> str:
        if request == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.2)
        return request

    with WorkerPool(2, serve, fresh=fresh) as workers:
        workers.submit(0, "die")
        workers.submit(1, "live")
        messages: dict[int, Any] = {}
        while len(messages) < 2:
            messages |= {message.key: message for message in workers.wait()}
        assert workers.run(["a", "b", "c"], lambda progress: None) == ["a", "b", "c"], "there are two workers again"
    assert isinstance(messages[0], Failure)
    assert isinstance(messages[0].error, WorkerLost)
    assert "exit code -9" in str(messages[0].error)
    assert messages[1] == Answer(1, "live")


def test_a_worker_killed_in_the_middle_of_an_answer_is_lost() -> None:
    def serve(request: object, report: Report) -> bytes:
        signal.setitimer(signal.ITIMER_REAL, 0.3)  # the pipe is full by then, and nobody has read it
        return bytes(10_000_000)

    with WorkerPool(1, serve) as workers:
        workers.submit(0, None)
        time.sleep(0.8)
        with pytest.raises(WorkerLost):
            raise next(message.error for message in workers.wait() if isinstance(message, Failure))


def test_an_idle_worker_that_was_killed_is_noticed() -> None:
    with WorkerPool(1, square) as workers:
        os.kill(workers.processes[0], signal.SIGKILL)
        assert all_end(workers.processes)
        with pytest.raises(WorkerLost, match="exit code -9"):
            workers.run([1], lambda progress: None)


def test_closing_ends_what_is_at_work() -> None:
    def endless(request: object, report: Report) -> None:
        while True:
            time.sleep(0.01)

    workers = WorkerPool(2, endless)
    processes = workers.processes
    for key in range(2):
        workers.submit(key, None)
    workers.close()
    assert all_end(processes)


PARENT = """
import signal, sys, time
from harness.util import pool

# whoever runs the tests in the background or under nohup has them ignored
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
pipes_alone = sys.argv[1] == "pipes alone"
if pipes_alone:
    pool._end_with = lambda parent: None

def serve(request, report):
    while True:
        time.sleep(0.02)
        if pipes_alone:
            report(0.5, None)

first = pool.WorkerPool(2, serve)
second = pool.WorkerPool(2, serve, fresh=True)  # its workers inherit what the parent held of the first pool
for workers in (first, second):
    for key in range(2):
        workers.submit(key, None)
idle = pool.WorkerPool(1, serve)
print(*first.processes, *second.processes, *idle.processes, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("how", ["pipes alone", "system"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_workers_end_with_the_process_that_forked_them(how: str, number: signal.Signals) -> None:
    if how == "system" and sys.platform != "linux":
        pytest.skip("the system does not kill children")
    command = [sys.executable, "-c", PARENT, how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout is not None
        processes = [int(word) for word in parent.stdout.readline().split()]
        assert len(processes) == 5
        time.sleep(0.2)
        assert all(map(is_alive, processes))
        parent.send_signal(number)
        try:
            parent.wait(timeout=20)
        finally:
            parent.kill()
    assert all_end(processes)


def test_a_forked_process_holds_no_end_of_its_parents_pipes() -> None:
    with WorkerPool(1, square):
        assert len(pool._parents_ends) == 1
        with WorkerPool(1, lambda request, report: len(pool._parents_ends)) as other:
            assert other.run([None], lambda progress: None) == [0]
