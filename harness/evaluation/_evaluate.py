"""Running a plan, and the functions that make one and run it at once.

The module is not called ``evaluate`` because the package exports the function of that name.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from harness._version import __version__
from harness.audit import indicators, plausible
from harness.audit.flags import Flag
from harness.audit.trials import Trial
from harness.batchnorm.statistics import STORED
from harness.engine import runner
from harness.engine.snapshots import State
from harness.engine.types import AttackProgress
from harness.evaluation import reference
from harness.evaluation.display import displayed
from harness.evaluation.environment import environment
from harness.evaluation.placement import place
from harness.evaluation.plan import Plan, plan_any, plan_checkpoint, plan_model
from harness.evaluation.time_left import TimeLeft
from harness.results.public import Result as PublicResult
from harness.results.record import Result, StepRecord, Verdicts
from harness.suites import Suite
from harness.threat import Threat, ThreatModel
from harness.util.images import Images
from harness.util.source_text import source_sha256
from harness.util.torch_state import pinned, threads

if TYPE_CHECKING:
    from harness.checkpoints import Checkpoint
    from harness.datasets import Dataset

__all__ = ["Evaluation", "evaluate", "evaluate_checkpoint", "evaluation_id", "examine", "run"]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A result with what it was made of.

    Attributes:
        result: the record.
        verdicts: per sample.
        points: ``[n, ...]`` the confirmed adversarial example of each sample, the clean image where there is none.
        state: what a run that is killed now would continue from, if `run` was told to keep it.
        logits: ``[n, k]`` the plain model's output on the clean images, where it is known.
        trials: what the indicators of attack failure found out of some samples.
    """

    result: Result
    verdicts: Verdicts
    points: Images
    state: State = field(default_factory=lambda: State(None))
    logits: Tensor | None = None
    trials: list[Trial] = field(default_factory=list)


def evaluate(
    model: nn.Module | Callable[[Tensor], Tensor] | Checkpoint,
    x: Any,
    y: Any = None,
    *,
    threat: Threat | None = None,
    suite: str | Suite = "autoattack",
    name: str | None = None,
    progress: bool | Callable[[AttackProgress], None] | None = None,
    **settings: Any,
) -> PublicResult:
    """Attack any model and count the samples that survive.

    What torch keeps globally (gradients off, autocast, default dtype, precision) does not matter: it is set as the
    evaluation needs it, and restored.

    Args:
        model: images in [0, 1] to logits ``[n, k]``, in eval mode; preprocessing lives inside it. A module, any
            function, or a registered checkpoint, whose result is then the one that ``harness evaluate`` makes.
        x: images ``[n, ...]``, floating point in [0, 1] or bytes, as a tensor or an array; or both images and labels: a
            `harness.datasets.Dataset`, a data set of torch or torchvision, or a `DataLoader`.
        y: true classes, integers ``[n]``; left out where ``x`` has them.
        threat: for example "Linf:8/255", ("Linf", 8 / 255), "L2:0.5", "L1:12"; "Linf:0.03@normalized" for a
            `harness.models.Model`. May be left out for a harness data set or a checkpoint that names one.
        suite: a registered suite, a TOML file of steps, or a `Suite`.
        name: what to call the model in the result; "model", or the checkpoint's name, if not given.
        progress: True shows on stderr how far the attack is; a function is called with an `AttackProgress` each time.
        **settings: fields of `Settings`: seed, batch_size, precision, device, workers, ...

    Raises:
        InvalidInput: a model, samples, labels or settings that cannot be used.
        ModelError: the model misbehaved; what was finished is kept in ``state_dir``.
    """
    plan = plan_any(model, x, y, threat=threat, suite=suite, name=name, **settings)
    time_left = TimeLeft.of(plan) if progress is True else None
    with displayed(plan.target.name, plan.suite.name, progress, time_left) as report:
        done = run(plan, progress=report)
    return PublicResult.of(done.result, done.verdicts, points=done.points, clean=plan.target.x)


def examine(
    model: nn.Module | Callable[[Tensor], Tensor],
    x: Any,
    y: Any = None,
    *,
    threat: Threat,
    suite: str | Suite = "autoattack",
    name: str = "model",
    progress: Callable[[AttackProgress], None] | None = None,
    **settings: Any,
) -> Evaluation:
    """As `evaluate`, with per-sample verdicts and adversarial examples."""
    return run(plan_model(model, x, y, threat=threat, suite=suite, name=name, **settings), progress=progress)


def evaluate_checkpoint(
    checkpoint: Checkpoint,
    dataset: Dataset,
    *,
    threat: str | ThreatModel,
    suite: str | Suite,
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
    asked: dict[str, Any] = {"bn_stats": bn_stats, "bn_data": bn_data, "checkpoint_dir": checkpoint_dir, **settings}
    return run(plan_checkpoint(checkpoint, dataset, threat=threat, suite=suite, **asked), progress=progress)


def evaluation_id(
    checkpoint: Checkpoint, dataset: Dataset, threat: str | ThreatModel, suite: str | Suite, **settings: Any
) -> str:
    """Hash of everything that decides the verdicts of `evaluate_checkpoint`, which takes the same arguments; equal
    hashes need no second run."""
    return plan_checkpoint(checkpoint, dataset, threat=threat, suite=suite, **settings).evaluation_id


def run(
    plan: Plan, *, progress: Callable[[AttackProgress], None] | None = None, keep_state: bool = False
) -> Evaluation:
    """Run a plan, whatever is stored.

    Args:
        keep_state: leave what is in ``state_dir`` there, for a caller who stores the result and then clears
            ``Evaluation.state``, so that nothing is lost if that fails.

    Raises:
        InvalidInput: this machine cannot run it, or labels beyond the model's classes.
        ModelError: the model misbehaved; what was finished is kept in ``state_dir``.
    """
    target, settings = plan.target, plan.settings
    # what can be known before the attack is found out before it
    flags, (x, y, names) = [*plan.flags, *plan.checked], plan.samples
    placement = place(plan)
    device, size = placement.device, placement.workers
    attack = reference.run if reference.runs(plan.suite) else runner.run
    with pinned(device, dtype=target.dtype), torch.cuda.device(device) if _is_gpu(device) else nullcontext():
        model = target.prepared(plan.threat, device, progress)
        started, began = datetime.now(UTC), time.perf_counter()
        flags += plan.audited(model, device)
        with threads(1 if device.type == "cpu" and settings.workers != 1 else None):
            finding = attack(
                model,
                _usable(x),
                y.clone() if y.is_inference() else y,
                names,
                plan.threat,
                plan.suite,
                settings,
                device=device,
                size=size,
                folder=plan.state.folder,
                progress=progress,
            )
            trials, failed = plan.probed(model, device, finding, flags)
            found = [*finding.flags, *indicators.flags(trials, len(target.x)), *failed]
            # of the threads that it ran with
            where = environment(
                settings, device=device, passes=finding.passes, batch_size=finding.batch_size, workers=size
            )
    verdicts = finding.verdicts
    result = Result(
        **plan.description,
        seed=settings.seed,
        n=len(verdicts),
        clean_acc=float((verdicts.clean_pred == verdicts.y).mean()),
        robust_acc=float(verdicts.robust.mean()),
        steps=[_with_source(step) for step in finding.steps],
        flags=_each_doubt_once(flags, [*found, *_guessing(verdicts, target.dataset_record.classes)]),
        environment=where,
        evaluation_id=plan.evaluation_id,
        record_id=plan.record_id,
        started=started.isoformat(timespec="seconds"),
        recorded=datetime.now(UTC).isoformat(timespec="microseconds"),
        seconds=time.perf_counter() - began,
        model_seconds=finding.model_seconds,
        overhead=finding.busy_seconds / finding.model_seconds if finding.model_seconds > 0 else None,
        harness_version=__version__,
    )
    if not keep_state:
        finding.state.clear()
    return Evaluation(result, verdicts, finding.points, finding.state, finding.logits, trials)


def _guessing(verdicts: Verdicts, classes: int) -> tuple[Flag, ...]:
    return tuple(plausible.guessing(verdicts.y, verdicts.clean_pred, classes))


def _each_doubt_once(before: list[Flag], found: list[Flag]) -> list[Flag]:
    """All flags, but for those of the attack that say without figures what was flagged before it."""
    known = {flag.code for flag in before}
    return [*before, *(flag for flag in found if flag.figures or flag.code not in known)]


def _is_gpu(device: torch.device) -> bool:
    return device.type == "cuda"


def _usable(x: Images) -> Images:
    """The images, or a copy of a tensor that was made in the caller's inference mode and takes part in no gradient."""
    return x.clone() if isinstance(x, Tensor) and x.is_inference() else x


def _with_source(step: StepRecord) -> StepRecord:
    source = source_sha256(step.attack)
    return step if source is None else step.model_copy(update={"source_sha256": source})
