"""The record of one evaluation: everything needed to repeat it and to doubt it.

Fields are frozen and unknown fields are refused, so that a file either means what this schema says or
is reported. Accuracies are fractions. `docs/result-schema.md` explains every field.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["SCHEMA_VERSION", "DatasetRecord", "Environment", "ModelRecord", "Result", "StepRecord", "ThreatRecord"]

SCHEMA_VERSION = 1


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelRecord(_Record):
    """The model that was attacked, as far as it is known."""

    architecture: str
    norm_layer: str | None = None
    normalization: dict[str, list[float]] | None = None
    parameters: int
    trained_parameters: int | None = None
    sha256: str = Field(description="hash of the weights (every tensor's name, dtype, shape and bytes)")
    file_sha256: str | None = Field(default=None, description="hash of the checkpoint file")
    regime: str | None = None
    parent: str | None = None
    parent_sha256: str | None = None
    training: dict[str, Any] = Field(default_factory=dict, description="training facts from the manifest")


class DatasetRecord(_Record):
    """What was evaluated on."""

    name: str
    split: str
    size: int = Field(description="samples in the whole split; n below that is a partial run")
    classes: int
    shape: list[int] = Field(description="C, H, W")
    sha256: str = Field(description="hash of the images and labels that were evaluated, in their order")


class ThreatRecord(_Record):
    """Norm and radius; `eps` is the text it was written as."""

    norm: str
    eps: str
    radius: float


class StepRecord(_Record):
    """What one step of the suite did."""

    name: str
    attack: str
    parameters: dict[str, Any]
    before: int = Field(description="samples standing before the step")
    after: int = Field(description="samples standing after it")
    forward: int = Field(description="samples through the model; a forward with its backward counts here once")
    backward: int = Field(description="samples back through the model")
    judge: int = Field(default=0, description="forward passes that the judge spent on proposals, on the plain model")
    rejected: int = Field(default=0, description="proposals that the judge did not confirm")
    seconds: float
    model_seconds: float = Field(description="of those, inside the model's passes (summed over workers)")
    notes: list[str] = Field(default_factory=list)


class Environment(_Record):
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


class Result(_Record):
    """One evaluation of one model under one threat model by one suite."""

    schema_version: Literal[1] = 1
    checkpoint: str
    model: ModelRecord
    dataset: DatasetRecord
    threat: ThreatRecord
    suite: str
    seed: int
    n: int
    clean_acc: float
    robust_acc: float
    steps: list[StepRecord]
    flags: list[str] = Field(description="reasons to doubt the figures; empty is good")
    environment: Environment
    evaluation_id: str = Field(description="hash of all inputs that decide the outcome")
    started: str = Field(description="UTC, ISO 8601")
    seconds: float
    model_seconds: float
    overhead: float | None = Field(description="seconds over seconds inside model passes, per worker")
    samples: str | None = Field(default=None, description="file name of the per-sample verdicts, beside this file")
    harness_version: str

    @property
    def partial(self) -> bool:
        """Whether fewer samples than the split holds were evaluated."""
        return self.n < self.dataset.size
