"""``harness evaluate --executor slurm``, with programs that stand in for Slurm's: what is submitted or refused."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from harness import evaluation
from harness.cluster import _sbatch
from tests.cli.conftest import Harness

ARGS = ("evaluate", "--checkpoint", "tiny", "--suite", "fgsm", "--limit", "20", "--output", "out")
SLURM = ("--executor", "slurm", "--partition", "short")
FIXED = ("--time", "30m", "--shards", "3")

SCONTROL = """#!/bin/sh
case "$*" in
  *"partition short") echo "PartitionName=short MaxTime=0-02:00:00 State=UP" ;;
  *"partition endless") echo "PartitionName=endless MaxTime=UNLIMITED State=UP" ;;
  "requeue "*) echo "$2" > "$FOLDER/requeued" ;;
  *) echo "Partition nowhere not found"; exit 1 ;;
esac
"""
SBATCH = """#!/bin/sh
number=$(($(ls "$FOLDER" | grep -c script) + 101))
case "$*" in *"$REFUSED"*) echo "sbatch: error: Invalid account" >&2; exit 1 ;; esac
printf '%s\\n' "$@" > "$FOLDER/$number.options"
cat > "$FOLDER/$number.script"
echo "$number;cluster"
"""


class Job(NamedTuple):
    options: list[str]
    command: list[str]


class Slurm:
    """What was submitted to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def job(self, number: int) -> Job:
        options = (self.folder / f"{number}.options").read_text().splitlines()
        lines = (self.folder / f"{number}.script").read_text().splitlines()
        (line,) = [line for line in lines if line.endswith(" &")]
        return Job(options, shlex.split(line.removesuffix(" &")))


@pytest.fixture
def slurm(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    programs, folder = tmp_path_factory.mktemp("programs"), tmp_path_factory.mktemp("submitted")
    for name, text in (("scontrol", SCONTROL), ("sbatch", SBATCH)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("FOLDER", str(folder))
    monkeypatch.setenv("REFUSED", "nothing")
    for name in ("SBATCH_GRES", "SBATCH_GPUS"):
        monkeypatch.delenv(name, raising=False)
    return Slurm(folder)


def here(job: Job, task: int = 0) -> list[str]:
    """The command of a job as arguments of ``harness`` in this process."""
    program = [sys.executable, "-P", "-m", "harness"]
    assert job.command[:4] == program
    return [word.replace("$SLURM_ARRAY_TASK_ID", str(task)) for word in job.command[4:]]


@pytest.mark.usefixtures("tiny")
def test_what_is_submitted_makes_the_result(harness: Harness, slurm: Slurm, folder: Path) -> None:
    code, out, _ = harness(*ARGS, *SLURM, *FIXED, "--no-adversarial", "--workers", "1")
    assert code == 0
    assert "Slurm job 101 of short (3 of 3 shards, at most 30 min each), then 102" in out
    assert "harness collect out says at any time how far" in out
    shards, joining = slurm.job(101), slurm.job(102)
    assert {"--array=1-3", "--time=30", "--requeue", "--cpus-per-task=1", "--partition=short"} <= set(shards.options)
    assert f"--output={folder}/out/slurm/%A_%a.log" in shards.options
    assert "--dependency=afterany:101" in joining.options
    for task in (3, 1, 2):
        assert f"shard {task}/3" in harness(*here(shards, task)).out
    (joined,) = json.loads(harness(*here(joining), "--json").out)
    alone = json.loads(harness(*ARGS, "--output", "alone", "--deterministic", "--json").out)
    assert (joined["n"], joined["robust_acc"]) == (20, alone["robust_acc"])
    assert not list((folder / "out").glob("*.safetensors")), "--no-adversarial is for the collector"
    # all is there, and so nothing is submitted
    assert "found, not run again" in harness(*ARGS, *SLURM, *FIXED).out
    assert not (slurm.folder / "103.script").exists()


@pytest.mark.usefixtures("tiny")
def test_only_what_is_missing_is_submitted(harness: Harness, slurm: Slurm) -> None:
    assert harness(*ARGS, "--shard", "2/4").code == 0
    harness(*ARGS, *SLURM, "--time", "30m")
    assert "--array=1,3-4" in slurm.job(101).options
    assert harness(*ARGS, "--shard", "3/4").code == 0
    harness(*ARGS, "--data-dir", "--json", *SLURM, "--time", "30m", "--force", "--json")
    assert "--array=1-4" not in slurm.job(103).options, "the parts of before are no longer there to say how many"
    command = slurm.job(103).command
    assert "--force" not in command, "a task that is requeued finds what it has stored"
    assert command.count("--json") == 1
    assert command[command.index("--json") - 1] == "--data-dir", "a value is no option"
    assert "--executor" not in command


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(("forecast", "minutes"), [(1.0, 5), (5400.0, 63), (1e6, 120)])
def test_a_time_from_the_forecast(
    harness: Harness, slurm: Slurm, monkeypatch: pytest.MonkeyPatch, forecast: float, minutes: int
) -> None:
    step = evaluation.StepForecast("pgd", 20, 0, 0, forecast)
    found = evaluation.Forecast(20, 20, 9, 1, (step,), preparing_seconds=0.0, probe_seconds=1.0)
    monkeypatch.setattr(evaluation, "forecast", lambda plan: found)
    assert harness(*ARGS, *SLURM, "--shards", "3").code == 0
    assert f"--time={minutes}" in slurm.job(101).options


@pytest.mark.usefixtures("tiny", "slurm")
def test_what_slurm_cannot_run_is_one_sentence(harness: Harness, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    harness(*ARGS, "--executor", "slurm", *FIXED).refused("needs --partition")
    harness(*ARGS, "--executor", "slurm", "--partition", "nowhere", *FIXED).refused("Partition nowhere not found")
    harness(*ARGS, *SLURM, "--shards", "3", "--time", "3h").refused("may take 120 minutes, got --time 180 min")
    harness(*ARGS, *SLURM, "--shards", "3", "--time", "60s").refused("needs 5 minutes")
    harness(*ARGS, *SLURM, "--shards", "30", "--time", "30m").refused("20 samples cannot be cut into 30 shards")
    harness(*ARGS, *SLURM, "--shards", "3", "--device", "cuda").refused("--time auto measures on this machine")
    (folder / "file").write_text("")
    harness(*ARGS, *SLURM, *FIXED, "--output", "file/out").refused("cannot write", "is not a folder")
    (folder / "out").mkdir()
    (folder / "out" / "slurm").write_text("")
    harness(*ARGS, *SLURM, *FIXED).refused("cannot write", "out/slurm")
    (folder / "out" / "slurm").unlink()
    monkeypatch.setenv("REFUSED", "--array")
    harness(*ARGS, *SLURM, *FIXED).refused("Slurm refuses the job: Invalid account")
    monkeypatch.setenv("REFUSED", "--dependency")
    harness(*ARGS, *SLURM, *FIXED).refused("job 101 is submitted, but not the job that follows it", "harness collect")
    monkeypatch.setenv("PATH", str(folder))
    harness(*ARGS, *SLURM, *FIXED).refused("there is no scontrol on this machine")


@pytest.mark.parametrize(
    ("environment", "options"), [({}, {"--gres=gpu:1"}), ({"SBATCH_GPUS": "2"}, set()), ({"SBATCH_GRES": "x"}, set())]
)
def test_a_gpu_where_nobody_asked_for_one(
    slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], options: set[str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    array = _sbatch.Array("a &", "b &", "short", [7, 1, 2, 3, 9, 8], 61.0, 60.0, tmp_path / "100%A", cores=2, gpu=True)
    assert _sbatch.submit(array) == _sbatch.Submitted(101, 102)
    submitted = set(slurm.job(101).options)
    assert f"--output={tmp_path}/100%%A/%A_%a.log" in submitted
    assert {option for option in submitted if option.startswith(("--gres", "--gpus"))} == options
    assert {"--array=1-3,7-9", "--time=2", "--cpus-per-task=2"} <= submitted


def test_limits_of_partitions(slurm: Slurm) -> None:
    assert _sbatch.longest_job("short") == 7200
    assert _sbatch.longest_job("endless") == float("inf")
    assert _sbatch.longest_job("endless,short") == 7200


@pytest.mark.parametrize(("restarts", "requeued"), [(None, True), (9, True), (10, False)])
def test_a_task_whose_time_runs_out_is_queued_again(
    slurm: Slurm, monkeypatch: pytest.MonkeyPatch, restarts: int | None, requeued: bool
) -> None:
    for name, value in {"JOB_ID": "55", "ARRAY_JOB_ID": "55", "ARRAY_TASK_ID": "3"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    if restarts is not None:
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))
    begun = slurm.folder / "begun"
    text = _sbatch.script(f"{{ touch {begun}; sleep 0.5; exit 7; }}")
    with subprocess.Popen(["bash", "-c", text]) as task:
        while not begun.exists():
            time.sleep(0.01)
        task.send_signal(signal.SIGUSR1)
        assert task.wait() == 7, "the command ends by itself, and its exit code is the task's"
    told = slurm.folder / "requeued"
    # by its own name: 55 is the whole array
    assert (told.read_text().strip() if told.exists() else None) == ("55_3" if requeued else None)
