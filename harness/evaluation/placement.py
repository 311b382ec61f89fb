"""Where a plan runs on this machine, checked before anything has run."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from harness import attacks
from harness.backends import require_precision
from harness.engine import executors
from harness.errors import InvalidInput
from harness.evaluation import reference
from harness.evaluation.plan import Plan
from harness.util.devices import find_device

__all__ = ["Placement", "place"]

# which inputs an attack takes does not depend on the number of classes
_MANY_CLASSES = 1000


@dataclass(frozen=True)
class Placement:
    """The device of the model, and how many processes work."""

    device: torch.device
    workers: int


def place(plan: Plan) -> Placement:
    """Where ``plan`` runs.

    Raises:
        InvalidInput: this machine lacks the device, the precision, or what the settings need; or an attack of the suite
            does not take such inputs.
    """
    settings = plan.settings
    _refuse_unfit(plan)
    device = _device(plan.target.model, settings.device)
    require_precision(settings.precision, device)
    if settings.graphs and device.type != "cuda":
        raise InvalidInput(f"CUDA graphs need a CUDA device, and this run is on {device}; leave --graphs out")
    workers = min(executors.count(settings.workers, device), len(plan.samples[0]))
    return Placement(device, 1 if reference.runs(plan.suite) else workers)


def _refuse_unfit(plan: Plan) -> None:
    if reference.runs(plan.suite):
        return
    for step in plan.suite.steps:
        attack = attacks.build(step.attack, plan.threat, _MANY_CLASSES, **step.parameters)
        reason = attack.unfit(tuple(plan.target.x.shape[1:]))
        if reason is not None:
            raise InvalidInput(reason)


def _device(model: nn.Module, asked: str | torch.device | None) -> torch.device:
    if asked is None:
        tensors = [*model.parameters(), *model.buffers()]
        return tensors[0].device if tensors else torch.device("cpu")
    return find_device(asked)
