"""Jobs are done once, in order, side by side; one that fails takes along what needs it and nothing else."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.errors import InvalidInput
from harness.studies.scheduling import Event, Job, Report, can_isolate, schedule

CPU = torch.device("cpu")
BOTH = pytest.mark.parametrize("isolated", [True, False] if can_isolate(CPU) else [False])


def noting(folder: Path, name: str) -> Callable[[Report], Any]:
    def work(report: Report) -> str:
        report(0.5, "half")
        (folder / name).write_text(str(len(list(folder.iterdir()))), encoding="utf-8")
        return name.upper()

    return work


def failing(report: Report) -> None:
    raise InvalidInput("no good")


@BOTH
def test_what_is_needed_comes_first(tmp_path: Path, isolated: bool) -> None:
    needs = {"d": ("b", "c"), "c": ("a",), "b": ("a",), "a": ("elsewhere",)}
    jobs = [Job(name, "kind", needs[name], noting(tmp_path, name)) for name in needs]
    events: list[Event] = []
    ended = schedule(jobs, workers=2, isolated=isolated, progress=events.append)
    assert {name: (done.status, done.value) for name, done in ended.items()} == {n: ("done", n.upper()) for n in needs}
    order = [event.job.name for event in events if event.result]
    assert (order[0], order[-1], sorted(order)) == ("a", "d", ["a", "b", "c", "d"])
    assert [event.finished for event in events if event.result] == [1, 2, 3, 4]
    assert events[-1].left == 0


@BOTH
def test_a_failure_takes_along_what_needs_it(tmp_path: Path, isolated: bool) -> None:
    jobs = [
        Job("bad", "kind", (), failing),
        Job("child", "kind", ("bad",), noting(tmp_path, "child")),
        Job("grandchild", "kind", ("child",), noting(tmp_path, "grandchild")),
        Job("other", "kind", (), noting(tmp_path, "other")),
    ]
    ended = schedule(jobs, workers=2, isolated=isolated, progress=lambda event: None)
    assert {n: d.status for n, d in ended.items()} == {
        "bad": "failed",
        "child": "skipped",
        "grandchild": "skipped",
        "other": "done",
    }
    assert ended["bad"].error == "no good"
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


@BOTH
def test_a_defect_is_not_hidden(isolated: bool) -> None:
    def broken(report: Report) -> None:
        raise KeyError("oops")

    with pytest.raises((RuntimeError, KeyError), match="oops"):
        schedule([Job("broken", "kind", (), broken)], workers=1, isolated=isolated, progress=lambda event: None)


@pytest.mark.skipif(not can_isolate(CPU), reason="processes cannot be forked here")
class TestProcesses:
    def test_side_by_side(self, tmp_path: Path) -> None:
        def meeting(mine: str, theirs: str) -> Callable[[Report], Any]:
            def work(report: Report) -> int:
                (tmp_path / mine).touch()
                until = time.monotonic() + 20
                while not (tmp_path / theirs).exists() and time.monotonic() < until:
                    time.sleep(0.01)
                return os.getpid() if (tmp_path / theirs).exists() else 0

            return work

        jobs = [Job("a", "kind", (), meeting("a", "b")), Job("b", "kind", (), meeting("b", "a"))]
        ended = schedule(jobs, workers=2, isolated=True, progress=lambda event: None)
        assert len({ended["a"].value, ended["b"].value, 0, os.getpid()}) == 4

    def test_a_process_that_dies_is_a_failure(self, tmp_path: Path) -> None:
        def dying(report: Report) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        jobs = [Job("dying", "kind", (), dying), Job("other", "kind", (), noting(tmp_path, "other"))]
        ended = schedule(jobs, workers=1, isolated=True, progress=lambda event: None)
        assert ended["dying"].status == "failed"
        assert "exit code -9" in ended["dying"].error
        assert ended["other"].status == "done"

    def test_an_interrupt_ends_what_is_at_work(self, tmp_path: Path) -> None:
        def endless(report: Report) -> None:
            (tmp_path / "pid").write_text(str(os.getpid()), encoding="utf-8")
            while True:
                report(0.5, "still")
                time.sleep(0.05)

        def interrupt(event: Event) -> None:
            if event.words:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            schedule([Job("endless", "kind", (), endless)], workers=1, isolated=True, progress=interrupt)
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "pid").read_text(encoding="utf-8")), 0)
