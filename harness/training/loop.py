"""The training loop, top to bottom."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer

from harness.checkpoints import Checkpoint
from harness.datasets import Dataset
from harness.errors import InvalidInput
from harness.models._selectors import bn_layers
from harness.regimes._base import Regime
from harness.training import optimizers, precision
from harness.training.batches import batches, generator
from harness.training.measure import reestimate_statistics, validate
from harness.training.outcome import EpochRow, Progress, TrainingDiverged, TrainingOutcome
from harness.training.plan import Stage, plan
from harness.training.run import Run
from harness.training.settings import Settings
from harness.training.state import StateFile
from harness.training.step import step
from harness.util.devices import find_device

__all__ = ["train"]


def train(
    regime: Regime,
    *,
    dataset: Dataset,
    settings: Settings | None = None,
    architecture: str | None = None,
    parent: Checkpoint | None = None,
    device: str | torch.device | None = "cpu",
    progress: Progress | None = None,
    state_dir: str | Path | None = None,
) -> TrainingOutcome:
    """Train a model under a regime.

    On the CPU the same arguments give the same weights bit for bit, as long as torch uses the same number
    of threads. Torch's global generator is neither used nor seeded.

    Args:
        regime: see `harness.regimes`.
        dataset: the training split; a share of it is kept aside for validation.
        settings: all numbers; the defaults if not given.
        architecture: of a regime that starts at random.
        parent: of a regime that starts from one; it is not changed.
        device: where to train; None is a GPU where there is one.
        progress: called after every batch and every epoch.
        state_dir: where to keep what a killed run goes on from when it is called again with the same
            arguments. The file stays until the outcome is registered (`register`), or until
            ``outcome.state.remove()``; training that diverged leaves none.

    Raises:
        InvalidInput: arguments that do not fit each other; nothing has been trained then.
        TrainingDiverged: loss or weights are no longer finite; it carries the last finite state.
    """
    settings = settings or Settings()
    place = find_device(device)
    if len(dataset) < 2:
        raise InvalidInput(f"training needs at least two images, {dataset.name} ({dataset.split}) has {len(dataset)}")
    planned = plan(regime, settings, dataset, architecture=architecture, parent=parent, device=place)
    store = StateFile(Path(state_dir) if state_dir is not None else None, planned.fingerprint)
    with precision.products(precision.chosen(settings, place)):
        run = Run.prepare(planned, settings, dataset, place, progress)
        if (state := store.load()) is not None:
            run.restore(state)
        for number in range(len(planned.stages)):
            _phase(run, number, store)
    return replace(run.outcome(), state=store)


def _phase(run: Run, number: int, store: StateFile) -> None:
    stage = run.planned.stages[number]
    first = sum(earlier.epochs for earlier in run.planned.stages[:number])
    end = first + stage.epochs
    if run.epoch > end:
        return  # a killed run had come further
    if run.epoch == first:
        _reset(run, stage)
        run.begin_phase()
    parameters = dict(run.model.network.named_parameters())
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in stage.trained)
    movers = optimizers.build(parameters, stage, run.settings)
    if run.epoch > first:
        optimizers.restore(movers, run.optimizers)
    for epoch in range(run.epoch, end):
        row = _epoch(run, stage, movers, first, number + 1)
        if row is None:
            store.remove()  # to go on from there would diverge again
            raise TrainingDiverged(
                f"training diverged in epoch {epoch + 1} of {run.planned.epochs}: loss or weights are no longer "
                "finite; try a lower learning rate",
                run.outcome(),
            )
        run.epoch += 1
        run.keep()
        run.optimizers = [mover.state_dict() for mover in movers]
        run.record(row)
        store.save(run.snapshot())
        run.tick(run.epoch, number + 1, row)
    if stage.conduct.bn_statistics.startswith("re-estimated"):
        reestimate_statistics(run, stage, number + 1)


def _epoch(run: Run, stage: Stage, movers: list[Optimizer], first: int, phase: int) -> EpochRow | None:
    """One pass over the data; None if it left the finite numbers."""
    settings, rounds = run.settings, run.rounds
    order = generator(settings.seed, "order", run.epoch, torch.device("cpu"))
    crops = generator(settings.seed, "crops", run.epoch, run.device)
    starts = generator(settings.seed, "starts", run.epoch, run.device)
    augment = settings.augment == "crop-flip"
    # summed on the device: reading them after every batch would make a GPU wait
    total = torch.zeros((), device=run.device)
    correct = torch.zeros((), device=run.device)
    began = time.perf_counter()
    data = batches(run.x, run.y, size=settings.batch_size, augment=augment, order=order, crops=crops)
    for i, (x, y) in enumerate(data):
        done = (run.epoch - first + i / rounds) / stage.epochs
        optimizers.set_rates(movers, done, settings.schedule)
        loss, logits = step(run, stage, movers, x, y, starts, done)
        run.follow()
        total += loss
        correct += (logits.argmax(dim=1) == y).float().mean()
        run.tick(run.epoch + (i + 1) / rounds, phase)
    run.model.eval()
    mean, accuracy = float(total) / rounds, float(correct) / rounds
    seconds = time.perf_counter() - began
    if not (math.isfinite(mean) and _finite(run.model.network)):
        return None
    norm = _gradient_norm(movers)
    clean, robust = validate(run)
    rate = float(movers[0].param_groups[0]["lr"])
    return EpochRow(run.epoch + 1, phase, rate, mean, accuracy, clean, robust, seconds, norm)


def _reset(run: Run, stage: Stage) -> None:
    with torch.no_grad():
        for name, parameter in run.model.network.named_parameters():
            if name in stage.reset:
                parameter.copy_(run.planned.fresh[name])
    for name, layer in bn_layers(run.model.network).items():
        if name in stage.reset_layers:
            layer.reset_running_stats()


def _gradient_norm(movers: list[Optimizer]) -> float:
    """Of all parameters that the optimisers move, as the last step left it."""
    parameters = (p for mover in movers for group in mover.param_groups for p in group["params"])
    grads = [p.grad for p in parameters if p.grad is not None]
    return float(torch.stack([grad.norm() for grad in grads]).norm()) if grads else 0.0


def _finite(network: nn.Module) -> bool:
    return all(bool(value.isfinite().all()) for value in network.state_dict().values())
