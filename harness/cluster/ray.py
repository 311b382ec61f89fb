"""A Ray cluster: shards as Ray tasks, models and images put once into its object store."""

from __future__ import annotations

import importlib
import os
import time
from dataclasses import dataclass, replace
from typing import Any

import torch

from harness import evaluation
from harness._version import __version__
from harness.cluster._absence import Absence
from harness.cluster._base import Options, unexpected
from harness.cluster._queue import Queue, Task
from harness.cluster._shipping import Shipment, pack, send_code_of_files
from harness.engine.types import AttackProgress
from harness.errors import HarnessError, InvalidInput, ResultError, WorkerLost, system_error
from harness.results import parts
from harness.results.parts import Part, Shard
from harness.util.extras import required

__all__ = ["Ray", "ray"]

_SECONDS_BETWEEN_REPORTS = 1.0


def ray(options: Options) -> Ray:
    """The cluster at an address, or one of this machine alone that ends with the evaluation.

    Raises:
        InvalidInput: Ray is not installed, or there is no cluster at that address.
    """
    # a cluster that is started for an evaluation reports to nobody
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    library: Any = required("ray", "--executor ray")
    started = not library.is_initialized()
    if started:
        alone = {} if options.ray_address else {"include_dashboard": False}
        try:
            library.init(options.ray_address, log_to_driver=False, logging_level="error", **alone)
        except (ConnectionError, ValueError, RuntimeError) as error:
            where = f"no Ray cluster answers at {options.ray_address}" if options.ray_address else "Ray does not start"
            raise InvalidInput(f"{where}: {' '.join(str(error).split())}") from error
    return Ray(library, options, ends=started)


class Ray:
    """The nodes of a cluster: a GPU a task where the cluster has some, else a core.

    Args:
        library: the package ray, connected. ends: whether the connection ends after a run.
    """

    def __init__(self, library: Any, options: Options, *, ends: bool) -> None:
        self.library = library
        self.timeout = options.timeout
        self.ends = ends
        on_gpus = options.device != "cpu" and bool(library.cluster_resources().get("GPU"))
        self.device = "cuda" if on_gpus else "cpu"
        self.resources = {"num_cpus": 1, "num_gpus": 1 if on_gpus else 0}

    @property
    def slots(self) -> int:
        """The GPUs, or else the cores, of all nodes that are there now."""
        return int(self.library.cluster_resources().get("GPU" if self.device == "cuda" else "CPU", 0))

    def run(self, queue: Queue) -> None:
        """As `harness.cluster.Executor.run`.

        Raises:
            WorkerLost: the cluster has nowhere to run a task any more.
        """
        try:
            _Run(self, queue).to_the_end()
        finally:
            if self.ends:
                self.library.shutdown()


@dataclass(frozen=True)
class _Running:
    """A task that was submitted: what stands for its answer, and when it was last heard of, if it has begun."""

    task: Task
    answer: Any
    heard: float | None = None


class _Run:
    """The Ray tasks that work on a queue."""

    def __init__(self, cluster: Ray, queue: Queue) -> None:
        library = cluster.library
        self.cluster, self.queue, self.library = cluster, queue, library
        self.running: dict[int, _Running] = {}
        self.stored: dict[int, tuple[object, Any]] = {}
        self.submitted = 0
        self.seen = self.told = time.monotonic()
        self.absence = Absence(_SECONDS_BETWEEN_REPORTS)
        self.news: Any = None
        # lost tasks come back through the queue, which counts them
        self.attack = library.remote(_attack).options(max_retries=0, **cluster.resources)
        strategies = importlib.import_module("ray.util.scheduling_strategies")
        node = library.get_runtime_context().get_node_id()
        here = strategies.NodeAffinitySchedulingStrategy(node, soft=False)
        self.heard = library.remote(_Heard).options(num_cpus=0, max_restarts=-1, scheduling_strategy=here).remote()

    def to_the_end(self) -> None:
        send_code_of_files(self.library.cloudpickle.register_pickle_by_value)
        try:
            while True:
                while task := self.queue.next():
                    self._submit(task)
                if not self.running:
                    return
                self._collect()
                self._listen()
                self._end_useless()
        finally:
            for at in self.running.values():
                self.library.cancel(at.answer, force=True)
            self.library.kill(self.heard)

    def _submit(self, task: Task) -> None:
        shipment = pack(task.plan) if id(task.plan) not in self.stored else None
        plan = self._put(task.plan, None if shipment is None else shipment.plan)
        model = self._put(task.plan.target.model, task.plan.target.model)
        images = self._put(task.plan.target.x, None if shipment is None else shipment.images)
        about = (self.submitted, self.heard, self.cluster.device, __version__)
        answer = self.attack.remote(plan, model, images, task.shard, *about)
        self.running[self.submitted] = _Running(task, answer)
        self.submitted += 1

    def _put(self, owner: object, content: object) -> Any:
        """What stands for ``content`` in the object store, where it is put once for each ``owner``."""
        if id(owner) not in self.stored:
            self.stored[id(owner)] = owner, self.library.put(content)
        return self.stored[id(owner)][1]

    def _collect(self) -> None:
        """Take the answers that are there, after waiting for one for a moment."""
        answers = {at.answer: key for key, at in self.running.items()}
        ready, _ = self.library.wait(list(answers), num_returns=1, timeout=_SECONDS_BETWEEN_REPORTS)
        # nobody is to be blamed for what was not heard while this process did not listen
        missed = self.absence.seconds()
        for key, at in self.running.items():
            self.running[key] = replace(at, heard=None if at.heard is None else at.heard + missed)
        for answer in ready:
            task = self.running.pop(answers[answer]).task
            try:
                found = self.library.get(answer)
            except self.library.exceptions.RayTaskError as error:
                self.queue.failed(task, unexpected(error.cause or error))
                continue
            except self.library.exceptions.RayError as error:
                self.queue.lost(task, " ".join(str(error).split(". ")[0].split()))
                continue
            if isinstance(found, Part):
                if self.queue.is_wanted(task):
                    self._keep(task, found)
            else:
                self.queue.failed(task, found)

    def _keep(self, task: Task, found: Part) -> None:
        try:
            parts.save(found, self.queue.root)
        except ResultError as error:  # what lies in its place is damaged
            self.queue.failed(task, error)
        else:
            self.queue.done(task)

    def _listen(self) -> None:
        """Hear what the tasks have said, without waiting for it."""
        if self.news is None:
            self.news = self.heard.told.remote()
        ready, _ = self.library.wait([self.news], timeout=0)
        if not ready:
            return
        try:
            told: dict[int, AttackProgress | None] = self.library.get(self.news)
        except self.library.exceptions.RayError:
            # whoever listens was lost, and nobody is to be blamed for what was not heard
            told = dict.fromkeys((key for key, at in self.running.items() if at.heard is not None), None)
        self.news, self.told = None, time.monotonic()
        for key, tick in told.items():
            if key in self.running:
                self.running[key] = replace(self.running[key], heard=self.told)
                if tick is not None:
                    self.queue.further(self.running[key].task, tick)

    def _end_useless(self) -> None:
        """End tasks that hang, or whose evaluation has failed meanwhile.

        Raises:
            WorkerLost: no node is left.
        """
        now = time.monotonic()
        if self.cluster.slots:
            self.seen = now
        elif now - self.seen > self.cluster.timeout:
            raise WorkerLost(
                f"the Ray cluster has had no {self.cluster.device} to run a shard on for {now - self.seen:.0f} s; what "
                "was finished is kept: give the same command again when it has"
            )
        for key, at in list(self.running.items()):
            silent = 0.0 if at.heard is None else self.told - at.heard
            if silent > self.cluster.timeout or not self.queue.is_wanted(at.task):
                self.library.cancel(at.answer, force=True)
                del self.running[key]
                self.queue.lost(at.task, f"it said nothing for {silent:.0f} s")


class _Heard:
    """An actor that remembers what tasks last said until somebody asks."""

    def __init__(self) -> None:
        self.last: dict[int, AttackProgress | None] = {}

    def tell(self, key: int, tick: AttackProgress | None) -> None:
        self.last[key] = tick

    def told(self) -> dict[int, AttackProgress | None]:
        last, self.last = self.last, {}
        return last


def _attack(
    plan: Any, model: Any, images: Any, shard: Shard, key: int, heard: Any, device: str, version: str
) -> Part | HarnessError:
    """Run one shard. Runs in a process of the cluster; an error is an answer."""
    heard.tell.remote(key, None)
    if version != __version__:
        return InvalidInput(f"a node of the Ray cluster has robust-harness {__version__}, not {version}: install that")
    torch.set_num_threads(1)
    told = time.monotonic()

    def report(tick: AttackProgress) -> None:
        nonlocal told
        if time.monotonic() - told > _SECONDS_BETWEEN_REPORTS:
            told = time.monotonic()
            heard.tell.remote(key, tick)

    whole = Shipment(plan, model, images).unpacked()
    here = replace(whole, settings=replace(whole.settings, device=device, workers=1))
    try:
        return evaluation.run_part(here, shard, progress=report)
    except HarnessError as error:
        return HarnessError(str(error))  # its class may not be one that can be pickled
    except OSError as error:
        return HarnessError(system_error(error))
    except Exception as error:
        return unexpected(error)
