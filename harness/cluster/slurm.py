"""A Slurm cluster: the shards become the tasks of an array, which goes on when this process has ended."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness import evaluation
from harness.cluster import _sbatch
from harness.cluster._base import Commands, Options
from harness.cluster._queue import Queue
from harness.errors import InvalidInput
from harness.evaluation import Plan
from harness.util.torch_state import threads

__all__ = ["Slurm", "slurm"]

_SLOTS = 8
"""Nobody knows how many tasks will run at once; so many make shards that are worth a start and can be shared out."""

_MARGIN = 2
"""How many times as long as forecast a shard may take, as a machine's speed drifts."""

_BESIDE_THE_ATTACK = 180.0
"""Seconds of an evaluation in a shard for loading, planning and the checks of the model."""

_AFTER = 1800.0
"""Seconds that the joining of the parts may take."""

_SHORTEST = 300.0
"""Seconds below which a task would hardly come further than to its start."""


def slurm(options: Options) -> Slurm:
    """The cluster that this machine can submit to.

    Raises:
        InvalidInput: there is none here, it has no such partition, or jobs may not take so long there.
    """
    if options.partition is None:
        raise InvalidInput("--executor slurm needs --partition: 'sinfo' lists the partitions of the cluster")
    if options.commands is None:
        raise InvalidInput("Slurm runs command lines, so that only 'harness evaluate' can submit to it")
    seconds = options.task_seconds
    if seconds is not None and seconds < _SHORTEST:
        raise InvalidInput(
            f"a shard needs {_SHORTEST / 60:.0f} minutes to load and begin, got --time {seconds / 60:.1f} min"
        )
    longest = _sbatch.longest_job(options.partition)
    if seconds is not None and seconds > longest:
        raise InvalidInput(
            f"jobs in the partition {options.partition!r} may take {longest / 60:.0f} minutes, got --time "
            f"{seconds / 60:.0f} min: say less, as a task whose time runs out is queued again and goes on"
        )
    return Slurm(options.partition, longest, options.commands, seconds, (options.device or "").startswith("cuda"))


@dataclass(frozen=True)
class Slurm:
    """Submits, and does not wait.

    Attributes:
        longest: seconds that a job may take in the partition. seconds: that a shard may; None forecasts it.
        gpu: whether a task gets a GPU.
    """

    partition: str
    longest: float
    commands: Commands
    seconds: float | None = None
    gpu: bool = False

    @property
    def slots(self) -> int:
        """As many as are assumed."""
        return _SLOTS

    def run(self, queue: Queue) -> None:
        """As `harness.cluster.Executor.run`: hands all tasks over.

        Raises:
            InvalidInput: the evaluations are not cut alike, their time cannot be measured here, or Slurm refuses them.
            StorageError: the folder of the logs cannot be made.
        """
        tasks = list(iter(queue.next, None))
        plans = list(dict.fromkeys(task.plan for task in tasks))
        counts = sorted({task.shard.count for task in tasks})
        if len(counts) > 1:
            raise InvalidInput(
                f"an array has as many shards of each evaluation, and there are parts of {counts[0]} and of "
                f"{counts[-1]} shards: submit the evaluations one by one"
            )
        # all plans of one command have the same settings
        workers = plans[0].settings.workers
        cores = workers if isinstance(workers, int) else 1
        for plan in plans:
            plan.state_name  # noqa: B018  # makes the user's secret, before many tasks do so at once
        seconds = self._seconds(plans, counts[0], cores) if self.seconds is None else self.seconds
        logs = queue.root.absolute() / "slurm"
        numbers = sorted({task.shard.number for task in tasks})
        shard = shlex.join([*self.commands.shard, "--workers", str(cores), "--shard"])
        jobs = _sbatch.submit(
            _sbatch.Array(
                command=f'{shard} "$SLURM_ARRAY_TASK_ID/{counts[0]}"',
                after=shlex.join(self.commands.collect),
                partition=self.partition,
                tasks=numbers,
                seconds=seconds,
                seconds_after=min(_AFTER, self.longest),
                logs=logs,
                cores=cores,
                gpu=self.gpu,
            )
        )
        queue.jobs = (jobs.array, jobs.after)
        queue.where = (
            f"in Slurm job {jobs.array} of {self.partition} ({len(numbers)} of {counts[0]} shards, at most "
            f"{math.ceil(seconds / 60)} min each), then {jobs.after}, which joins them; logs in {logs}"
        )

    def _seconds(self, plans: Sequence[Plan], count: int, cores: int) -> float:
        """What a shard of all of the plans may take, from a forecast on this machine."""
        forecasts: dict[str, evaluation.Forecast] = {}
        attacks = preparing = 0.0
        for plan in plans:
            alike = repr(plan.about)  # all but the seed
            if alike not in forecasts:
                forecasts[alike] = _forecast(plan, cores)
            found = forecasts[alike]
            preparing += found.preparing_seconds  # which every shard does
            attacks += found.seconds - found.preparing_seconds
        wanted = max(_SHORTEST, (attacks / count + preparing) * _MARGIN + _BESIDE_THE_ATTACK * len(plans))
        # less is no failure, as a task whose time runs out is queued again
        return min(wanted, self.longest)


def _forecast(plan: Plan, cores: int) -> evaluation.Forecast:
    here = replace(plan, settings=replace(plan.settings, workers=cores))
    try:
        evaluation.place(here)
    except InvalidInput as error:
        raise InvalidInput(f"--time auto measures on this machine, and {error}; or say a time, such as 2h") from error
    with threads(cores):
        return evaluation.forecast(here)
