"""A data set and settings small enough to train every regime in a moment."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness import datasets, models
from harness.checkpoints import Checkpoint, load, save
from harness.datasets import Dataset
from harness.models import Model, Normalization
from harness.regimes._base import Regime
from harness.training import Settings, TrainingOutcome, train

ARCHITECTURE = "digits-resnet"


@cache
def digits(count: int = 80) -> Dataset:
    return datasets.load("digits", split="train", limit=count)


def settings(**changes: Any) -> Settings:
    return Settings(**{"epochs": 3, "batch_size": 24, "steps": 2, "learning_rate": 0.05, "validation": 0.2} | changes)


def parent(folder: Path, *, architecture: str = ARCHITECTURE, norm_layer: str = "batch", seed: int = 7) -> Checkpoint:
    """A network whose BN layers have seen data and whose scales and shifts are not those of a fresh one."""
    data = digits()
    model = models.build(
        architecture,
        classes=10,
        shape=data.shape,
        norm_layer=norm_layer,
        normalization=Normalization((0.3,), (0.4,)),
        seed=seed,
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        model.train()(data.x)
    path = save(model.eval(), directory=folder, name="parent", regime="natural", dataset="digits", threat="Linf:0.15")
    return load(path)


def trained(regime: Regime, start: Checkpoint | None, **changes: Any) -> TrainingOutcome:
    return train(
        regime,
        dataset=digits(),
        settings=settings(**changes),
        architecture=None if start else ARCHITECTURE,
        parent=start,
    )


def untrained(regime: Regime, start: Checkpoint | None) -> Model:
    """The start of a regime, before any reset."""
    if start is not None:
        return start.model
    std, mean = torch.std_mean(digits().x.double())
    return models.build(
        ARCHITECTURE,
        classes=10,
        shape=digits().shape,
        norm_layer=regime.norm_layer or "own",
        normalization=Normalization((round(float(mean), 4),), (round(float(std), 4),)),
        seed=settings().seed,
    )


def tensors(model: Model) -> dict[str, Tensor]:
    return {name: value for name, value in model.network.state_dict().items() if not name.endswith("_extra_state")}


def moved(before: Model, after: Model) -> set[str]:
    """Names of the tensors that differ in any bit."""
    old, new = tensors(before), tensors(after)
    assert old.keys() == new.keys()
    return {name for name in old if not torch.equal(old[name], new[name])}
