"""Jobs of Slurm: an array, and a job that runs when all of its tasks have ended.

They are submitted with Slurm's own ``sbatch`` and not with submitit, whose tasks are pickled Python functions that
answer in a pickle each, are numbered without gaps, and are queued again by submitit's own handler of the signal before
the time limit. A task here is a command that finds all that it needs in its arguments and on the disk, so that Slurm,
or a person, may run it again on any node as often as they like, and only what is missing is submitted.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import InvalidInput, StorageError, system_error
from harness.util.text import printable

__all__ = ["Array", "Submitted", "longest_job", "script", "submit"]

_MOST_RESTARTS = 10
"""How often a task whose time ran out is queued again."""

_WARNED_BEFORE = 60
"""Seconds before the end of its time at which a task is told."""

_ANSWERS_WITHIN = 120
"""Seconds to wait for Slurm, whose commands try a controller that is away for a minute."""

_GPU_REQUESTS = ("SBATCH_GPUS", "SBATCH_GRES")
"""How the variables begin in which a user asks Slurm for GPUs."""


@dataclass(frozen=True)
class Array:
    """What is submitted.

    Attributes:
        command: of every task, as text for a shell, which finds the number of the task in ``$SLURM_ARRAY_TASK_ID``;
            it must go on where it was if it is run again. after: of the job that runs when all tasks have ended,
            however they did.
        tasks: their numbers. seconds: that one may take before it is queued again.
        seconds_after: that the last job may take.
        cores: of each task. gpu: whether each gets a GPU, where the user's environment says nothing of GPUs.
        logs: the folder in which each job leaves what it printed.
    """

    command: str
    after: str
    partition: str
    tasks: Sequence[int]
    seconds: float
    seconds_after: float
    logs: Path
    cores: int = 1
    gpu: bool = False


@dataclass(frozen=True)
class Submitted:
    """Numbers of the jobs: the array, and the one after it."""

    array: int
    after: int


def longest_job(partition: str) -> float:
    """Seconds that a job may take in a partition, or in each of several that commas separate; inf without a limit.

    Raises:
        InvalidInput: Slurm is not installed here or does not answer, or there is no such partition.
    """
    limits = []
    for name in partition.split(","):
        shown = _called(["scontrol", "--oneliner", "show", "partition", name], f"cannot use the partition {name!r}")
        found = re.search(r"\bMaxTime=(\S+)", shown)
        limits.append(_seconds(found[1]) if found else math.inf)
    return min(limits)


def submit(array: Array) -> Submitted:
    """Submit an array and the job that depends on it.

    What else a cluster wants to know, such as an account, is read by ``sbatch`` itself from variables like
    ``SBATCH_ACCOUNT``.

    Raises:
        InvalidInput: Slurm refuses the jobs, in its own words.
        StorageError: the folder of the logs cannot be made.
    """
    logs = array.logs.absolute()
    try:
        logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write {logs}: {system_error(error)}; choose another folder") from error
    folder = str(logs).replace("%", "%%")  # what follows one % Slurm replaces
    tasks = [
        f"--array={_ranges(array.tasks)}",
        f"--time={_minutes(array.seconds)}",
        f"--cpus-per-task={array.cores}",
        f"--output={folder}/%A_%a.log",
        "--requeue",
        f"--signal=B:USR1@{_WARNED_BEFORE}",
    ]
    asked_for_gpu = any(name.startswith(_GPU_REQUESTS) for name in os.environ)
    if array.gpu and not asked_for_gpu:
        tasks.append("--gres=gpu:1")
    number = _submitted(array.partition, tasks, script(array.command), os.environ)
    following = [
        # afterany, because a collector that runs after a failure says in its log which parts are missing
        f"--dependency=afterany:{number}",
        f"--time={_minutes(array.seconds_after)}",
        f"--output={folder}/%j.log",
    ]
    without_gpu = {name: value for name, value in os.environ.items() if not name.startswith(_GPU_REQUESTS)}
    try:
        after = _submitted(array.partition, following, script(array.after), without_gpu)
    except InvalidInput as error:
        raise InvalidInput(
            f"job {number} is submitted, but not the job that follows it ({error}); when it is done, run: {array.after}"
        ) from error
    return Submitted(number, after)


def script(command: str) -> str:
    """The text of a job that runs a command; if its time runs out, it is queued again and goes on where it was."""
    return f"""#!/bin/bash
export OMP_NUM_THREADS="${{OMP_NUM_THREADS:-${{SLURM_CPUS_PER_TASK:-1}}}}"
# the number of one task is also that of its whole array, and its name is not
name="${{SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}}${{SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}}"
queue_again() {{
  if [ "${{SLURM_RESTART_COUNT:-0}}" -lt {_MOST_RESTARTS} ]; then scontrol requeue "$name"; fi
}}
trap queue_again USR1
{command} &
wait $!
# a signal that is trapped ends the first wait, and not the command
wait $!
"""


def _submitted(partition: str, options: list[str], text: str, environment: Mapping[str, str]) -> int:
    always = ["--parsable", "--export=ALL", "--open-mode=append", "--job-name=harness", f"--partition={partition}"]
    answer = _called(["sbatch", *always, *options], "Slurm refuses the job", text, environment)
    number = answer.strip().partition(";")[0]
    if not number.isdigit():
        raise InvalidInput(f"expected the number of a job from sbatch, got {printable(answer, longest=200)!r}")
    return int(number)


def _called(
    command: list[str], failing: str, text: str | None = None, environment: Mapping[str, str] | None = None
) -> str:
    """What a command of Slurm prints."""
    if shutil.which(command[0]) is None:
        raise InvalidInput(
            f"there is no {command[0]} on this machine: --executor slurm submits from a node of a Slurm cluster; "
            "elsewhere use --shard"
        )
    try:
        done = subprocess.run(
            command, input=text, env=environment, capture_output=True, text=True, timeout=_ANSWERS_WITHIN
        )
    except subprocess.TimeoutExpired as error:
        raise InvalidInput(f"Slurm did not answer {command[0]} within {_ANSWERS_WITHIN} s; try again") from error
    if done.returncode:
        # the last line is the reason, and begins with the names of the command and of its severity
        lines = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
        reason = re.sub(r"^\w+: (error|fatal): ", "", lines[-1])
        raise InvalidInput(f"{failing}: {printable(reason, longest=300)}")
    return done.stdout


def _ranges(numbers: Sequence[int]) -> str:
    """Such as ``1-4,7``, because a list of thousands would be too long a word for Slurm."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def _minutes(seconds: float) -> int:
    return max(1, math.ceil(seconds / 60))


def _seconds(limit: str) -> float:
    """Of a limit such as ``30:00``, ``12:00:00``, ``2-00:00:00`` or ``UNLIMITED``."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", limit)
    if match is None:
        return math.inf
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60.0 + seconds
