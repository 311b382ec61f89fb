"""Training under a regime: `train`, its `Settings`, what it hands back, and how that is registered."""

from __future__ import annotations

from harness.training.loop import train
from harness.training.outcome import EpochRow, Tick, TrainingDiverged, TrainingOutcome, write_log
from harness.training.register import Registered, register, train_and_register
from harness.training.settings import Settings

__all__ = [
    "EpochRow",
    "Registered",
    "Settings",
    "Tick",
    "TrainingDiverged",
    "TrainingOutcome",
    "register",
    "train",
    "train_and_register",
    "write_log",
]
