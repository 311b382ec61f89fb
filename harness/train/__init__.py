"""Training under a regime: `train`, its `Settings`, what it hands back, and how that is registered."""

from __future__ import annotations

from harness.train.loop import train
from harness.train.outcome import EpochRow, Tick, TrainingDiverged, TrainingOutcome, write_log
from harness.train.register import Registered, refuse_existing, register
from harness.train.settings import Settings

__all__ = [
    "EpochRow",
    "Registered",
    "Settings",
    "Tick",
    "TrainingDiverged",
    "TrainingOutcome",
    "refuse_existing",
    "register",
    "train",
    "write_log",
]
