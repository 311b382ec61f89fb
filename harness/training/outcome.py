"""What training hands back, and its log."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.models import Model
from harness.training.state import StateFile
from harness.util.files import write_atomically

__all__ = ["EpochRow", "Progress", "Tick", "TrainingDiverged", "TrainingOutcome", "write_log"]


@dataclass(frozen=True)
class EpochRow:
    """One line of the log; what was not measured is None.

    Attributes:
        epoch: from 1. phase: from 1.
        learning_rate: at the end of the epoch, before a part's own optimiser.
        loss: mean over the epoch's batches.
        train_acc: share of the epoch's batches that was classified correctly while training on it: on
            adversarial examples where the loss has them.
        validation_clean_acc, validation_robust_acc: on what was kept aside; robust under PGD.
        seconds: of training, without validation.
        gradient_norm: of the loss with respect to all trained parameters, at the epoch's last batch.
    """

    epoch: int
    phase: int
    learning_rate: float | None
    loss: float | None
    train_acc: float | None
    validation_clean_acc: float | None
    validation_robust_acc: float | None
    seconds: float
    gradient_norm: float | None = None


@dataclass(frozen=True)
class Tick:
    """How far training has come.

    Attributes:
        done: share of all batches, in [0, 1].
        epoch, epochs: the epoch at work, from 1, and how many there are.
        phase: from 1.
        row: the log's line, at the end of an epoch.
    """

    done: float
    epoch: int
    epochs: int
    phase: int
    row: EpochRow | None = None


Progress = Callable[[Tick], None]


@dataclass(frozen=True)
class TrainingOutcome:
    """Trained models, in eval mode on the CPU, and what is to be known of how they were made.

    Attributes:
        last: after the last epoch.
        best: after the epoch that did best on the validation split (of the last phase): under PGD if the
            regime trains against attacks, on clean images otherwise. The last where nothing was kept aside.
        best_epoch: which that was.
        trained: names of the parameters that some phase trains or resets from the parent's values.
        parameters, trained_parameters: how many numbers the network has, and how many of them are in ``trained``.
        log: one row an epoch.
        facts: settings and circumstances, for the manifest.
        state: where the finished run is kept until it is registered, so that a failure to write loses nothing.
    """

    last: Model
    best: Model
    best_epoch: int
    trained: frozenset[str]
    parameters: int
    trained_parameters: int
    log: tuple[EpochRow, ...]
    facts: dict[str, Any]
    state: StateFile | None = None

    @property
    def epochs(self) -> int:
        """How many were trained."""
        return self.log[-1].epoch if self.log else 0

    def validation(self, epoch: int) -> dict[str, float]:
        """Accuracies on the validation split after an epoch, where they were measured."""
        row = next((row for row in reversed(self.log) if row.epoch == epoch), None)
        values = (
            {}
            if row is None
            else {
                "validation_clean_acc": row.validation_clean_acc,
                "validation_robust_acc": row.validation_robust_acc,
            }
        )
        return {name: round(value, 4) for name, value in values.items() if value is not None}


class TrainingDiverged(HarnessError):
    """Loss or weights are no longer finite. ``outcome`` is training up to the last finite epoch."""

    def __init__(self, message: str, outcome: TrainingOutcome) -> None:
        super().__init__(message)
        self.outcome = outcome


def write_log(path: Path, rows: Sequence[EpochRow]) -> Path:
    """The log as CSV, one line an epoch.

    Raises:
        StorageError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(EpochRow)], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in asdict(row).items()})
    write_atomically(path, text.getvalue().encode())
    return path
