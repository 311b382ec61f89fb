"""The runner that attacks with pyautoattack exactly as it comes, in the place of this package's engine.

This package's own attacks are compared with it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness import suites
from harness.engine.runner import Finding
from harness.engine.types import AttackProgress, Index
from harness.errors import InvalidInput
from harness.evaluation import _pyautoattack
from harness.results.record import StepRecord, Verdicts
from harness.settings import Settings
from harness.suites import Suite
from harness.threat import ThreatModel
from harness.util.images import Images

__all__ = ["parameters", "run", "runs"]

_BATCH_SIZE = 250
"""Samples a batch where none is chosen, as in the reference itself."""


def runs(suite: Suite) -> bool:
    """Whether this runner is the one for a suite.

    Raises:
        InvalidInput: the suite mixes the reference with attacks of this package.
    """
    attacks = [step.attack for step in suite.steps]
    if suites.REFERENCE in attacks and len(attacks) > 1:
        raise InvalidInput(f"the suite {suite.name} must hold {suites.REFERENCE} alone, got {', '.join(attacks)}")
    return suites.REFERENCE in attacks


def parameters(suite: Suite, settings: Settings) -> dict[str, Any]:
    """What decides a run of the reference: its version, and the batch size, as it draws random numbers per batch."""
    (step,) = suite.steps
    size = _BATCH_SIZE if settings.batch_size == "auto" else int(settings.batch_size)
    return {**step.parameters, "batch_size": size}


def run(
    model: nn.Module,
    x: Images,
    y: Tensor,
    names: Index,
    threat: ThreatModel,
    suite: Suite,
    settings: Settings,
    *,
    device: torch.device,
    size: int,
    folder: Path | None,
    progress: Callable[[AttackProgress], None] | None,
) -> Finding:
    """Attack samples with the reference; arguments as in `harness.engine.runner.run`.

    It works in this process, keeps no state and reports no progress.

    Raises:
        InvalidInput: too few classes for the version. ModelError: the model failed inside the reference.
    """
    (step,) = suite.steps
    used = parameters(suite, settings)
    batch_size = used["batch_size"]
    there, labels = x[:].to(device), y.to(device)
    outcome = _pyautoattack.attack(
        model,
        there,
        labels,
        threat,
        version=used["version"],
        seed=settings.seed,
        batch_size=batch_size,
        device=device,
    )
    # a randomised model may answer a pass of ours otherwise than the one that the attacks set out from
    clean_pred = outcome.clean.cpu().numpy()
    robust, correct = outcome.robust.cpu().numpy(), clean_pred == y.numpy()
    nothing = np.zeros(len(y), dtype=np.int64)
    return Finding(
        verdicts=Verdicts(
            index=names,
            y=y.numpy(),
            clean_pred=clean_pred,
            robust=robust,
            # the reference does not say which of its attacks broke a sample
            broken_by=np.where(correct & ~robust, 0, -1),
            adv_pred=outcome.labels.cpu().numpy(),
            forward=nothing,
            backward=nothing,
        ),
        points=outcome.points.cpu(),
        steps=[
            StepRecord(
                name=row.name,
                part_of=step.name,
                attack=step.attack,
                parameters=used,
                before=row.before,
                after=row.after,
                forward=row.forward,
                backward=row.backward,
                seconds=row.seconds,
                model_seconds=0.0,
            )
            for row in outcome.steps
            if row.name != "clean"
        ],
        flags=list(outcome.flags),
        passes=["as-loaded"],
        batch_size=batch_size,
        model_seconds=0.0,
        busy_seconds=0.0,
    )
