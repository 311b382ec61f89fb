"""A training run as far as it has come: what it holds, saves, goes on from and hands back."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from harness.datasets import Dataset
from harness.models import Model
from harness.models.norm_layers import dual_layers, use_branch
from harness.training import precision
from harness.training.batches import split
from harness.training.health import assess
from harness.training.objectives import Passes
from harness.training.outcome import EpochRow, Progress, Tick, TrainingOutcome
from harness.training.plan import Plan
from harness.training.settings import Settings

__all__ = ["Run"]

Weights = dict[str, Any]
"""A state dict of the network, on the CPU."""

_WORST = (-1.0, -1.0)


@dataclass
class Run:
    """Training as far as it has come.

    Attributes:
        model: the one that is trained. average: of its weights, where that was asked for.
        passes: through the model, in the precision that was chosen.
        x, y: what is trained on. held_x, held_y: what is kept aside.
        epoch: how many are done.
        last, best: weights after the last epoch and after the best.
        optimizers: their states after the last epoch.
    """

    planned: Plan
    settings: Settings
    device: torch.device
    model: Model
    average: Model | None
    passes: Passes
    x: Tensor
    y: Tensor
    held_x: Tensor
    held_y: Tensor
    progress: Progress | None
    epoch: int = 0
    log: list[EpochRow] = field(default_factory=list)
    last: Weights = field(default_factory=dict)
    best: Weights = field(default_factory=dict)
    best_epoch: int = 0
    best_score: tuple[float, float] = _WORST
    optimizers: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def prepare(
        cls, planned: Plan, settings: Settings, dataset: Dataset, device: torch.device, progress: Progress | None
    ) -> Run:
        """Model and data on the device, nothing trained yet."""
        layout = torch.channels_last  # a fifth faster on a CPU, more on a GPU
        model = copy.deepcopy(planned.model).requires_grad_(False)
        model = model.to(device).to(memory_format=layout)
        kept, held = split(dataset.y, settings.validation, settings.seed)
        run = cls(
            planned=planned,
            settings=settings,
            device=device,
            model=model,
            average=None if settings.weight_averaging is None else copy.deepcopy(model).eval(),
            passes=_passes(model, settings, device),
            x=dataset.x[kept].to(device).contiguous(memory_format=layout),
            y=dataset.y[kept].to(device),
            held_x=dataset.x[held].to(device).contiguous(memory_format=layout),
            held_y=dataset.y[held].to(device),
            progress=progress,
        )
        run.keep()
        run.best = run.last
        return run

    @property
    def deployed(self) -> Model:
        """The model that is validated and handed back."""
        return self.model if self.average is None else self.average

    @property
    def rounds(self) -> int:
        """Batches an epoch."""
        return max(1, len(self.x) // self.settings.batch_size)

    def tick(self, done: float, phase: int, row: EpochRow | None = None) -> None:
        """Report ``done`` epochs."""
        if self.progress is not None:
            total = max(1, self.planned.epochs)
            epoch = row.epoch if row is not None else min(math.floor(done) + 1, total)
            self.progress(Tick(min(done / total, 1.0), epoch, self.planned.epochs, phase, row))

    def keep(self) -> None:
        """Note the weights as they are now as the last."""
        self.last = _weights(self.deployed)

    @torch.no_grad()
    def follow(self) -> None:
        """Move the average, where there is one, a step towards the model; equal values stay the same bit for bit."""
        if self.average is None or self.settings.weight_averaging is None:
            return
        ours, theirs = self.average.network.state_dict(), self.model.network.state_dict()
        for name, mine in ours.items():
            if mine.is_floating_point():
                mine.lerp_(theirs[name], 1 - self.settings.weight_averaging)
            else:
                mine.copy_(theirs[name])

    def begin_phase(self) -> None:
        """What an earlier phase averaged and found best is no result of the regime."""
        if self.average is not None:
            self.average.network.load_state_dict(self.model.network.state_dict())
        self.best_score = _WORST
        self.keep()

    def record(self, row: EpochRow) -> None:
        """Add an epoch to the log, and note whether it was the best: under attack, if it trained for that."""
        self.log.append(row)
        clean, robust = row.validation_clean_acc, row.validation_robust_acc
        natural = self.planned.stages[row.phase - 1].conduct.loss == "natural"
        if clean is None or robust is None:
            self.best, self.best_epoch = self.last, self.epoch
            return
        score = (clean, robust) if natural else (robust, clean)
        if score > self.best_score:
            self.best, self.best_epoch, self.best_score = self.last, self.epoch, score

    def snapshot(self) -> dict[str, Any]:
        """What `restore` goes on from: plain values and tensors only."""
        return {
            "epoch": self.epoch,
            "model": _weights(self.model),
            "average": None if self.average is None else _weights(self.average),
            "best": self.best,
            "best_epoch": self.best_epoch,
            "best_score": list(self.best_score),
            "optimizers": self.optimizers,
            "log": [asdict(row) for row in self.log],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a snapshot."""
        self.model.network.load_state_dict(state["model"])
        if self.average is not None:
            self.average.network.load_state_dict(state["average"])
        first, second = state["best_score"]
        self.epoch, self.best_epoch, self.best_score = state["epoch"], state["best_epoch"], (first, second)
        self.best, self.optimizers = state["best"], state["optimizers"]
        self.log = [EpochRow(**row) for row in state["log"]]
        self.keep()

    def outcome(self) -> TrainingOutcome:
        """What training hands back, as far as it has come."""
        planned = self.planned
        sizes = {name: p.numel() for name, p in planned.model.network.named_parameters()}
        return TrainingOutcome(
            last=_model(planned.model, self.last),
            best=_model(planned.model, self.best),
            best_epoch=self.best_epoch,
            trained=planned.trained,
            parameters=sum(sizes.values()),
            trained_parameters=sum(sizes[name] for name in planned.trained),
            log=tuple(self.log),
            facts=_facts(self),
        )


def _passes(model: Model, settings: Settings, device: torch.device) -> Passes:
    compiled = device.type == "cuda" if settings.compile is None else settings.compile
    # torch's own mode with CUDA graphs; without them a small network is no faster than one that is not compiled
    mode = "reduce-overhead" if device.type == "cuda" else None
    forward: Callable[[Tensor], Tensor] = torch.compile(model, dynamic=False, mode=mode) if compiled else model
    chosen = precision.chosen(settings, device)

    def plain(x: Tensor) -> Tensor:
        with precision.autocast(chosen, device):
            return forward(x).float()

    def through(branch: str) -> Callable[[Tensor], Tensor]:
        def branched(x: Tensor) -> Tensor:
            with use_branch(model, branch):
                return plain(x)

        return branched

    if dual_layers(model):
        return Passes(clean=through("clean"), adversarial=through("adversarial"))
    return Passes(clean=plain, adversarial=plain)


def _weights(model: Model) -> Weights:
    return {name: value.detach().to("cpu", copy=True) for name, value in model.network.state_dict().items()}


def _model(template: Model, values: Weights) -> Model:
    model = copy.deepcopy(template)
    model.network.load_state_dict(values)
    return model.eval().requires_grad_(False)


def _facts(run: Run) -> dict[str, Any]:
    settings, crafting = run.settings, run.planned.crafting
    health = assess(
        [asdict(row) for row in run.log],
        classes=run.planned.model.classes,
        adversarial=run.planned.stages[-1].conduct.loss != "natural",
        steps_per_epoch=run.rounds,
    )
    return settings.model_dump(mode="json", exclude={"compile"}, exclude_none=True) | {
        "epochs": run.planned.epochs,
        "best_epoch": run.best_epoch,
        "threat": str(crafting.threat),
        "steps": crafting.steps,
        "step_size": round(crafting.step_size, 8),
        "precision": precision.chosen(settings, run.device),
        "train_size": len(run.x),
        "validation_size": len(run.held_x),
        "seconds": round(sum(row.seconds for row in run.log), 1),
        "device": run.device.type,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        **({} if health is None else {"health": health.facts()}),
    }
