"""The way of an evaluation from a model or checkpoint to its `Result`.

The module is not called ``evaluate`` because the package exports the function of that name.
"""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from harness import suites
from harness._version import __version__
from harness.audit import kinds
from harness.audit.flags import Flag
from harness.backends import require_precision
from harness.batchnorm.statistics import STORED, BnStatistics
from harness.engine import executors, preflight, runner
from harness.engine.runner import Finding
from harness.engine.types import AttackProgress
from harness.errors import InvalidInput
from harness.evaluation import reference
from harness.evaluation.environment import environment
from harness.evaluation.target import Subject, checked_samples
from harness.models import Model
from harness.results.record import Result, StepRecord, ThreatRecord, Verdicts
from harness.settings import Settings
from harness.suites import Suite
from harness.threat import ThreatModel
from harness.util.devices import find_device

if TYPE_CHECKING:
    from harness.checkpoints import Checkpoint
    from harness.datasets import Dataset

__all__ = ["Evaluation", "evaluate", "evaluate_checkpoint", "evaluation_id", "examine"]

_ALGORITHM = 1
"""Raised whenever the same inputs may give another verdict, so that old results are not taken for new."""


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
    progress: Callable[[AttackProgress], None] | None = None,
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
        progress: called with an `AttackProgress` as the attack goes on.
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
    progress: Callable[[AttackProgress], None] | None = None,
    **settings: Any,
) -> Evaluation:
    """As `evaluate`, with per-sample verdicts and adversarial examples."""
    x, y = checked_samples(x, y)
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
    progress: Callable[[AttackProgress], None] | None = None,
    **settings: Any,
) -> Evaluation:
    """Attack a registered checkpoint on a data set.

    What the manifest claims is checked against the weights of the parent, where that can be found; a claim
    that they contradict, or that could not be checked, becomes a flag.

    Args:
        threat: may be in normalised units, such as "Linf:0.03@normalized".
        bn_stats: one of `harness.batchnorm.statistics.BN_STATISTICS`; the checkpoint's own model is never changed.
        bn_data: training images, from which "clean" and "adversarial" statistics are estimated.
        checkpoint_dir: where the parent is looked for first.

    Raises:
        InvalidInput: the data set's shape or classes are not the model's, or it has no BN layers whose
            statistics could be others.
    """
    chosen = Settings(**settings)
    if chosen.device is None:
        chosen = Settings(**settings | {"device": find_device()})
    threat = _threat(checkpoint.model, threat)
    statistics = BnStatistics(bn_stats, bn_data, chosen.seed)
    subject = Subject.registered(checkpoint, dataset, statistics, threat, checkpoint_dir)
    if bn_stats != STORED:

        def report(done: float) -> None:
            if progress is not None:
                progress(AttackProgress(f"{bn_stats} BN statistics", done, len(dataset), len(dataset)))

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


def _threat(model: nn.Module, threat: str | ThreatModel) -> ThreatModel:
    normalization = model.normalization if isinstance(model, Model) else None
    return ThreatModel.parse(threat, std=None if normalization is None else normalization.std)


def _run(
    subject: Subject,
    threat: ThreatModel,
    wanted: str | Suite,
    settings: Settings,
    progress: Callable[[AttackProgress], None] | None,
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
    size = executors.count(settings.workers, device)
    is_reference = any(step.attack == suites.REFERENCE for step in suite.steps)
    if size > 1 or device.type == "cuda":
        size = 1 if is_reference else min(size, len(subject.x))
    threads = preflight.threads(1 if device.type == "cpu" and settings.workers != 1 else None)
    with threads, torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        if is_reference:
            finding = _run_reference(subject, model, threat, suite, settings, device)
        else:
            finding = runner.run(
                model,
                subject.x,
                subject.y,
                subject.index,
                threat,
                suite,
                settings,
                device=device,
                size=size,
                folder=None if settings.state_dir is None else settings.state_dir / identity,
                progress=progress,
            )
        # of the threads that it ran with
        where = environment(settings, device=device, passes=finding.passes, batch_size=finding.batch_size, workers=size)
    total = time.perf_counter() - began
    verdicts = finding.verdicts
    result = Result(
        checkpoint=subject.name,
        model=subject.model_record,
        dataset=subject.dataset_record,
        threat=ThreatRecord(norm=threat.norm, eps=threat.eps, radius=threat.radius),
        suite=suite.name,
        seed=settings.seed,
        n=len(subject.x),
        clean_acc=float((verdicts.clean_pred == verdicts.y).mean()),
        robust_acc=float(verdicts.robust.mean()),
        steps=finding.steps,
        flags=[*_known_before(subject, threat), *finding.flags],
        environment=where,
        evaluation_id=identity,
        started=started.isoformat(timespec="seconds"),
        seconds=total,
        model_seconds=finding.model_seconds,
        overhead=finding.busy_seconds / finding.model_seconds if finding.model_seconds > 0 else None,
        harness_version=__version__,
    )
    return Evaluation(result, verdicts, finding.points)


def _run_reference(
    subject: Subject, model: nn.Module, threat: ThreatModel, suite: Suite, settings: Settings, device: torch.device
) -> Finding:
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
    verdicts = Verdicts(
        index=subject.index,
        y=labels,
        clean_pred=clean_pred,
        robust=robust,
        # the reference does not say which of its attacks broke a sample
        broken_by=np.where(correct & ~robust, 0, -1),
        adv_pred=outcome.labels.cpu().numpy(),
        forward=nothing,
        backward=nothing,
    )
    return Finding(
        verdicts=verdicts,
        points=outcome.points.cpu(),
        steps=records,
        flags=list(outcome.flags),
        passes=["as-loaded"],
        batch_size=batch_size,
        model_seconds=0.0,
        busy_seconds=0.0,
    )


def _device(model: nn.Module, asked: str | torch.device | None) -> torch.device:
    if asked is None:
        tensors = [*model.parameters(), *model.buffers()]
        return tensors[0].device if tensors else torch.device("cpu")
    return find_device(asked)


def _known_before(subject: Subject, threat: ThreatModel) -> list[Flag]:
    """The flags that the result has before anything has run."""
    converted = [kinds.EPS_CONVERTED.saying(threat.note, eps=threat.eps)] if threat.note else []
    return [*subject.flags, *converted]


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
    flags = _known_before(subject, threat)
    if flags:  # the same weights under an honest manifest are another record
        inputs["flags"] = [flag.model_dump() for flag in flags]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
