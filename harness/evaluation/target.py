"""What is evaluated: a model and samples, with what is known of both."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from harness.audit import kinds
from harness.audit.flags import Flag
from harness.batchnorm.statistics import BnStatistics
from harness.checkpoints import lineage
from harness.engine.types import Index
from harness.errors import InvalidInput
from harness.results.record import DatasetRecord, ModelRecord
from harness.threat import ThreatModel

if TYPE_CHECKING:
    from harness.checkpoints import Checkpoint
    from harness.datasets import Dataset

__all__ = ["Subject", "checked_samples"]


@dataclass(frozen=True, eq=False)
class Subject:
    """A model on its samples.

    Attributes:
        x: ``[n, ...]`` in [0, 1]. y: int64 ``[n]``. index: int64 ``[n]``, positions in the data set.
        flags: those that the result has before anything has run.
    """

    name: str
    model: nn.Module
    x: Tensor
    y: Tensor
    index: Index
    model_record: ModelRecord
    dataset_record: DatasetRecord
    flags: tuple[Flag, ...] = ()

    @classmethod
    def plain(cls, name: str, model: nn.Module, x: Tensor, y: Tensor) -> Subject:
        """Any model on any samples."""
        from harness.checkpoints import weights_sha256

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
        assumed = (kinds.IMPORT_ASSUMED(what=text) for text in manifest.assumed)
        flags = (*assumed, *_claim(checkpoint, checkpoint_dir), *statistics.flags(dataset))
        return cls(manifest.name, checkpoint.model, dataset.x, dataset.y, index, record, data, flags)


def checked_samples(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
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


def _claim(checkpoint: Checkpoint, checkpoint_dir: str | Path | None) -> tuple[Flag, ...]:
    """What the weights say against the manifest's claim of a regime, or that it could not be checked."""
    parent = lineage.parent_of(checkpoint, checkpoint_dir=checkpoint_dir)
    told = lineage.verify_claim(checkpoint, parent)
    if told.unverified:
        return (kinds.LINEAGE_UNVERIFIED(regime=str(told.regime), reason=told.reason),)
    if told.status != "contradicted":
        return ()
    parent_name = {"parent": told.parent} if told.parent else {}
    return (kinds.LINEAGE_CONTRADICTED(reason=told.reason, **parent_name),)


def _samples_sha256(x: Tensor, y: Tensor) -> str:
    digest = hashlib.sha256(f"{x.dtype}{list(x.shape)}".encode())
    digest.update(np.ascontiguousarray(x.numpy()).data)
    digest.update(np.ascontiguousarray(y.numpy()).data)
    return digest.hexdigest()
