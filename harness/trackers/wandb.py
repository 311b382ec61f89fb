"""Weights & Biases; ``WANDB_MODE=offline`` keeps it on this machine."""

from __future__ import annotations

from collections.abc import Mapping

from harness.trackers._module_run import ModuleRun

__all__ = ["wandb"]


def wandb(name: str, about: Mapping[str, str | int | float]) -> ModuleRun:
    """Begin a run."""
    return ModuleRun("wandb", name, about)
