"""The record of one evaluation: everything needed to repeat it and to doubt it.

Fields are frozen and unknown fields are refused, so that a file either means what this schema says or
is reported. Accuracies are fractions. `docs/result-schema.md` explains every field.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from pydantic import Field

from harness.audit.flags import Flag
from harness.errors import InvalidInput
from harness.util.validation import Record

__all__ = [
    "SCHEMA_VERSION",
    "AdversarialRecord",
    "DatasetRecord",
    "Environment",
    "ModelRecord",
    "Result",
    "StepRecord",
    "ThreatRecord",
    "Verdicts",
    "rounded_radius",
]

SCHEMA_VERSION = 2


class ModelRecord(Record):
    """The model that was attacked, as far as it is known."""

    architecture: str
    source_sha256: str | None = Field(default=None, description="hash of its source text, where that is a user's file")
    arguments: dict[str, Any] = Field(
        default_factory=dict, description="of the architecture, beside classes, shape and norm layer"
    )
    norm_layer: str | None = None
    normalization: dict[str, list[float]] | None = None
    parameters: int = Field(ge=0)
    trained_parameters: int | None = Field(default=None, ge=0)
    sha256: str = Field(description="hash of the weights (every tensor's name, dtype, shape and bytes)")
    file_sha256: str | None = Field(default=None, description="hash of the checkpoint file")
    regime: str | None = None
    parent: str | None = None
    parent_sha256: str | None = None
    training: dict[str, Any] = Field(default_factory=dict, description="training facts from the manifest")
    bn_stats: str = Field(default="stored", description="running statistics: stored, clean, adversarial, batch")
    bn_stats_facts: dict[str, Any] = Field(default_factory=dict, description="what they were estimated on, and how")


class DatasetRecord(Record):
    """What was evaluated on."""

    name: str
    split: str
    size: int = Field(ge=1, description="samples in the whole split; n below that is a partial run")
    classes: int
    shape: list[int] = Field(description="C, H, W")
    sha256: str = Field(description="hash of the images and labels that were evaluated, in their order")


def rounded_radius(radius: float) -> float:
    """Equal where a radius was written in different ways: as 8/255 or by its 16 digits."""
    return float(f"{radius:.12g}")


class ThreatRecord(Record):
    """Norm and radius; `eps` is the text it was written as."""

    norm: str
    eps: str
    radius: float
    source_sha256: str | None = Field(default=None, description="as in ModelRecord, of a norm in a user's file")

    @property
    def text(self) -> str:
        """As it is given to commands: ``Linf:8/255``."""
        return f"{self.norm}:{self.eps}"

    @property
    def rounded(self) -> float:
        """The radius by `rounded_radius`."""
        return rounded_radius(self.radius)


class StepRecord(Record):
    """What one step of the suite did."""

    name: str
    part_of: str | None = Field(default=None, description="the suite's step, where that reports several")
    attack: str
    parameters: dict[str, Any]
    source_sha256: str | None = Field(default=None, description="as in ModelRecord, of an attack in a user's file")
    before: int = Field(description="samples surviving before the step")
    after: int = Field(description="samples surviving after it")
    forward: int = Field(description="samples through the model; one with its backward pass counts here once")
    backward: int = Field(description="samples back through the model")
    judge: int = Field(default=0, description="forward passes of the judge on proposals, plain model")
    rejected: int = Field(default=0, description="proposals that the judge did not confirm")
    seconds: float
    model_seconds: float = Field(description="of those, inside the model's passes (summed over workers)")


class Environment(Record):
    """Where and with what it ran."""

    versions: dict[str, str]
    python: str
    platform: str
    processor: str
    device: str
    precision: str
    passes: list[str] = Field(description="how passes were made fast: channels_last, folded-bn, compile, ...")
    batch_size: int
    workers: int
    threads: int
    git_commit: str | None = None
    git_dirty: bool | None = None


class AdversarialRecord(Record):
    """The file of adversarial examples beside a result."""

    file: str
    sha256: str
    samples: int = Field(ge=1, description="how many it holds: one for each sample that was broken")


class Result(Record):
    """One evaluation of one model under one threat model by one suite."""

    schema_version: Literal[2] = 2
    checkpoint: str
    model: ModelRecord
    dataset: DatasetRecord
    threat: ThreatRecord
    suite: str
    seed: int
    n: int = Field(ge=1)
    clean_acc: float = Field(ge=0, le=1)
    robust_acc: float = Field(ge=0, le=1)
    steps: list[StepRecord] = Field(max_length=1000)
    flags: list[Flag] = Field(max_length=1000, description="reasons to doubt the figures; empty is good")
    environment: Environment
    evaluation_id: str = Field(description="hash of all that decides the verdicts")
    record_id: str = Field(description="hash of evaluation_id, names, claims and flags known before the attack")
    started: str = Field(description="UTC, ISO 8601")
    recorded: str = Field(description="when this record was made, UTC, ISO 8601")
    verdicts_from: str | None = Field(default=None, description="file of the result whose run these verdicts are from")
    seconds: float
    model_seconds: float
    overhead: float | None = Field(description="seconds over seconds inside model passes, per worker")
    samples: str | None = Field(default=None, description="file of the per-sample verdicts, beside this one")
    samples_sha256: str | None = Field(default=None, description="hash of that file")
    adversarial: AdversarialRecord | None = Field(default=None, description="the adversarial examples, if kept")
    content_sha256: str | None = Field(default=None, description="hash of all other fields")
    harness_version: str

    @property
    def label(self) -> str:
        """The checkpoint's name, with its BN statistics where they are not the stored ones."""
        return (
            self.checkpoint
            if self.model.bn_stats == "stored"
            else f"{self.checkpoint} [bn-stats: {self.model.bn_stats}]"
        )

    @property
    def partial(self) -> bool:
        """Whether fewer samples than the split holds were evaluated."""
        return self.n < self.dataset.size


@dataclass(frozen=True, eq=False)
class Verdicts:
    """What happened to every sample of one evaluation, one row a sample, in the order of evaluation.

    Attributes:
        index: position in the data set's split.
        y: true class.
        clean_pred: class predicted without attack.
        robust: right without attack and under every step (bool).
        broken_by: the step that broke it (position in `Result.steps`); -1 where none did, which with
            ``robust`` false means that the sample was wrong without attack.
        adv_pred: class predicted at the confirmed adversarial point; `clean_pred` where there is none.
        forward: forward passes spent on it.
        backward: backward passes spent on it.

    Raises:
        InvalidInput: arrays that are not one-dimensional and equally long.
    """

    index: np.ndarray[Any, Any]
    y: np.ndarray[Any, Any]
    clean_pred: np.ndarray[Any, Any]
    robust: np.ndarray[Any, Any]
    broken_by: np.ndarray[Any, Any]
    adv_pred: np.ndarray[Any, Any]
    forward: np.ndarray[Any, Any]
    backward: np.ndarray[Any, Any]

    def __post_init__(self) -> None:
        shapes = {name: array.shape for name, array in self.arrays().items()}
        if len(set(shapes.values())) > 1 or len(self.index.shape) != 1:
            raise InvalidInput(f"verdicts need arrays of one shape [n], got {shapes}")

    def __len__(self) -> int:
        return len(self.index)

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """The arrays by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}
