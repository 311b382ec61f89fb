"""One optimiser step, and the modes in which BN layers take part in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer

from harness.models import Model
from harness.models._selectors import bn_layers
from harness.threat.perturb import Crafting, advance, begin, craft
from harness.training.awp import perturbed
from harness.training.objectives import OBJECTIVES
from harness.training.plan import Stage
from harness.training.run import Run

__all__ = ["step"]

_SMALLEST = 0.01
"""Share of the radius at which a growing eps begins."""


def step(
    run: Run,
    stage: Stage,
    optimizers: Sequence[Optimizer],
    x: Tensor,
    y: Tensor,
    starts: torch.Generator,
    done: float,
) -> tuple[Tensor, Tensor]:
    """Craft, compute the loss, move the trained parameters: the batch's loss and logits, detached.

    Args:
        starts: for the random starts of crafting.
        done: how far the phase has come, in [0, 1).
    """
    conduct, smoothing = stage.conduct, run.settings.label_smoothing
    crafting = _at(stage, done)
    if conduct.free:
        return _free(run, stage, optimizers, x, y, starts, crafting)
    objective = OBJECTIVES[conduct.loss]
    points = _crafted(run, stage, x, y, starts, crafting) if objective.needs_examples else x
    _set_mode(run.model, stage, training=True)
    with ExitStack() as stack:
        if conduct.awp is not None:
            weights = [p for n, p in run.model.network.named_parameters() if n in stage.perturbed]
            with _statistics_held(run.model):
                loss, _ = objective.loss(run.passes, x, points, y, conduct, smoothing)
                grads = torch.autograd.grad(loss, weights)
            stack.enter_context(perturbed(weights, grads, conduct.awp.gamma))
        loss, logits = objective.loss(run.passes, x, points, y, conduct, smoothing)
        _backward(loss, optimizers)
    for optimizer in optimizers:
        optimizer.step()
    return loss.detach(), logits.detach()


def _backward(loss: Tensor, optimizers: Sequence[Optimizer]) -> None:
    """The loss's gradients in place of the last ones."""
    for optimizer in optimizers:
        optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]


def _at(stage: Stage, done: float) -> Crafting:
    """Crafting at the radius of this moment: it grows linearly, from a hundredth on."""
    ramp = stage.conduct.eps_ramp
    return stage.crafting.scaled(min(1.0, max(_SMALLEST, done / ramp)) if ramp else 1.0)


def _free(
    run: Run,
    stage: Stage,
    optimizers: Sequence[Optimizer],
    x: Tensor,
    y: Tensor,
    starts: torch.Generator,
    crafting: Crafting,
) -> tuple[Tensor, Tensor]:
    """Each crafting gradient is one of the parameters as well, and moves them (Shafahi et al. 2019, "Adversarial
    Training for Free!", arXiv 1904.12843). The last point is trained on too, so that the loss is that of full crafting.
    """
    _set_mode(run.model, stage, training=True)
    points = begin(x, crafting, starts)
    for number in range(crafting.steps + 1):
        leaf = points.detach().requires_grad_()
        logits = run.passes.adversarial(leaf)
        loss = F.cross_entropy(logits, y, label_smoothing=run.settings.label_smoothing)
        _backward(loss, optimizers)
        for optimizer in optimizers:
            optimizer.step()
        if number < crafting.steps and leaf.grad is not None:
            points = advance(points, leaf.grad, x, crafting)
    return loss.detach(), logits.detach()


def _crafted(run: Run, stage: Stage, x: Tensor, y: Tensor, starts: torch.Generator, crafting: Crafting) -> Tensor:
    objective = OBJECTIVES[stage.conduct.loss]
    _set_mode(run.model, stage, training=stage.conduct.crafting_mode == "train")
    clean = None
    if objective.needs_clean_logits:
        with torch.no_grad():
            clean = run.passes.clean(x)
    return craft(
        run.model,
        x,
        raises=objective.raises(y, clean),
        crafting=crafting,
        generator=starts,
        forward=run.passes.adversarial,
    )


def _set_mode(model: Model, stage: Stage, *, training: bool) -> None:
    model.train(training)
    if training and stage.still:
        for name, layer in bn_layers(model.network).items():
            if name in stage.still:
                layer.eval()


@contextmanager
def _statistics_held(model: Model) -> Iterator[None]:
    """Batch statistics are used but not remembered."""
    layers = [layer for layer in bn_layers(model.network).values() if layer.training]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True
