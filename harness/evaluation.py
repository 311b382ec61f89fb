"""Evaluation: a model, samples, a threat model and a suite in; a `Result` out.

>>> result = harness.evaluate(model, x, y, threat="Linf:8/255", suite="autoattack")  # doctest: +SKIP

The module is not called ``evaluate`` because the package exports the function of that name.
"""

from __future__ import annotations

import copy
import hashlib
import json
import platform
import subprocess
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

import harness
from harness import attacks, lineage, preflight, reference, suites, workers
from harness.accelerate import require_precision
from harness.bn_statistics import STORED, BnStatistics
from harness.draws import sample_keys
from harness.engine import Index, Outcome, Pool, Task, Tick
from harness.errors import InvalidInput, ModelError
from harness.heap import keep_freed_memory
from harness.models import Model
from harness.passes import Tally
from harness.result import DatasetRecord, Environment, ModelRecord, Result, StepRecord, ThreatRecord, Verdicts
from harness.resume import Part, State
from harness.settings import Settings
from harness.suites import Step, Suite
from harness.threat import ThreatModel
from harness.workers import Crew

if TYPE_CHECKING:
    from harness.checkpoint import Checkpoint
    from harness.datasets import Dataset

__all__ = ["Evaluation", "Subject", "evaluate", "evaluate_checkpoint", "evaluation_id", "examine"]

_ALGORITHM = 1
"""Raised whenever the same inputs may give another verdict, so that old results are not taken for new."""

_SQUARE_GAIN = 0.002
"""What Square may add to the gradient attacks before it is a sign of masked gradients (as in AutoAttack)."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A result with what it was made of.

    Attributes:
        result: the record.
        verdicts: per sample.
        points: ``[n, ...]`` the confirmed adversarial example of each sample, the clean image where there is none.
    """

    result: Result
    verdicts: Verdicts
    points: Tensor


def evaluate(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    threat: str | ThreatModel,
    suite: str | Suite = "autoattack",
    name: str = "model",
    progress: Callable[[Tick], None] | None = None,
    **settings: Any,
) -> Result:
    """Attack any model and say how many samples stand.

    Args:
        model: images in [0, 1] to logits ``[n, k]``, in eval mode; preprocessing lives inside it.
        x: images ``[n, ...]`` in [0, 1], floating point.
        y: true classes, integers ``[n]``.
        threat: for example "Linf:8/255", "L2:0.5", "L1:12"; "Linf:0.03@normalized" for a `harness.models.Model`.
        suite: a registered suite, a TOML file of steps, or a `Suite`.
        name: what to call the model in the result.
        progress: called with a `Tick` as the attack goes on.
        **settings: fields of `Settings`: seed, batch_size, precision, device, workers, ...

    Raises:
        InvalidInput: samples, labels or settings that cannot be used.
        ModelError: the model misbehaved; what was finished is kept in ``state_dir``.
    """
    return examine(model, x, y, threat=threat, suite=suite, name=name, progress=progress, **settings).result


def examine(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    threat: str | ThreatModel,
    suite: str | Suite = "autoattack",
    name: str = "model",
    progress: Callable[[Tick], None] | None = None,
    **settings: Any,
) -> Evaluation:
    """As `evaluate`, with per-sample verdicts and adversarial examples."""
    x, y = _checked_samples(x, y)
    subject = Subject.plain(name, model, x, y)
    return _run(subject, _threat(model, threat), suite, Settings(**settings), progress)


def evaluate_checkpoint(
    checkpoint: Checkpoint,
    dataset: Dataset,
    *,
    threat: str | ThreatModel,
    suite: str,
    bn_stats: str = STORED,
    bn_data: Dataset | None = None,
    checkpoint_dir: str | Path | None = None,
    progress: Callable[[Tick], None] | None = None,
    **settings: Any,
) -> Evaluation:
    """Attack a registered checkpoint on a data set.

    What the manifest claims is checked against the weights of the parent, where that can be found; a claim
    that they contradict, or that could not be checked, becomes a flag.

    Args:
        threat: may be in normalised units, such as "Linf:0.03@normalized".
        bn_stats: one of `harness.bn_statistics.BN_STATISTICS`; the checkpoint's own model is never changed.
        bn_data: training images, from which "clean" and "adversarial" statistics are estimated.
        checkpoint_dir: where the parent is looked for first.

    Raises:
        InvalidInput: the data set's shape or classes are not the model's, or it has no BN layers whose
            statistics could be others.
    """
    chosen = Settings(**settings)
    if chosen.device is None:
        chosen = Settings(**settings | {"device": "cuda" if torch.cuda.is_available() else "cpu"})
    threat = _threat(checkpoint.model, threat)
    statistics = BnStatistics(bn_stats, bn_data, chosen.seed)
    subject = Subject.registered(checkpoint, dataset, statistics, threat, checkpoint_dir)
    if bn_stats != STORED:

        def report(done: float) -> None:
            if progress is not None:
                progress(Tick(f"{bn_stats} BN statistics", done, len(dataset), len(dataset)))

        device = _device(checkpoint.model, chosen.device)
        model = statistics.applied(checkpoint.model, threat, device=device, report=report)
        subject = replace(subject, model=model)
    return _run(subject, threat, suite, chosen, progress)


def evaluation_id(
    checkpoint: Checkpoint,
    dataset: Dataset,
    threat: str | ThreatModel,
    suite: str,
    *,
    bn_stats: str = STORED,
    bn_data: Dataset | None = None,
    checkpoint_dir: str | Path | None = None,
    **settings: Any,
) -> str:
    """Hash of everything that decides the record of `evaluate_checkpoint`, which takes the same arguments; equal
    hashes need no second run."""
    chosen = Settings(**settings)
    threat = _threat(checkpoint.model, threat)
    statistics = BnStatistics(bn_stats, bn_data, chosen.seed)
    subject = Subject.registered(checkpoint, dataset, statistics, threat, checkpoint_dir)
    return _identity(subject, threat, suites.get(suite, threat), chosen)


@dataclass(frozen=True, eq=False)
class Subject:
    """What is evaluated: a model and samples, with what is known of both."""

    name: str
    model: nn.Module
    x: Tensor
    y: Tensor
    index: Index
    model_record: ModelRecord
    dataset_record: DatasetRecord
    warnings: tuple[str, ...] = ()

    @classmethod
    def plain(cls, name: str, model: nn.Module, x: Tensor, y: Tensor) -> Subject:
        """Any model on any samples."""
        from harness.checkpoint import weights_sha256

        record = ModelRecord(
            architecture=f"{type(model).__module__}.{type(model).__qualname__}",
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            sha256=weights_sha256(model),
        )
        data = DatasetRecord(
            name="samples",
            split="given",
            size=len(x),
            classes=int(y.max()) + 1,
            shape=list(x.shape[1:]),
            sha256=_samples_sha256(x, y),
        )
        return cls(name, model, x, y, np.arange(len(x), dtype=np.int64), record, data)

    @classmethod
    def registered(
        cls,
        checkpoint: Checkpoint,
        dataset: Dataset,
        statistics: BnStatistics,
        threat: ThreatModel,
        checkpoint_dir: str | Path | None = None,
    ) -> Subject:
        """A checkpoint on a data set, still with its stored statistics.

        Args:
            statistics: those that it is to be evaluated with. threat: what adversarial ones are estimated under.
            checkpoint_dir: where its parent is looked for first.
        """
        manifest = checkpoint.manifest
        if tuple(manifest.shape) != dataset.shape:
            raise InvalidInput(
                f"{manifest.name} takes images of shape {list(manifest.shape)}, the data set {dataset.name} has "
                f"{list(dataset.shape)}: choose a data set of that shape with --dataset"
            )
        if manifest.classes != len(dataset.classes):
            raise InvalidInput(
                f"{manifest.name} knows {manifest.classes} classes, the data set {dataset.name} has "
                f"{len(dataset.classes)}: choose another data set with --dataset"
            )
        statistics.check(checkpoint.model)
        norm = manifest.normalization
        record = ModelRecord(
            architecture=manifest.architecture,
            norm_layer=manifest.norm_layer,
            normalization=None if norm is None else {"mean": list(norm.mean), "std": list(norm.std)},
            parameters=manifest.parameters,
            trained_parameters=manifest.trained_parameters,
            sha256=manifest.weights_sha256,
            file_sha256=manifest.sha256,
            regime=manifest.regime,
            parent=manifest.parent.name if manifest.parent else None,
            parent_sha256=manifest.parent.weights_sha256 if manifest.parent else None,
            training=manifest.training,
            bn_stats=statistics.kind,
            bn_stats_facts=statistics.facts(threat),
        )
        data = DatasetRecord(
            name=dataset.name,
            split=dataset.split,
            size=dataset.size,
            classes=len(dataset.classes),
            shape=list(dataset.shape),
            sha256=dataset.sha256,
        )
        index = dataset.indices.numpy().astype(np.int64)
        warnings = (*_contradiction(checkpoint, checkpoint_dir), *statistics.warnings(dataset))
        return cls(manifest.name, checkpoint.model, dataset.x, dataset.y, index, record, data, warnings)


def _contradiction(checkpoint: Checkpoint, checkpoint_dir: str | Path | None) -> tuple[str, ...]:
    """What the weights say against the manifest's claim of a regime, or that they could not be asked."""
    parent = lineage.parent_of(checkpoint, checkpoint_dir=checkpoint_dir)
    told = lineage.verify_claim(checkpoint, parent)
    if told.unverified:
        return (f"lineage: the claim of {told.regime} could not be verified ({told.reason})",)
    if told.status != "contradicted":
        return ()
    return (f"lineage: the manifest {told.reason}" + (f"; its parent is {told.parent}" if told.parent else ""),)


def _threat(model: nn.Module, threat: str | ThreatModel) -> ThreatModel:
    normalization = model.normalization if isinstance(model, Model) else None
    return ThreatModel.parse(threat, std=None if normalization is None else normalization.std)


def _run(
    subject: Subject,
    threat: ThreatModel,
    wanted: str | Suite,
    settings: Settings,
    progress: Callable[[Tick], None] | None,
) -> Evaluation:
    suite = suites.get(wanted, threat) if isinstance(wanted, str) else wanted
    started, began = datetime.now(UTC), time.perf_counter()
    identity = _identity(subject, threat, suite, settings)
    device = _device(subject.model, settings.device)
    require_precision(settings.precision, device)
    if settings.graphs and device.type != "cuda":
        raise InvalidInput(f"CUDA graphs need a CUDA device, and this run is on {device}; leave --graphs out")
    # on a copy, as moving the caller's model would be felt by the caller
    model = subject.model if _device(subject.model, None) == device else copy.deepcopy(subject.model).to(device)
    size = workers.count(settings.workers, device)
    is_reference = any(step.attack == suites.REFERENCE for step in suite.steps)
    if size > 1 or device.type == "cuda":
        size = 1 if is_reference else min(size, len(subject.x))
    threads = preflight.threads(1 if device.type == "cpu" and settings.workers != 1 else None)
    with threads, torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        if is_reference:
            finding = _run_reference(subject, model, threat, suite, settings, device)
        else:
            finding = _run_engine(subject, model, threat, suite, settings, device, size, identity, progress)
    total = time.perf_counter() - began
    result = Result(
        checkpoint=subject.name,
        model=subject.model_record,
        dataset=subject.dataset_record,
        threat=ThreatRecord(norm=threat.norm, eps=threat.eps, radius=threat.radius),
        suite=suite.name,
        seed=settings.seed,
        n=len(subject.x),
        clean_acc=float(finding.correct.mean()),
        robust_acc=float(finding.robust.mean()),
        steps=finding.steps,
        flags=[*subject.warnings, *filter(None, [threat.note]), *finding.flags],
        environment=_environment(settings, device, finding, size),
        evaluation_id=identity,
        started=started.isoformat(timespec="seconds"),
        seconds=total,
        model_seconds=finding.model_seconds,
        overhead=finding.busy_seconds / finding.model_seconds if finding.model_seconds > 0 else None,
        harness_version=harness.__version__,
    )
    verdicts = Verdicts(
        index=subject.index,
        y=subject.y.numpy(),
        clean_pred=finding.clean_pred,
        robust=finding.robust,
        broken_by=finding.broken_by,
        adv_pred=finding.adv_pred,
        forward=finding.forward,
        backward=finding.backward,
    )
    return Evaluation(result, verdicts, finding.points)


@dataclass
class _Finding:
    """What either engine or reference brings home."""

    clean_pred: np.ndarray[Any, Any]
    correct: np.ndarray[Any, Any]
    robust: np.ndarray[Any, Any]
    broken_by: np.ndarray[Any, Any]
    adv_pred: np.ndarray[Any, Any]
    forward: np.ndarray[Any, Any]
    backward: np.ndarray[Any, Any]
    points: Tensor
    steps: list[StepRecord]
    flags: list[str]
    passes: list[str]
    batch_size: int
    model_seconds: float
    busy_seconds: float


def _run_engine(
    subject: Subject,
    model: nn.Module,
    threat: ThreatModel,
    suite: Suite,
    settings: Settings,
    device: torch.device,
    size: int,
    identity: str,
    progress: Callable[[Tick], None] | None,
) -> _Finding:
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    dtype = dtype if dtype == torch.float64 else torch.float32
    x = subject.x.to(dtype)
    pool = Pool(x, subject.y, sample_keys(x), subject.index)
    kept = device.type == "cpu" and keep_freed_memory()
    looked = preflight.look(model, pool, threat, suite, settings, device)
    if kept:
        looked.notes.append("kept-heap")
    state = State(None if settings.state_dir is None else settings.state_dir / identity)
    crew = workers.crew(size, pool, looked.machine, state)
    try:
        campaign = _Campaign(pool, suite, threat, settings.seed, looked, crew, state, progress)
        campaign.run()
    finally:
        crew.close()
    state.clear()
    return campaign.finding()


class _Campaign:
    """A suite over a pool: which steps are done, who stands, and what it has cost."""

    def __init__(
        self,
        pool: Pool,
        suite: Suite,
        threat: ThreatModel,
        seed: int,
        looked: preflight.Look,
        crew: Crew,
        state: State,
        progress: Callable[[Tick], None] | None,
    ) -> None:
        self.pool, self.suite, self.threat, self.seed = pool, suite, threat, seed
        self.looked, self.crew, self.state, self.progress = looked, crew, state, progress
        self.points = pool.x.clone()
        self.broken_by = np.full(len(pool), -1, dtype=np.int64)
        self.forward = np.zeros(len(pool), dtype=np.int64)
        self.backward = np.zeros(len(pool), dtype=np.int64)
        self.records: list[StepRecord] = []
        self.flags: list[str] = list(looked.flags)
        self.busy_seconds = self.model_seconds = 0.0
        self.position, self.next_run = 0, 0
        self.open = _OpenStep(len(pool))

    def run(self) -> None:
        """Run the suite to its end, from the saved state if there is one."""
        saved = self.state.pool()
        if saved is not None and not self.looked.recognises(saved["logits"]):
            # the same name and weights, but other code around them: that state is another model's
            saved = None
        if saved is None:
            self._clean()
        else:
            self._restore(saved)
        parts = [part for part in self.state.parts() if saved is not None]
        try:
            while self.position < len(self.suite.steps):
                step = self.suite.steps[self.position]
                attack = attacks.build(step.attack, self.threat, self.looked.classes, **step.parameters)
                while self.next_run < attack.runs and self.standing.any():
                    self._some_runs(step, attack, parts)
                    parts = []
                    self.state.save_pool(self._content())
                self._close(step, attack)
            self._look_again()
        except ModelError:
            self.state.save_pool(self._content(), force=True)
            raise

    def _look_again(self) -> None:
        """Flag a model that no longer answers as it did before the attack."""
        now = self.looked.machine.judge.logits(self.pool.x[:1].to(self.looked.machine.device), "after the attack").cpu()
        self.forward[0] += 1
        if not self.looked.recognises(now):
            self.flags.append(
                "the model no longer answers as it did before the attack: it keeps state between calls, "
                "so that its verdicts depend on the passes before them"
            )

    @property
    def standing(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        standing: np.ndarray[Any, np.dtype[np.bool_]] = self.correct & (self.broken_by < 0)
        return standing

    def _clean(self) -> None:
        began = time.perf_counter()
        logits, seconds = self.crew.logits(np.arange(len(self.pool)))
        self._take_logits(logits)
        self.forward += 1 + self.looked.forward
        self.backward += self.looked.backward
        self.model_seconds += seconds
        self.busy_seconds += (time.perf_counter() - began) if self.crew.size == 1 else seconds
        preflight.refuse_nan(logits, self.pool.names)
        # parts in flight are of use only beside the pool that they were started from
        self.state.save_pool(self._content(), force=True)

    def _take_logits(self, logits: Tensor) -> None:
        self.logits = logits
        self.clean_pred = logits.argmax(dim=1).numpy()
        self.correct = self.clean_pred == self.pool.y.numpy()
        self.adv_pred = self.clean_pred.copy()

    def _some_runs(self, step: Step, attack: attacks.Attack, parts: list[Part]) -> None:
        """The next runs of a step, side by side where few samples are left, shared out over the crew."""
        standing = np.flatnonzero(self.standing)
        fitting = [p for p in parts if (p.step, p.first) == (self.position, self.next_run)]
        fitting = [p for p in fitting if np.isin(p.index.numpy(), standing).all()]
        lanes = fitting[0].lanes if fitting else self._lanes(attack, len(standing))
        fitting = _disjoint([part for part in fitting if part.lanes == lanes])

        def task(index: Index, runs: Index) -> Task:
            logits = self.logits[torch.from_numpy(index)]
            return Task(self.position, step.name, attack, self.seed, self.next_run, lanes, index, runs, logits)

        assignments: list[workers.Assignment] = [
            (task(part.index.numpy(), part.runs.numpy()), part.snapshot) for part in fitting
        ]
        index = np.repeat(standing, lanes)
        runs = np.tile(np.arange(self.next_run, self.next_run + lanes), len(standing))
        covered = {pair for part in fitting for pair in part.pairs}
        rest = np.array([pair not in covered for pair in zip(index.tolist(), runs.tolist(), strict=True)])
        if rest.any():
            index, runs = index[rest], runs[rest]
            shares = workers.shares(index, self.crew.size)
            assignments += [(task(index[share], runs[share]), None) for share in shares]
        total = int(self.correct.sum())

        def report(done: float, left: int) -> None:
            if self.progress is not None:
                # a sample that two workers share is counted by both
                so_far = (self.next_run + done * lanes) / attack.runs
                self.progress(Tick(step.name, so_far, min(left, len(standing)), total))

        began = time.perf_counter()
        for outcome in self.crew.run(assignments, report):
            self._merge(outcome)
        self.open.seconds += time.perf_counter() - began
        self.next_run += lanes

    def _lanes(self, attack: attacks.Attack, standing: int) -> int:
        """How many of the next runs go side by side: as many as fill a worker's passes, in rounds of equal size."""
        machine, left = self.looked.machine, attack.runs - self.next_run
        most = min(machine.lane_size * attack.groups, machine.batch_size) * self.crew.size // standing
        rounds = -(-left // max(1, most))
        return -(-left // rounds)

    def _merge(self, outcome: Outcome) -> None:
        # two workers may have broken the same sample, in different runs
        fresh = [position for position, row in enumerate(outcome.broken) if self.broken_by[row] < 0]
        if fresh:
            rows = np.array(outcome.broken)[fresh]
            self.points[torch.from_numpy(rows)] = torch.stack([outcome.points[position] for position in fresh])
            self.broken_by[rows] = self.position
            self.adv_pred[rows] = np.array(outcome.predicted)[fresh]
        self.open.tally.add(outcome.tally)
        self.open.judged += outcome.judged
        self.open.rejected += outcome.rejected
        self.open.busy_seconds += outcome.seconds

    def _close(self, step: Step, attack: attacks.Attack) -> None:
        """Write the record of a step that has run its course."""
        after = int(self.standing.sum())
        before = after + int((self.broken_by == self.position).sum())
        tally = self.open.tally
        self.records.append(
            StepRecord(
                name=step.name,
                attack=step.attack,
                parameters=dict(step.parameters),
                before=before,
                after=after,
                forward=int(tally.forward.sum()),
                backward=int(tally.backward.sum()),
                judge=self.open.judged,
                rejected=self.open.rejected,
                seconds=self.open.seconds,
                model_seconds=tally.model_seconds,
                notes=list(attack.notes),
            )
        )
        self.flags += [f"{step.name}: {note}" for note in attack.notes]
        flat = int(tally.flat.sum())
        if flat:
            self.flags.append(
                f"{step.name}: {flat} of {before} samples had a gradient of exactly zero, "
                "so gradient attacks may be blind there"
            )
        if step.attack == "square" and self.records[:-1] and (before - after) / len(self.pool) > _SQUARE_GAIN:
            self.flags.append(
                f"{step.name} broke {before - after} samples that the gradient attacks left standing: "
                "the model may mask its gradients"
            )
        self.forward += tally.forward
        self.backward += tally.backward
        self.model_seconds += tally.model_seconds
        self.busy_seconds += self.open.busy_seconds
        self.position, self.next_run = self.position + 1, 0
        self.open = _OpenStep(len(self.pool))
        self.state.save_pool(self._content())

    def _content(self) -> dict[str, Any]:
        broken = torch.from_numpy(np.flatnonzero(self.broken_by >= 0))
        return {
            "logits": self.logits,
            "broken": broken,
            "points": self.points[broken],
            "broken_by": torch.from_numpy(self.broken_by),
            "adv_pred": torch.from_numpy(self.adv_pred),
            "forward": torch.from_numpy(self.forward),
            "backward": torch.from_numpy(self.backward),
            "records": json.dumps([record.model_dump() for record in self.records]),
            "flags": list(self.flags),
            "seconds": [self.busy_seconds, self.model_seconds],
            "position": [self.position, self.next_run],
            "open": {
                "forward": torch.from_numpy(self.open.tally.forward),
                "backward": torch.from_numpy(self.open.tally.backward),
                "flat": torch.from_numpy(self.open.tally.flat),
                "numbers": [
                    self.open.tally.model_seconds,
                    self.open.seconds,
                    self.open.busy_seconds,
                    self.open.judged,
                    self.open.rejected,
                ],
            },
        }

    def _restore(self, saved: dict[str, Any]) -> None:
        self._take_logits(saved["logits"])
        self.points[saved["broken"]] = saved["points"]
        self.broken_by = saved["broken_by"].numpy()
        self.adv_pred = saved["adv_pred"].numpy()
        self.forward, self.backward = saved["forward"].numpy(), saved["backward"].numpy()
        self.records = [StepRecord(**record) for record in json.loads(saved["records"])]
        self.flags = list(saved["flags"])
        self.busy_seconds, self.model_seconds = saved["seconds"]
        self.position, self.next_run = saved["position"]
        opened = saved["open"]
        model_seconds, seconds, busy, judged, rejected = opened["numbers"]
        tally = Tally(opened["forward"].numpy(), opened["backward"].numpy(), opened["flat"].numpy(), model_seconds)
        self.open = _OpenStep(len(self.pool), tally, seconds, busy, int(judged), int(rejected))

    def finding(self) -> _Finding:
        flags = list(dict.fromkeys(self.flags))
        if preflight.probabilities(self.logits):
            flags.append("the outputs look like probabilities: attacks need the logits before the softmax")
        return _Finding(
            clean_pred=self.clean_pred,
            correct=self.correct,
            robust=self.standing,
            broken_by=self.broken_by,
            adv_pred=self.adv_pred,
            forward=self.forward,
            backward=self.backward,
            points=self.points,
            steps=self.records,
            flags=flags,
            passes=self.looked.notes,
            batch_size=self.looked.machine.passes.limit,
            model_seconds=self.model_seconds,
            busy_seconds=self.busy_seconds,
        )


def _disjoint(parts: list[Part]) -> list[Part]:
    """The parts that are furthest on, no run of a sample in two (another number of workers leaves such behind)."""
    chosen: list[Part] = []
    covered: set[tuple[int, int]] = set()
    for part in sorted(parts, key=lambda part: part.snapshot.iteration, reverse=True):
        if covered.isdisjoint(part.pairs):
            chosen.append(part)
            covered |= part.pairs
    return chosen


class _OpenStep:
    """What the current step has cost over the runs that are done."""

    def __init__(
        self,
        n: int,
        tally: Tally | None = None,
        seconds: float = 0.0,
        busy_seconds: float = 0.0,
        judged: int = 0,
        rejected: int = 0,
    ) -> None:
        self.tally = tally or Tally.empty(n)
        self.seconds, self.busy_seconds = seconds, busy_seconds
        self.judged, self.rejected = judged, rejected


def _run_reference(
    subject: Subject, model: nn.Module, threat: ThreatModel, suite: Suite, settings: Settings, device: torch.device
) -> _Finding:
    batch_size = 250 if settings.batch_size == "auto" else int(settings.batch_size)
    (step,) = suite.steps
    x, y = subject.x.to(device), subject.y.to(device)
    with torch.no_grad():
        clean_pred = torch.cat([model(part).argmax(dim=1) for part in torch.split(x, batch_size)]).cpu().numpy()
    outcome = reference.run(
        model,
        x,
        y,
        threat,
        version=step.parameters["version"],
        seed=settings.seed,
        batch_size=batch_size,
        device=device,
    )
    labels = subject.y.numpy()
    robust, correct = outcome.robust.cpu().numpy(), clean_pred == labels
    records = [
        StepRecord(
            name=row.name,
            attack=suites.REFERENCE,
            parameters={},
            before=row.before,
            after=row.after,
            forward=row.forward,
            backward=row.backward,
            seconds=row.seconds,
            model_seconds=0.0,
        )
        for row in outcome.steps
        if row.name != "clean"
    ]
    nothing = np.zeros(len(labels), dtype=np.int64)
    return _Finding(
        clean_pred=clean_pred,
        correct=correct,
        robust=robust,
        # the reference does not say which of its attacks broke a sample
        broken_by=np.where(correct & ~robust, 0, -1),
        adv_pred=outcome.labels.cpu().numpy(),
        forward=nothing,
        backward=nothing,
        points=outcome.points.cpu(),
        steps=records,
        flags=list(outcome.flags),
        passes=["as-loaded"],
        batch_size=batch_size,
        model_seconds=0.0,
        busy_seconds=0.0,
    )


def _checked_samples(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Samples on the CPU, or what is wrong with them.

    Raises:
        InvalidInput: see the sentences.
    """
    if not isinstance(x, Tensor) or not isinstance(y, Tensor):
        raise InvalidInput(f"x and y must be tensors, got {type(x).__name__} and {type(y).__name__}")
    if not x.is_floating_point():
        raise InvalidInput(f"x must be floating point in [0, 1], got {x.dtype}; for bytes pass x.float() / 255")
    if x.dim() < 2:
        raise InvalidInput(f"x must be a batch [n, ...], got shape {list(x.shape)}; for one image pass x[None]")
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise InvalidInput(f"y must hold integer classes, got {y.dtype}")
    if y.dim() != 1 or len(y) != len(x):
        raise InvalidInput(f"y must be one class per sample, [{len(x)}], got shape {list(y.shape)}")
    if len(x) == 0:
        raise InvalidInput("there are no samples to evaluate (n = 0)")
    if int(y.min()) < 0:
        raise InvalidInput(f"classes must not be negative, got {int(y.min())} for sample {int(y.argmin())}")
    x, y = x.detach().to("cpu"), y.detach().to("cpu", torch.int64)
    flat = x.flatten(1)
    # a NaN fails the comparison as well
    bad = (~((flat >= 0) & (flat <= 1)).all(dim=1)).nonzero().squeeze(1)
    if len(bad):
        worst = int(bad[0])
        low, high = float(flat[worst].min()), float(flat[worst].max())
        raise InvalidInput(
            f"x must lie in [0, 1], but sample {worst} ranges from {low:.6g} to {high:.6g} ({len(bad)} such samples); "
            "normalisation belongs inside the model"
        )
    return x, y


def _device(model: nn.Module, asked: str | torch.device | None) -> torch.device:
    if asked is None:
        tensors = [*model.parameters(), *model.buffers()]
        return tensors[0].device if tensors else torch.device("cpu")
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        raise InvalidInput(f"unknown device {str(asked)!r}: expected cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise InvalidInput(f"unknown device {str(asked)!r}: expected cpu, cuda or cuda:N")
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise InvalidInput(f"device {asked} is not there: {torch.cuda.device_count()} CUDA devices are; use cpu")
    return device


def _identity(subject: Subject, threat: ThreatModel, suite: Suite, settings: Settings) -> str:
    record = subject.model_record
    inputs = {
        "algorithm": _ALGORITHM,
        # what the record says of the checkpoint: the same weights under another name or claim are another record
        "checkpoint": [subject.name, record.regime, record.parent, record.parent_sha256],
        "weights": record.sha256,
        "architecture": record.architecture,
        "norm_layer": record.norm_layer,
        "normalization": record.normalization,
        "data": subject.dataset_record.sha256,
        "threat": [threat.norm, threat.radius],
        "suite": suite.name,
        "steps": [asdict(step) for step in suite.steps],
        "seed": settings.seed,
        "precision": settings.precision,
    }
    if any(step.attack == suites.REFERENCE for step in suite.steps):
        inputs["batch_size"] = settings.batch_size  # the reference draws its random numbers per batch
    if record.bn_stats != STORED:
        inputs["bn_stats"] = [record.bn_stats, record.bn_stats_facts]
    if record.bn_stats == "batch":
        inputs["packing"] = [settings.batch_size, settings.workers]
    warnings = [*subject.warnings, threat.note]
    if any(warnings):  # the same weights under an honest manifest are another record
        inputs["warnings"] = warnings
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _samples_sha256(x: Tensor, y: Tensor) -> str:
    digest = hashlib.sha256(f"{x.dtype}{list(x.shape)}".encode())
    digest.update(np.ascontiguousarray(x.numpy()).data)
    digest.update(np.ascontiguousarray(y.numpy()).data)
    return digest.hexdigest()


def _environment(settings: Settings, device: torch.device, finding: _Finding, size: int) -> Environment:
    commit, dirty = _git()
    named = ("torch", "torchvision", "pyautoattack", "robustbench", "numpy")
    return Environment(
        versions={name: metadata.version(name) for name in named},
        python=platform.python_version(),
        platform=platform.platform(),
        processor=torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        device=str(device),
        precision=settings.precision,
        passes=finding.passes,
        batch_size=finding.batch_size,
        workers=size,
        threads=1 if size > 1 else torch.get_num_threads(),
        git_commit=commit,
        git_dirty=dirty,
    )


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


@cache
def _git() -> tuple[str | None, bool | None]:
    """Commit and dirty flag of the checkout that this package runs from, if it runs from one."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None, None

    def git(*arguments: str) -> str:
        answer = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
        return answer.stdout.strip()

    try:
        # only the package decides what a result means; an edited README does not make it dirty
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", "harness"))
    except (OSError, subprocess.CalledProcessError):
        return None, None
