"""What happens between epochs: accuracy on the validation split, and statistics estimated anew."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from harness.batchnorm.reestimate import reestimate
from harness.threat.perturb import Crafting, begin, craft
from harness.training.batches import batches, generator
from harness.training.objectives import OBJECTIVES
from harness.training.outcome import EpochRow
from harness.training.plan import Stage
from harness.training.run import Run

__all__ = ["reestimate_statistics", "validate"]

_STEPS = 10
_BATCH = 512


def validate(run: Run) -> tuple[float | None, float | None]:
    """Clean accuracy and accuracy under PGD of the deployed model on what was kept aside, in float32."""
    if not len(run.held_x):
        return None, None
    model = run.deployed.eval()
    crafting = Crafting.of("pgd", run.planned.crafting.threat, steps=max(_STEPS, run.planned.crafting.steps))
    # the same starts in every epoch, so that epochs differ by the model only
    starts = generator(run.settings.seed, "validation", 0, run.device)
    clean = robust = 0
    for first in range(0, len(run.held_x), _BATCH):
        x, y = run.held_x[first : first + _BATCH], run.held_y[first : first + _BATCH]
        # drawn for all, so that an image's start does not depend on which others are right
        start = begin(x, crafting, starts)
        with torch.no_grad():
            right = model(x).argmax(dim=1) == y
        if not right.any():
            continue
        x, y, start = x[right], y[right], start[right]
        points = _attacked(model, x, y, crafting, starts, start)
        with torch.no_grad():
            clean += len(x)
            robust += int((model(points).argmax(dim=1) == y).sum())
    return clean / len(run.held_x), robust / len(run.held_x)


def reestimate_statistics(run: Run, stage: Stage, phase: int) -> None:
    """Statistics anew on the training data; what comes of it is the last and the best, and a line of the log."""
    began = time.perf_counter()
    adversarial = stage.conduct.bn_statistics == "re-estimated-adversarial"
    # crafted against the model as it was: half-estimated statistics are nobody's
    target = copy.deepcopy(run.deployed).eval().requires_grad_(False)
    starts = generator(run.settings.seed, "re-estimate starts", 0, run.device)
    order = generator(run.settings.seed, "re-estimate order", 0, torch.device("cpu"))

    def images() -> Iterator[Tensor]:
        data = batches(run.x, run.y, size=run.settings.batch_size, augment=False, order=order, crops=starts)
        for x, y in data:
            yield _attacked(target, x, y, stage.crafting, starts) if adversarial else x

    reestimate(run.deployed, images())
    run.model.network.load_state_dict(run.deployed.network.state_dict())
    run.keep()
    run.best, run.best_epoch = run.last, run.epoch
    clean, robust = validate(run)
    row = EpochRow(run.epoch, phase, None, None, None, clean, robust, time.perf_counter() - began)
    run.log.append(row)
    run.tick(run.epoch, phase, row)


def _attacked(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    crafting: Crafting,
    starts: torch.Generator,
    start: Tensor | None = None,
) -> Tensor:
    raises = OBJECTIVES["adversarial"].raises(y, None)
    return craft(model, x, raises=raises, crafting=crafting, generator=starts, start=start)
