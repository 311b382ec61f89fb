"""An evaluation resolved once: everything that decides it, frozen, before anything has run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from harness import suites
from harness.audit import checks, indicators, kinds, plausible
from harness.audit.flags import Flag
from harness.audit.trials import Trial
from harness.batchnorm.statistics import STORED, BnStatistics
from harness.datasets import Dataset
from harness.engine.preflight import batch_size
from harness.engine.runner import Finding
from harness.engine.snapshots import State
from harness.engine.types import Index
from harness.errors import InvalidInput
from harness.evaluation import reference
from harness.evaluation.samples import gathered
from harness.evaluation.target import Target
from harness.models import Model, as_module
from harness.results.identity import record_id, step_identity, verdict_id
from harness.results.parts import Selection, Shard
from harness.results.record import ThreatRecord
from harness.settings import Settings
from harness.suites import Step, Suite
from harness.threat import Threat, ThreatModel
from harness.util import trust
from harness.util.devices import find_device
from harness.util.images import Images, cast, take
from harness.util.source_text import source_sha256

if TYPE_CHECKING:
    from harness.checkpoints import Checkpoint

__all__ = ["Plan", "plan_any", "plan_checkpoint", "plan_model"]


@dataclass(frozen=True, eq=False)
class Plan:
    """One evaluation, ready to be looked up, run and stored.

    Attributes:
        evaluation_id: hash of everything that decides the verdicts; plans that share it need one run.
        part: the samples to run; None runs all. It is no part of what the plan is known by.
    """

    target: Target
    threat: ThreatModel
    suite: Suite
    settings: Settings
    evaluation_id: str
    part: Shard | Selection | None = None

    @property
    def samples(self) -> tuple[Images, Tensor, Index]:
        """The samples to run: ``[m, ...]``, their classes ``[m]``, and their positions in the data set ``[m]``."""
        target = self.target
        if self.part is None:
            return target.x, target.y, target.index
        rows = self.part.rows(len(target.x))
        return take(target.x, rows), target.y[rows], target.index[rows]

    @property
    def state_name(self) -> str:
        """What its saved state is called: what runs in another way must not be continued from it, nor what somebody
        else wrote, as samples that a state says are unbroken are not attacked again."""
        way = "-deterministic" if self.settings.deterministic else ""
        return trust.own_name(f"{self.record_id}{way}" + ("" if self.part is None else f"-{self.part.label}"))

    @classmethod
    def of(cls, target: Target, threat: ThreatModel, suite: str | Suite, settings: Settings) -> Plan:
        """The plan of a target under a threat model and a suite.

        Raises:
            UnknownName, InvalidInput: a suite that there is not, or that cannot be run.
        """
        suite = suites.get(suite, threat) if isinstance(suite, str) else suite
        steps = [
            step_identity(step.name, step.attack, _parameters(step, suite, settings), source_sha256(step.attack))
            for step in suite.steps
        ]
        evaluation_id = verdict_id(
            model=target.model_record,
            dataset=target.dataset_record,
            threat=_threat_record(threat),
            steps=steps,
            seed=settings.seed,
            precision=settings.precision_class,
        )
        return cls(target, threat, suite, settings, evaluation_id)

    @cached_property
    def flags(self) -> tuple[Flag, ...]:
        """The flags that follow from manifest, data and threat model."""
        converted = (kinds.EPS_CONVERTED.saying(self.threat.note, eps=self.threat.eps),) if self.threat.note else ()
        return (*self.target.flags, *converted, *plausible.radius(self.threat, self.target.x.shape[1:]))

    @cached_property
    def checked(self) -> tuple[Flag, ...]:
        """The flags of the checks that users added, which are made on the model as it was loaded.

        Raises:
            UnknownName, InvalidInput, HarnessError: a check that there is not, or that fails.
            ModelError: a check that refuses the model.
        """
        target, chosen = self.target, (*checks.added(), *self.settings.checks)
        return tuple(checks.run(target.model, target.x, target.y, self.threat, chosen))

    def audited(self, model: nn.Module, device: torch.device) -> list[Flag]:
        """The flags of this package's checks of ``model``, the target's as it is attacked, on its device.

        Raises:
            ModelError: a check refuses it.
        """
        target, random = self.target, self.suite.expects_random
        size = self._rows(device)
        return checks.audit(model, target.x, target.y, self.threat, expects_random=random, batch_size=size)

    def probed(
        self, model: nn.Module, device: torch.device, finding: Finding, audited: Iterable[Flag]
    ) -> tuple[list[Trial], list[Flag]]:
        """What this package's indicators of attack failure try, and the flags of those that fail; none where nothing
        attacked.

        Args:
            audited: what `audited` said of the model.
        """
        if not finding.steps:
            return [], []
        verdicts, x = finding.verdicts, self.samples[0]
        arrays = (verdicts.y, verdicts.clean_pred, verdicts.robust, verdicts.adv_pred)
        y, predicted, robust, adversarial = (torch.from_numpy(array) for array in arrays)
        outcome = indicators.Attacked(
            model=model,
            x=cast(x, finding.points.dtype),
            index=verdicts.index,
            y=y,
            predicted=predicted,
            robust=robust,
            points=finding.points,
            adversarial=adversarial,
            threat=self.threat,
            total=len(self.target.x),
            differentiable=kinds.NO_GRADIENT.code not in {flag.code for flag in audited},
            device=device,
            batch_size=self._rows(device),
        )
        return indicators.probe(outcome)

    def _rows(self, device: torch.device) -> int:
        return batch_size(self.settings.batch_size, self.target.x[0].numel(), device)

    @cached_property
    def description(self) -> dict[str, Any]:
        """The fields of a `Result` that say what was evaluated."""
        return {
            "checkpoint": self.target.name,
            "model": self.target.model_record,
            "dataset": self.target.dataset_record,
            "threat": _threat_record(self.threat),
            "suite": self.suite.name,
        }

    @property
    def about(self) -> dict[str, Any]:
        """What was evaluated, as plain values."""
        return {
            name: value.model_dump(mode="json") if isinstance(value, BaseModel) else value
            for name, value in self.description.items()
        }

    @cached_property
    def state(self) -> State:
        """Where a run in flight is saved, as it is found before the run."""
        folder = self.settings.state_dir
        return State(None if folder is None else folder / self.state_name)

    @cached_property
    def record_id(self) -> str:
        """Hash of the evaluation and of all that its record says before the attack."""
        return record_id(self.evaluation_id, **self.description, flags=self.flags)


def plan_model(
    model: nn.Module | Callable[[Tensor], Tensor],
    x: Any,
    y: Any = None,
    *,
    threat: Threat,
    suite: str | Suite = "autoattack",
    name: str = "model",
    **settings: Any,
) -> Plan:
    """Any model on any samples; see `harness.evaluation.evaluate` for the arguments.

    Raises:
        InvalidInput: samples, labels or settings that cannot be used.
    """
    module = as_module(model)
    return Plan.of(Target.plain(name, module, gathered(x, y)), _threat(module, threat), suite, Settings(**settings))


def plan_any(
    model: nn.Module | Callable[[Tensor], Tensor] | Checkpoint,
    x: Any,
    y: Any = None,
    *,
    threat: Threat | None,
    suite: str | Suite,
    name: str | None,
    **settings: Any,
) -> Plan:
    """A checkpoint on a data set, or any model on any samples; see `harness.evaluation.evaluate` for the arguments.

    Raises:
        InvalidInput: a model, samples, labels or settings that cannot be used, or no threat model.
    """
    from harness.checkpoints import Checkpoint

    if not isinstance(model, Checkpoint):
        return plan_model(model, x, y, threat=_known(threat, None, x), suite=suite, name=name or "model", **settings)
    chosen = _known(threat, model.manifest.threat, x)
    if isinstance(x, Dataset) and y is None and name is None:
        return plan_checkpoint(model, x, threat=chosen, suite=suite, **settings)
    return plan_model(model.model, x, y, threat=chosen, suite=suite, name=name or model.name, **settings)


def _known(threat: Threat | None, manifest: str | None, x: Any) -> Threat:
    """The threat model that is given, or else that of the manifest or of the data set."""
    known = threat or manifest or (x.threats[0] if isinstance(x, Dataset) and x.threats else None)
    if known is None:
        raise InvalidInput('no threat model is known: give threat="Linf:8/255" or another')
    return known


def plan_checkpoint(
    checkpoint: Checkpoint,
    dataset: Dataset,
    *,
    threat: Threat,
    suite: str | Suite,
    bn_stats: str = STORED,
    bn_data: Dataset | None = None,
    checkpoint_dir: str | Path | None = None,
    **settings: Any,
) -> Plan:
    """A registered checkpoint on a data set; see `harness.evaluation.evaluate_checkpoint` for the arguments.

    Raises:
        InvalidInput: the data set's shape or classes are not the model's, or it has no BN layers whose
            statistics could be others.
    """
    chosen = Settings(**settings)
    if chosen.device is None:
        chosen = replace(chosen, device=find_device())
    threat = _threat(checkpoint.model, threat)
    statistics = BnStatistics(bn_stats, bn_data, chosen.seed)
    target = Target.registered(checkpoint, dataset, statistics, threat, checkpoint_dir)
    if statistics.kind == "batch":
        # predictions depend on how samples are packed
        packing = {"batch_size": chosen.batch_size, "workers": chosen.workers}
        target = replace(target, model_record=target.model_record.model_copy(update={"bn_stats_facts": packing}))
    return Plan.of(target, threat, suite, chosen)


def _parameters(step: Step, suite: Suite, settings: Settings) -> dict[str, Any]:
    return reference.parameters(suite, settings) if reference.runs(suite) else step.parameters


def _threat(model: nn.Module, threat: Threat) -> ThreatModel:
    normalization = model.normalization if isinstance(model, Model) else None
    return ThreatModel.parse(threat, std=None if normalization is None else normalization.std)


def _threat_record(threat: ThreatModel) -> ThreatRecord:
    return ThreatRecord(
        norm=threat.norm, eps=threat.eps, radius=threat.radius, source_sha256=source_sha256(threat.norm)
    )
