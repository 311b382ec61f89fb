"""An evaluation resolved once: everything that decides it, frozen, before anything has run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from harness import suites
from harness.audit import checks, kinds
from harness.audit.flags import Flag
from harness.batchnorm.statistics import STORED, BnStatistics
from harness.engine.types import Index
from harness.evaluation import reference
from harness.evaluation.target import Target
from harness.models import Model
from harness.results.identity import record_id, step_identity, verdict_id
from harness.results.parts import Selection, Shard
from harness.results.record import ThreatRecord
from harness.settings import Settings
from harness.suites import Step, Suite
from harness.threat import ThreatModel
from harness.util.devices import find_device
from harness.util.source_text import source_sha256

if TYPE_CHECKING:
    from harness.checkpoints import Checkpoint
    from harness.datasets import Dataset

__all__ = ["Plan", "plan_checkpoint", "plan_model"]


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
    def samples(self) -> tuple[Tensor, Tensor, Index]:
        """The samples to run: ``[m, ...]``, their classes ``[m]``, and their positions in the data set ``[m]``."""
        target = self.target
        if self.part is None:
            return target.x, target.y, target.index
        rows = self.part.rows(len(target.x))
        return target.x[rows], target.y[rows], target.index[rows]

    @property
    def state_name(self) -> str:
        """What its saved state is called: what runs in another way must not be continued from it."""
        way = "-deterministic" if self.settings.deterministic else ""
        return f"{self.record_id}{way}" + ("" if self.part is None else f"-{self.part.label}")

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
            precision=settings.precision,
        )
        return cls(target, threat, suite, settings, evaluation_id)

    @cached_property
    def flags(self) -> tuple[Flag, ...]:
        """The flags that follow from manifest, data and threat model."""
        converted = (kinds.EPS_CONVERTED.saying(self.threat.note, eps=self.threat.eps),) if self.threat.note else ()
        return (*self.target.flags, *converted)

    @cached_property
    def checked(self) -> tuple[Flag, ...]:
        """The flags of audit checks, which are made on the model as it was loaded.

        Raises:
            UnknownName, InvalidInput, HarnessError: a check that there is not, or that fails.
        """
        target = self.target
        return tuple(checks.run(target.model, target.x, target.y, self.threat, named=self.settings.checks))

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

    @cached_property
    def record_id(self) -> str:
        """Hash of the evaluation and of all that its record says before the attack."""
        return record_id(self.evaluation_id, **self.description, flags=self.flags)


def plan_model(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    threat: str | ThreatModel,
    suite: str | Suite = "autoattack",
    name: str = "model",
    **settings: Any,
) -> Plan:
    """Any model on any samples; see `harness.evaluation.evaluate` for the arguments.

    Raises:
        InvalidInput: samples, labels or settings that cannot be used.
    """
    return Plan.of(Target.plain(name, model, x, y), _threat(model, threat), suite, Settings(**settings))


def plan_checkpoint(
    checkpoint: Checkpoint,
    dataset: Dataset,
    *,
    threat: str | ThreatModel,
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


def _threat(model: nn.Module, threat: str | ThreatModel) -> ThreatModel:
    normalization = model.normalization if isinstance(model, Model) else None
    return ThreatModel.parse(threat, std=None if normalization is None else normalization.std)


def _threat_record(threat: ThreatModel) -> ThreatRecord:
    return ThreatRecord(
        norm=threat.norm, eps=threat.eps, radius=threat.radius, source_sha256=source_sha256(threat.norm)
    )
