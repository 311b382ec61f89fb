"""What is evaluated: a model and samples, with what is known of both."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from harness import datasets
from harness.audit import kinds, plausible
from harness.audit.flags import Flag
from harness.batchnorm.statistics import STORED, BnStatistics
from harness.checkpoints import lineage
from harness.engine.types import AttackProgress, Index
from harness.errors import InvalidInput
from harness.evaluation.samples import Samples, gathered
from harness.models import Function, Model
from harness.results.record import DatasetRecord, ModelRecord
from harness.threat import ThreatModel
from harness.util.images import Images

if TYPE_CHECKING:
    from harness.checkpoints import Checkpoint
    from harness.datasets import Dataset

__all__ = ["Target"]


@dataclass(frozen=True, eq=False)
class Target:
    """A model and the samples to evaluate it on.

    Attributes:
        name: what results call it.
        model: as it was loaded.
        x: ``[n, ...]`` in [0, 1]; read from a file where they are many. y: int64 ``[n]``.
        index: int64 ``[n]``, positions in the data set.
        statistics: what its BN layers are evaluated with.
        check: finds the flags that follow from manifest and data alone.
    """

    name: str
    model: nn.Module
    x: Images
    y: Tensor
    index: Index
    model_record: ModelRecord
    dataset_record: DatasetRecord
    statistics: BnStatistics = field(default_factory=BnStatistics)
    check: Callable[[], tuple[Flag, ...]] = field(default=tuple, repr=False)

    @classmethod
    def plain(cls, name: str, model: nn.Module, samples: Samples) -> Target:
        """Any model on any samples."""
        from harness.checkpoints import weights_sha256

        known = (
            {
                "architecture": model.architecture,
                "source_sha256": model.source_sha256,
                "arguments": model.arguments,
                "norm_layer": model.norm_layer,
                "normalization": _normalization(model),
            }
            if isinstance(model, Model)
            else _described(model)
        )
        record = ModelRecord(
            **known, parameters=sum(parameter.numel() for parameter in model.parameters()), sha256=weights_sha256(model)
        )
        return cls(name, model, samples.x, samples.y, samples.index, record, samples.record)

    @classmethod
    def registered(
        cls,
        checkpoint: Checkpoint,
        dataset: Dataset,
        statistics: BnStatistics,
        threat: ThreatModel,
        checkpoint_dir: str | Path | None = None,
    ) -> Target:
        """A checkpoint on a data set.

        Args:
            statistics: what its BN layers are to be evaluated with.
            threat: what adversarial ones are estimated under.
            checkpoint_dir: where its parent is looked for first.

        Raises:
            InvalidInput: shape or classes of the data set are not the model's, or its statistics cannot be others.
        """
        manifest, samples = checkpoint.manifest, gathered(dataset)
        if tuple(manifest.shape) != dataset.shape:
            raise InvalidInput(
                f"{manifest.name} takes images of shape {list(manifest.shape)}, the data set {dataset.name} has "
                f"{list(dataset.shape)}: choose a data set of that shape with --dataset, or read a folder of images "
                "with --resize and --crop"
            )
        if manifest.classes != len(dataset.classes):
            raise InvalidInput(
                f"{manifest.name} knows {manifest.classes} classes, the data set {dataset.name} has "
                f"{len(dataset.classes)}: choose another data set with --dataset, or name all of the model's classes "
                "with --classes FILE where a folder has images of some of them only"
            )
        statistics.check(checkpoint.model)
        record = ModelRecord(
            architecture=manifest.architecture,
            source_sha256=checkpoint.model.source_sha256,
            arguments=manifest.arguments,
            norm_layer=manifest.norm_layer,
            normalization=_normalization(checkpoint.model),
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
        return cls(
            manifest.name,
            checkpoint.model,
            samples.x,
            samples.y,
            samples.index,
            record,
            samples.record,
            statistics,
            partial(_doubts, checkpoint, dataset, statistics, checkpoint_dir),
        )

    @cached_property
    def flags(self) -> tuple[Flag, ...]:
        """The flags that a result has before anything has run. Found when first needed: a parent may be read for it."""
        return self.check()

    @property
    def dtype(self) -> torch.dtype:
        """What its images are evaluated in: the double precision of a model that has it, else float32."""
        dtypes = {parameter.dtype for parameter in self.model.parameters()}
        return torch.float64 if torch.float64 in dtypes else torch.float32

    def prepared(
        self, threat: ThreatModel, device: torch.device, progress: Callable[[AttackProgress], None] | None = None
    ) -> nn.Module:
        """The model on ``device``, with the statistics that it is evaluated with; a copy where it would be changed."""
        if self.statistics.kind != STORED and isinstance(self.model, Model):

            def report(done: float) -> None:
                if progress is not None:
                    progress(AttackProgress(f"{self.statistics.kind} BN statistics", done, len(self.x), len(self.x)))

            return self.statistics.applied(self.model, threat, device=device, report=report)
        tensors = [*self.model.parameters(), *self.model.buffers()]
        if all(_on(tensor, device) and not tensor.is_inference() for tensor in tensors):
            return self.model
        return copy.deepcopy(self.model).to(device)


def _described(model: nn.Module) -> dict[str, Any]:
    if isinstance(model, Function):
        return {"architecture": model.label, "source_sha256": model.code_sha256}
    return {"architecture": f"{type(model).__module__}.{type(model).__qualname__}"}


def _on(tensor: Tensor, device: torch.device) -> bool:
    return tensor.device.type == device.type and device.index in (None, tensor.device.index)


def _normalization(model: Model) -> dict[str, list[float]] | None:
    norm = model.normalization
    return None if norm is None else {"mean": list(norm.mean), "std": list(norm.std)}


def _doubts(
    checkpoint: Checkpoint, dataset: Dataset, statistics: BnStatistics, checkpoint_dir: str | Path | None
) -> tuple[Flag, ...]:
    assumed = (kinds.IMPORT_ASSUMED(what=text) for text in checkpoint.manifest.assumed)
    return (*assumed, *_claim(checkpoint, checkpoint_dir), *statistics.flags(dataset), *_classes(checkpoint, dataset))


def _classes(checkpoint: Checkpoint, dataset: Dataset) -> Iterator[Flag]:
    made_for = checkpoint.manifest.dataset
    if made_for in datasets.names():
        yield from plausible.class_names(datasets.about(made_for).classes, dataset.classes, made_for)


def _claim(checkpoint: Checkpoint, checkpoint_dir: str | Path | None) -> tuple[Flag, ...]:
    """What the weights say against the manifest's claim of a regime, or that it could not be checked."""
    parent = lineage.parent_of(checkpoint, checkpoint_dir=checkpoint_dir)
    verdict = lineage.verify_claim(checkpoint, parent)
    if verdict.unverified:
        return (kinds.LINEAGE_UNVERIFIED(regime=str(verdict.regime), reason=verdict.reason),)
    if verdict.status != "contradicted":
        return ()
    parent_name = {"parent": verdict.parent} if verdict.parent else {}
    return (kinds.LINEAGE_CONTRADICTED(reason=verdict.reason, **parent_name),)
