"""``harness evaluate --executor slurm`` on a real Slurm: an array, a task that is killed and requeued, the result."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from harness import datasets
from harness.cluster import _sbatch
from harness.results import adversarial, store
from tests.cluster.slurm import NODES

ROOT = Path(__file__).resolve().parents[2]
SUITE = """
[[step]]
name = "logged"
attack = "logged_attack.py:logged_attack"

[[step]]
attack = "square"
queries = 60
"""
IMAGES, SHARDS = 40, 4
ITERATIONS = 80  # of the attack that notes them, in both of its runs


class Place:
    """A folder that the nodes share, and the programs that run in it."""

    def __init__(self, folder: Path, cluster: dict[str, str]) -> None:
        self.folder = folder
        self.environment = os.environ | cluster | {"HARNESS_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}

    def harness(self, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "harness", *args]
        return self.run(command, **variables)

    def run(self, command: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
        environment = self.environment | variables
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=300)

    def tasks(self, job: int) -> list[list[str]]:
        """Those of an array that have not ended: name, state, and the node that runs it."""
        shown = self.run(["squeue", "--noheader", "--array", "--format=%i %T %N", f"--jobs={job}"]).stdout
        return [line.split() for line in shown.splitlines()]

    @contextmanager
    def drained(self, node: str) -> Iterator[None]:
        """Within it no task begins on a node."""
        assert self.run(["scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=test"]).returncode == 0
        yield
        assert self.run(["scontrol", "update", f"NodeName={node}", "State=RESUME"]).returncode == 0

    def wait(self, is_so: Callable[[], object], seconds: float, what: str) -> None:
        end = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < end, f"{what} did not come: {self.logs()}"
            time.sleep(0.1)

    def logs(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in sorted((self.folder / "out" / "slurm").glob("*.log"))}

    def notes(self) -> dict[str, list[tuple[int, list[str]]]]:
        """What the attack has noted, by task, how often that was requeued, and node."""
        paths = sorted((self.folder / "notes").iterdir())
        texts = {path.name: path.read_text() for path in paths}
        # the last line may be half written
        return {name: [json.loads(line) for line in text.split("\n")[:-1]] for name, text in texts.items()}

    def furthest(self) -> str:
        """The first task that is in the middle of its second run, as its notes are called; empty if none is."""
        return next((name for name, noted in self.notes().items() if len(noted) > 0.6 * ITERATIONS), "")


@pytest.fixture
def place(tmp_path: Path, cluster: dict[str, str]) -> Place:
    (tmp_path / "suite.toml").write_text(SUITE)
    shutil.copy(ROOT / "tests" / "cluster" / "logged_attack.py", tmp_path)
    (tmp_path / "notes").mkdir()
    return Place(tmp_path, cluster)


def iterations(notes: list[tuple[int, list[str]]]) -> Counter[tuple[int, str]]:
    return Counter((i, sample) for i, samples in notes for sample in samples)


def test_an_array_with_a_task_that_is_killed_and_requeued(place: Place) -> None:
    evaluation = ("evaluate", "--checkpoint", str(ROOT / "checkpoints" / "bn_ft.pt"), "--suite", "suite.toml")
    evaluation += ("--trust-code", "--limit", str(IMAGES), "--workers", "1")
    submit = ("--output", "out", "--executor", "slurm", "--partition", "short", "--time", "auto")
    told = place.harness(
        *evaluation, *submit, "--shards", str(SHARDS), "--json", SLOW="0.2", NOTES=str(place.folder / "notes")
    )
    assert told.returncode == 0, told.stderr
    handed_over = json.loads(told.stdout)
    assert handed_over["missing"] == [f"{number}/{SHARDS}" for number in range(1, SHARDS + 1)]
    for path in (place.folder / "notes").iterdir():
        path.unlink()  # of the forecast
    array, collect = handed_over["jobs"]

    # the task that is furthest is killed in the middle of its attack, seconds after its state was saved
    place.wait(place.furthest, 120, "a task in its second run")
    task, _, node = place.furthest().split("-")
    victim = f"{array}_{task}"
    with place.drained(node):  # it must go on at the other one
        assert place.run(["scontrol", "requeue", victim]).returncode == 0
        progress = place.harness("collect", "out")
        assert (progress.returncode, progress.stderr.count("error:")) == (1, 1), "not all parts are there"
        place.wait(lambda: not place.tasks(array) and not place.tasks(collect), 240, "the end of all jobs")
    assert list(place.folder.glob("out/*.json")), place.logs()

    # the same as in one process that nobody killed
    alone = place.harness(*evaluation, "--deterministic", "--output", "alone", "--json")
    assert alone.returncode == 0, alone.stderr
    one, other = Path(json.loads(alone.stdout)["result"]), next(place.folder.glob("out/*.json"))
    same(one, other)
    assert place.harness("verify", str(other)).returncode == 0

    # what was done was not done again: of the task that was killed, no more than its last seconds
    notes, (other_node,) = place.notes(), set(NODES) - {node}
    assert [name for name in notes if "-1-" in name] == [f"{task}-1-{other_node}"], "no other task began twice"
    first, second = iterations(notes[f"{task}-0-{node}"]), iterations(notes[f"{task}-1-{other_node}"])
    redone = sum((first & second).values())
    assert redone < 0.6 * sum(first.values()), (redone, sum(first.values()), sum(second.values()))
    for name, noted in notes.items():
        assert max(iterations(noted).values()) == 1, name


def test_a_task_whose_time_runs_out_is_queued_again_and_no_other(
    cluster: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in cluster.items():
        monkeypatch.setenv(name, value)
    begun = tmp_path / "begun"
    begin = f'echo "$SLURM_ARRAY_TASK_ID ${{SLURM_RESTART_COUNT:-0}}" >> {begun}'
    # the last task has the number of its array
    command = f'{{ {begin}; test "$SLURM_ARRAY_TASK_ID ${{SLURM_RESTART_COUNT:-0}}" != "3 0" || sleep 300; }}'
    array = _sbatch.Array(command, f"touch {tmp_path}/joined", "short", [2, 3], 120.0, 60.0, tmp_path / "logs")
    _sbatch.submit(array)
    end = time.monotonic() + 200
    while not (tmp_path / "joined").exists():
        assert time.monotonic() < end, begun.read_text()
        time.sleep(0.5)
    assert sorted(begun.read_text().splitlines()) == ["2 0", "3 0", "3 1"]


def same(one: Path, other: Path) -> None:
    verdicts = [store.read_verdicts(path) for path in (one, other)]
    for name in ("index", "y", "clean_pred", "robust", "broken_by", "adv_pred"):
        assert np.array_equal(*(getattr(each, name) for each in verdicts)), name
    results = [store.read(path) for path in (one, other)]
    assert 0 < results[0].robust_acc < results[0].clean_acc
    for steps in zip(*(result.steps for result in results), strict=True):
        for name in ("name", "before", "after", "forward", "backward", "judge", "rejected"):
            assert getattr(steps[0], name) == getattr(steps[1], name), name
    # the perturbations that are tried on other samples are those of a shard's own
    flags = [{flag for flag in result.flags if flag.code != "transfer-gains"} for result in results]
    assert flags[0] == flags[1]
    images = datasets.load("digits", limit=IMAGES).x
    points = [adversarial.unpack(path.with_suffix(".safetensors"), images) for path in (one, other)]
    assert np.array_equal(points[0].rows, points[1].rows)
    assert torch.equal(points[0].points[:], points[1].points[:])
