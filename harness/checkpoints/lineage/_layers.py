"""What the BN layers of a network hold."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harness.models import Model
from harness.models._selectors import bn_layers

__all__ = ["NEAR_ZERO", "BnLayer", "Summary", "bn_report"]

NEAR_ZERO = 0.01
"""A value below this, in size, counts as near zero."""


@dataclass(frozen=True)
class Summary:
    """Of the values of a tensor; ``near_zero`` is the share of those with a size below `NEAR_ZERO`."""

    mean: float
    std: float
    min: float
    max: float
    near_zero: float

    @classmethod
    def of(cls, values: Tensor) -> Summary:
        """Over all elements; the deviation is that of the values themselves, not an estimate."""
        v = values.detach().double().flatten().cpu()
        near = (v.abs() < NEAR_ZERO).double().mean().item()
        return cls(v.mean().item(), v.std(correction=0).item(), v.min().item(), v.max().item(), near)


@dataclass(frozen=True)
class BnLayer:
    """One BN layer.

    Attributes:
        statistics: what it normalises with as it stands: "stored", or "batch" (then a prediction depends on
            the other images in the batch).
        gamma, beta, running_mean, running_var: None where the layer has none.
        batches: how many batches the running statistics have seen, if that was counted.
    """

    name: str
    channels: int
    statistics: str
    gamma: Summary | None
    beta: Summary | None
    running_mean: Summary | None
    running_var: Summary | None
    batches: int | None


def bn_report(model: nn.Module) -> tuple[BnLayer, ...]:
    """The BN layers of a model in its order; of a `Model`, those of its network."""
    network = model.network if isinstance(model, Model) else model
    rows = []
    for name, layer in bn_layers(network).items():
        stored = layer.running_mean is not None and not layer.training
        counter = layer.num_batches_tracked
        rows.append(
            BnLayer(
                name=name,
                channels=layer.num_features,
                statistics="stored" if stored else "batch",
                gamma=_summary(layer.weight),
                beta=_summary(layer.bias),
                running_mean=_summary(layer.running_mean),
                running_var=_summary(layer.running_var),
                batches=None if counter is None else int(counter),
            )
        )
    return tuple(rows)


def _summary(values: torch.Tensor | None) -> Summary | None:
    return None if values is None else Summary.of(values)
