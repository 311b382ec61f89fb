"""Where a plan runs on this machine, checked before anything has run."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from harness.backends import require_precision
from harness.engine import executors
from harness.errors import InvalidInput
from harness.evaluation import reference
from harness.evaluation.plan import Plan
from harness.util.devices import find_device

__all__ = ["Placement", "place"]


@dataclass(frozen=True)
class Placement:
    """The device of the model, and how many processes work."""

    device: torch.device
    workers: int


def place(plan: Plan) -> Placement:
    """Where ``plan`` runs.

    Raises:
        InvalidInput: this machine lacks the device, the precision, or what the settings need.
    """
    settings = plan.settings
    device = _device(plan.target.model, settings.device)
    require_precision(settings.precision, device)
    if settings.graphs and device.type != "cuda":
        raise InvalidInput(f"CUDA graphs need a CUDA device, and this run is on {device}; leave --graphs out")
    workers = min(executors.count(settings.workers, device), len(plan.samples[0]))
    return Placement(device, 1 if reference.runs(plan.suite) else workers)


def _device(model: nn.Module, asked: str | torch.device | None) -> torch.device:
    if asked is None:
        tensors = [*model.parameters(), *model.buffers()]
        return tensors[0].device if tensors else torch.device("cpu")
    return find_device(asked)
