"""Training under a regime: `train`, its `Settings`, and what it hands back."""

from __future__ import annotations

from harness.train.loop import train
from harness.train.outcome import EpochRow, Tick, TrainingDiverged, TrainingOutcome, write_log
from harness.train.settings import Settings

__all__ = ["EpochRow", "Settings", "Tick", "TrainingDiverged", "TrainingOutcome", "train", "write_log"]
