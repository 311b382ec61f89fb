"""The same weights under other running statistics.

What a batch-norm layer subtracts and divides by is no weight; it was gathered while the network was trained, on
whatever images that training saw. How much of a robustness is in these numbers is found by putting others in
their place: re-estimated on clean training images, on adversarial ones, or taken from the batch at hand.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.audit import kinds
from harness.audit.flags import Flag
from harness.batchnorm.reestimate import reestimate
from harness.datasets import Dataset
from harness.errors import InvalidInput, UnknownName
from harness.models import Model
from harness.models._selectors import bn_layers
from harness.threat import ThreatModel
from harness.threat.perturb import Crafting, craft
from harness.threat.rng import sample_keys
from harness.util import choices

__all__ = ["BN_STATISTICS", "STORED", "BnStatistics"]

STORED = "stored"
BN_STATISTICS = choices.names(choices.BnStatisticsKind)

_BATCH = 128
_STEPS = 10


@dataclass(frozen=True, eq=False)
class BnStatistics:
    """Which statistics a model is evaluated with, and what they are estimated on.

    Attributes:
        kind: one of `BN_STATISTICS`.
        data: training images; needed for "clean" and "adversarial", and looked at by no other kind.
        seed: of the order of the batches and the random starts.

    Raises:
        UnknownName: another kind.
        InvalidInput: no images, or fewer than two, where some are needed.
    """

    kind: str = STORED
    data: Dataset | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in BN_STATISTICS:
            raise UnknownName("kind of BN statistics", self.kind, BN_STATISTICS)
        if self.estimated and (self.data is None or len(self.data) < 2):
            raise InvalidInput(
                f"BN statistics of the kind {self.kind!r} are estimated on training images, at least two: "
                f"got {'none' if self.data is None else len(self.data)}"
            )

    @property
    def estimated(self) -> bool:
        """Whether images are needed to estimate them."""
        return self.kind in ("clean", "adversarial")

    def facts(self, threat: ThreatModel) -> dict[str, Any]:
        """All that they depend on beside the weights; empty where that is nothing."""
        if self.data is None or not self.estimated:
            return {}
        facts = {
            "dataset": self.data.name,
            "split": self.data.split,
            "n": len(self.data),
            "sha256": self.data.sha256,
            "batch_size": _BATCH,
            "seed": self.seed,
        }
        if self.kind == "adversarial":
            crafting = _crafting(threat)
            facts |= {"attack": crafting.kind, "steps": crafting.steps, "step_size": crafting.step_size}
            facts |= {"threat": str(threat)}
        return facts

    def flags(self, evaluated: Dataset) -> tuple[Flag, ...]:
        """Reasons to doubt an evaluation on ``evaluated`` with these statistics."""
        if self.kind == "batch":
            return (kinds.BN_STATS_BATCH(),)
        if self.data is None or not self.estimated:
            return ()
        seen = int(np.isin(sample_keys(evaluated.x), sample_keys(self.data.x)).sum())
        return (kinds.BN_STATS_SEEN(kind=self.kind, seen=seen, of=len(evaluated)),) if seen else ()

    def applied(
        self,
        model: Model,
        threat: ThreatModel,
        *,
        device: torch.device | str = "cpu",
        report: Callable[[float], None] | None = None,
    ) -> Model:
        """A copy of ``model`` with these statistics, in eval mode; ``model`` itself is left as it is.

        Adversarial images are crafted against the model with its stored statistics: half-estimated ones are
        nobody's.

        Args:
            threat: what the adversarial images stay in.
            device: where to estimate, and where the copy is.
            report: hears the share done.

        Raises:
            InvalidInput: the model has no BN layer that keeps statistics, or other images than these.
        """
        self.check(model)
        changed = copy.deepcopy(model).to(device).eval()
        if self.kind == "batch":
            for layer in bn_layers(changed.network).values():
                # torch's way to say that a layer has no statistics of its own and takes those of the batch
                layer.running_mean = layer.running_var = layer.num_batches_tracked = None
                layer.track_running_stats = False
        if self.data is not None and self.estimated:
            # made before the estimate begins, which starts by throwing the stored statistics away
            target = copy.deepcopy(changed).requires_grad_(False)
            reestimate(changed, self._images(target, self.data, threat, report or (lambda done: None)))
        return changed

    def check(self, model: Model) -> None:
        """See whether the model can be given these statistics.

        Raises:
            InvalidInput: as `applied`.
        """
        if self.kind == STORED:
            return
        if all(layer.running_mean is None for layer in bn_layers(model.network).values()):
            raise InvalidInput(
                f"BN statistics of the kind {self.kind!r} need a model with BN layers that keep running statistics, "
                f"and this {model.architecture} with norm layer {model.norm_layer!r} has none: evaluate it with its "
                "stored ones"
            )
        if self.data is None or not self.estimated:
            return
        there, wanted = (self.data.shape, len(self.data.classes)), (tuple(model.shape), model.classes)
        if there != wanted:
            raise InvalidInput(
                f"the training images {self.data.name} have shape {list(there[0])} and {there[1]} classes, the model "
                f"takes {list(wanted[0])} and knows {wanted[1]}: name others with --bn-data"
            )

    def _images(
        self, target: Model, data: Dataset, threat: ThreatModel, report: Callable[[float], None]
    ) -> Iterator[Tensor]:
        device = next(target.parameters()).device
        # on the CPU, so that another device sees the same batches and starts
        draws = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(len(data), generator=draws)
        size = min(_BATCH, len(data))
        # images beyond the last full batch are left out: every batch counts the same in the average
        for first in range(0, len(data) - size + 1, size):
            chosen = order[first : first + size]
            x, y = data.x[chosen].to(device), data.y[chosen].to(device)
            yield x if self.kind == "clean" else _adversarial(target, x, y, threat, draws)
            report((first + size) / len(data))


def _crafting(threat: ThreatModel) -> Crafting:
    return Crafting.of("pgd", threat, steps=_STEPS)


def _adversarial(model: Model, x: Tensor, y: Tensor, threat: ThreatModel, draws: torch.Generator) -> Tensor:
    def raises(logits: Tensor) -> Tensor:
        return F.cross_entropy(logits, y, reduction="sum")

    with torch.enable_grad():  # whatever the caller does, crafting needs gradients
        return craft(model, x, raises=raises, crafting=_crafting(threat), generator=draws)
