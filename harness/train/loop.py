"""The training loop, top to bottom."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from harness.checkpoint import Checkpoint
from harness.crafting import Crafting, craft
from harness.datasets import Dataset
from harness.errors import InvalidInput
from harness.models import Model
from harness.norm_layers import dual_layers, use_branch
from harness.parts import bn_layers
from harness.regime import Regime
from harness.restat import reestimate
from harness.train import optimizers
from harness.train.awp import perturbed
from harness.train.batches import batches, generator, split
from harness.train.objectives import OBJECTIVES, Passes
from harness.train.outcome import EpochRow, Progress, Tick, TrainingDiverged, TrainingOutcome
from harness.train.plan import Plan, Stage, plan
from harness.train.schedules import SCHEDULES
from harness.train.settings import Settings
from harness.train.state import StateFile

__all__ = ["train"]

_VALIDATION_STEPS = 10
_VALIDATION_BATCH = 512

Weights = dict[str, Any]
"""A state dict of the network."""


def train(
    regime: Regime,
    *,
    dataset: Dataset,
    settings: Settings | None = None,
    architecture: str | None = None,
    parent: Checkpoint | None = None,
    device: str | torch.device = "cpu",
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
        device: where to train.
        progress: called after every batch and every epoch.
        state_dir: where to keep what a killed run goes on from when it is called again with the same
            arguments. The file is removed at the end.

    Raises:
        InvalidInput: arguments that do not fit each other; nothing has been trained then.
        TrainingDiverged: loss or weights are no longer finite; it carries the last finite state.
    """
    settings = settings or Settings()
    device = torch.device(device)
    if len(dataset) < 2:
        raise InvalidInput(f"training needs at least two images, {dataset.name} ({dataset.split}) has {len(dataset)}")
    planned = plan(regime, settings, dataset, architecture=architecture, parent=parent, device=device)
    store = StateFile(Path(state_dir) if state_dir is not None else None, planned.fingerprint)
    with _precision(settings, device):
        run = _Run.prepare(planned, settings, dataset, device, progress)
        run.restore(store.load())
        for number, stage in enumerate(planned.stages):
            _run_stage(run, number, stage, store, regime)
    store.remove()
    return run.outcome(regime)


@dataclass
class _Run:
    """Training as far as it has come."""

    planned: Plan
    settings: Settings
    device: torch.device
    model: Model
    forward: Callable[[Tensor], Tensor]
    average: Model | None
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
    best_score: tuple[float, float] = (-1.0, -1.0)
    optimizer_states: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def prepare(
        cls, planned: Plan, settings: Settings, dataset: Dataset, device: torch.device, progress: Progress | None
    ) -> _Run:
        layout = torch.channels_last if device.type == "cuda" else torch.contiguous_format
        model = copy.deepcopy(planned.model).to(device=device, memory_format=layout)
        kept, held = split(dataset.y, settings.validation, settings.seed)
        use_compile = device.type == "cuda" if settings.compile is None else settings.compile
        average = copy.deepcopy(model).eval() if settings.weight_averaging is not None else None
        run = cls(
            planned=planned,
            settings=settings,
            device=device,
            model=model,
            forward=torch.compile(model, dynamic=False) if use_compile else model,
            average=average,
            x=dataset.x[kept].to(device).contiguous(memory_format=layout),
            y=dataset.y[kept].to(device),
            held_x=dataset.x[held].to(device).contiguous(memory_format=layout),
            held_y=dataset.y[held].to(device),
            progress=progress,
        )
        run.last = run.best = _weights(run.deployed)
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
        if self.progress is not None:
            total = max(1, self.planned.epochs)
            self.progress(Tick(min(done / total, 1.0), min(math.floor(done) + 1, total), total, phase, row))

    def snapshot(self) -> dict[str, Any]:
        """What `restore` goes on from: plain values and tensors only."""
        return {
            "model": _weights(self.model),
            "average": None if self.average is None else _weights(self.average),
            "best": self.best,
            "best_epoch": self.best_epoch,
            "best_score": list(self.best_score),
            "epoch": self.epoch,
            "log": [asdict(row) for row in self.log],
            "optimizers": self.optimizer_states,
        }

    def restore(self, state: dict[str, Any] | None) -> None:
        if state is None:
            return
        self.model.network.load_state_dict(state["model"])
        if self.average is not None:
            self.average.network.load_state_dict(state["average"])
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        first, second = state["best_score"]
        self.best_score = (first, second)
        self.epoch = state["epoch"]
        self.log = [EpochRow(**row) for row in state["log"]]
        self.optimizer_states = state["optimizers"]
        self.last = _weights(self.deployed)

    def outcome(self, regime: Regime) -> TrainingOutcome:
        planned, network = self.planned, self.planned.model.network
        sizes = {name: p.numel() for name, p in network.named_parameters()}
        return TrainingOutcome(
            last=_with_weights(planned.model, self.last),
            best=_with_weights(planned.model, self.best),
            best_epoch=self.best_epoch,
            architecture=planned.model.architecture,
            norm_layer=planned.model.norm_layer,
            trained=planned.trained,
            parameters=sum(sizes.values()),
            trained_parameters=sum(sizes[name] for name in planned.trained),
            log=tuple(self.log),
            facts=_facts(self),
        )


def _run_stage(run: _Run, number: int, stage: Stage, store: StateFile, regime: Regime) -> None:
    first = sum(s.epochs for s in run.planned.stages[:number])
    end = first + stage.epochs
    if run.epoch > end or (run.epoch == end and stage.epochs and run.log and run.log[-1].phase > number + 1):
        return  # a killed run had come further
    phase = number + 1
    resuming = run.epoch > first
    if not resuming:
        _reset(run, stage)
        run.best_score = (-1.0, -1.0)  # an earlier phase's best is not a result of the regime
    parameters = dict(run.model.network.named_parameters())
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in stage.trained)
    opts = optimizers.build(parameters, stage.trained, stage.own, run.settings)
    if resuming:
        for optimizer, state in zip(opts, run.optimizer_states, strict=True):
            optimizer.load_state_dict(state)
    for epoch in range(max(first, run.epoch), end):
        row = _epoch(run, stage, opts, epoch, epoch - first, phase)
        if row is None:
            raise TrainingDiverged(
                f"training diverged in epoch {epoch + 1} of {run.planned.epochs}: loss or weights are no longer "
                "finite; the state before that epoch is kept; lower the learning rate",
                run.outcome(regime),
            )
        run.epoch = epoch + 1
        run.last = _weights(run.deployed)
        run.optimizer_states = [optimizer.state_dict() for optimizer in opts]
        _record(run, row)
        store.save(run.snapshot())
        run.tick(run.epoch, phase, row)
    if stage.conduct.bn_statistics.startswith("re-estimated"):
        _reestimate(run, stage, phase)


def _epoch(
    run: _Run, stage: Stage, opts: list[Optimizer], epoch: int, epoch_of_stage: int, phase: int
) -> EpochRow | None:
    """One pass over the data; None if it left the finite numbers."""
    settings, rounds = run.settings, run.rounds
    draws = {
        name: generator(settings.seed, name, epoch, torch.device("cpu") if name == "order" else run.device)
        for name in ("order", "crops", "starts")
    }
    total = torch.zeros((), device=run.device)
    correct = torch.zeros((), device=run.device)
    began = time.perf_counter()
    factor = 0.0
    data = batches(
        run.x,
        run.y,
        size=settings.batch_size,
        augment=settings.augment == "crop-flip",
        order=draws["order"],
        crops=draws["crops"],
    )
    for i, (x, y) in enumerate(data):
        factor = SCHEDULES[settings.schedule]((epoch_of_stage + i / rounds) / stage.epochs)
        optimizers.set_rate(opts, factor)
        loss, logits = _step(run, stage, opts, x, y, draws["starts"])
        total += loss
        correct += (logits.argmax(dim=1) == y).float().mean()
        if run.average is not None:
            _follow(run.average.network, run.model.network, settings.weight_averaging or 0.0)
        run.tick(epoch + (i + 1) / rounds, phase)
    run.model.eval()
    mean = float(total) / rounds
    seconds = time.perf_counter() - began
    if not (math.isfinite(mean) and _finite(run.model.network)):
        return None
    clean, robust = _validate(run)
    rate = settings.learning_rate * factor
    return EpochRow(epoch + 1, phase, rate, mean, float(correct) / rounds, clean, robust, seconds)


def _step(
    run: _Run, stage: Stage, opts: list[Optimizer], x: Tensor, y: Tensor, starts: torch.Generator
) -> tuple[Tensor, Tensor]:
    """One optimiser step: the batch's loss and logits, detached."""
    conduct, settings = stage.conduct, run.settings
    objective = OBJECTIVES[conduct.loss]
    passes = _passes(run)
    points = x
    if objective.needs_examples:
        _set_mode(run.model, stage, training=conduct.crafting_mode == "train")
        clean = None
        if objective.needs_clean_logits:
            with torch.no_grad():
                clean = passes.clean(x)
        points = craft(
            run.model,
            x,
            raises=objective.raises(y, clean),
            crafting=run.planned.crafting,
            generator=starts,
            forward=passes.adversarial,
        )
    _set_mode(run.model, stage, training=True)
    with ExitStack() as stack:
        if conduct.awp is not None:
            weights = [p for n, p in run.model.network.named_parameters() if n in stage.perturbed]
            with _statistics_held(run.model):
                loss, _ = objective.loss(passes, x, points, y, conduct, settings.label_smoothing)
                grads = torch.autograd.grad(loss, weights)
            stack.enter_context(perturbed(weights, grads, conduct.awp.gamma))
        loss, logits = objective.loss(passes, x, points, y, conduct, settings.label_smoothing)
        for optimizer in opts:
            optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
    for optimizer in opts:
        optimizer.step()
    return loss.detach(), logits.detach()


def _passes(run: _Run) -> Passes:
    def through(branch: str) -> Callable[[Tensor], Tensor]:
        def forward(x: Tensor) -> Tensor:
            with use_branch(run.model, branch), _autocast(run):
                return run.forward(x).float()

        return forward

    if dual_layers(run.model):
        return Passes(clean=through("clean"), adversarial=through("adversarial"))

    def plain(x: Tensor) -> Tensor:
        with _autocast(run):
            return run.forward(x).float()

    return Passes(clean=plain, adversarial=plain)


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


def _reset(run: _Run, stage: Stage) -> None:
    fresh = dict(run.planned.fresh.network.named_parameters())
    with torch.no_grad():
        for name, parameter in run.model.network.named_parameters():
            if name in stage.reset:
                parameter.copy_(fresh[name])
    for name, layer in bn_layers(run.model.network).items():
        if name in stage.reset_layers:
            layer.reset_running_stats()
    if run.average is not None:
        run.average.network.load_state_dict(run.model.network.state_dict())
    run.last = _weights(run.deployed)


def _reestimate(run: _Run, stage: Stage, phase: int) -> None:
    """Statistics anew on the training data, then the model as it is now is the last and the best."""
    began = time.perf_counter()
    settings, cpu = run.settings, torch.device("cpu")
    frozen = copy.deepcopy(run.deployed).eval().requires_grad_(False)
    starts = generator(settings.seed, "re-estimate", 0, run.device)
    order = generator(settings.seed, "re-estimate", 0, cpu)

    def images() -> Iterator[Tensor]:
        for x, y in batches(run.x, run.y, size=settings.batch_size, augment=False, order=order, crops=starts):
            yield _attacked(frozen, x, y, run.planned.crafting, starts) if adversarial else x

    adversarial = stage.conduct.bn_statistics == "re-estimated-adversarial"
    reestimate(run.deployed, images())
    if run.average is not None:
        run.model.network.load_state_dict(run.average.network.state_dict())
    run.last = run.best = _weights(run.deployed)
    run.best_epoch = run.epoch
    clean, robust = _validate(run)
    row = EpochRow(run.epoch, phase, None, None, None, clean, robust, time.perf_counter() - began)
    run.log.append(row)
    run.tick(run.epoch, phase, row)


def _attacked(model: nn.Module, x: Tensor, y: Tensor, crafting: Crafting, starts: torch.Generator) -> Tensor:
    return craft(model, x, raises=OBJECTIVES["adversarial"].raises(y, None), crafting=crafting, generator=starts)


def _validate(run: _Run) -> tuple[float | None, float | None]:
    """Clean accuracy and accuracy under PGD of the deployed model on what was kept aside."""
    if not len(run.held_x):
        return None, None
    model = run.deployed.eval()
    threat = run.planned.crafting.threat
    crafting = Crafting.of("pgd", threat, steps=max(_VALIDATION_STEPS, run.planned.crafting.steps))
    # the same starts in every epoch, so that epochs differ by the model only
    starts = generator(run.settings.seed, "validation", 0, run.device)
    clean = robust = 0
    for x, y in zip(run.held_x.split(_VALIDATION_BATCH), run.held_y.split(_VALIDATION_BATCH), strict=True):
        points = _attacked(model, x, y, crafting, starts)
        with torch.no_grad():
            right = model(x).argmax(dim=1) == y
            clean += int(right.sum())
            robust += int((right & (model(points).argmax(dim=1) == y)).sum())
    return clean / len(run.held_x), robust / len(run.held_x)


def _record(run: _Run, row: EpochRow) -> None:
    run.log.append(row)
    clean, robust = row.validation_clean_acc, row.validation_robust_acc
    if clean is None or robust is None:
        run.best, run.best_epoch = run.last, run.epoch
        return
    stage = run.planned.stages[row.phase - 1]
    score = (clean, robust) if stage.conduct.loss == "natural" else (robust, clean)
    if score > run.best_score:
        run.best, run.best_epoch, run.best_score = run.last, run.epoch, score


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Exponential moving average of parameters and statistics. What stands still stays bit for bit."""
    for mine, theirs in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if mine.is_floating_point():
            mine.lerp_(theirs, 1 - decay)
        else:
            mine.copy_(theirs)


def _finite(network: nn.Module) -> bool:
    return all(bool(value.isfinite().all()) for value in network.state_dict().values())


def _weights(model: Model) -> Weights:
    return {name: value.detach().to("cpu", copy=True) for name, value in model.network.state_dict().items()}


def _with_weights(template: Model, weights: Weights) -> Model:
    model = copy.deepcopy(template)
    model.network.load_state_dict(weights)
    return model.eval().requires_grad_(False)


def _autocast(run: _Run) -> AbstractContextManager[Any]:
    if _chosen_precision(run.settings, run.device) != "bf16":
        return nullcontext()
    return torch.autocast(run.device.type, torch.bfloat16)


def _chosen_precision(settings: Settings, device: torch.device) -> str:
    if settings.precision == "auto":
        return "bf16" if device.type == "cuda" else "fp32"
    return settings.precision


@contextmanager
def _precision(settings: Settings, device: torch.device) -> Iterator[None]:
    """Whether float32 products may be rounded to TF32, as it was before at the end."""
    before = torch.get_float32_matmul_precision()
    convolutions = torch.backends.cudnn.allow_tf32
    allowed = _chosen_precision(settings, device) == "tf32"
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        torch.backends.cudnn.allow_tf32 = convolutions


def _facts(run: _Run) -> dict[str, Any]:
    settings, crafting = run.settings, run.planned.crafting
    return settings.model_dump(mode="json", exclude={"compile"}, exclude_none=True) | {
        "threat": str(crafting.threat),
        "step_size": crafting.step_size,
        "steps": crafting.steps,
        "epochs": run.planned.epochs,
        "precision": _chosen_precision(settings, run.device),
        "train_size": len(run.x),
        "validation_size": len(run.held_x),
        "best_epoch": run.best_epoch,
        "seconds": round(sum(row.seconds for row in run.log), 1),
        "device": run.device.type,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
