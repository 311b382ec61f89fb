"""What an attack is: a recipe that the engine drives, one iteration at a time, over packed batches.

The engine owns the loop, so that a sample leaves as soon as an adversarial example for it is verified,
the survivors are packed, passes are counted, and a killed run continues from its last iteration. Hence an
attack keeps nothing in itself: all that it knows of a sample between iterations is in the `State`, a
dictionary of tensors whose first dimension is the sample. The engine slices and joins states freely.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

from torch import Tensor

from harness.audit.flags import Flag
from harness.threat.rng import Draws

__all__ = ["Attack", "Batch", "Loss", "Oracle", "Proposal", "State"]

State = dict[str, Tensor]
"""Everything an attack remembers of its samples; every tensor is ``[n, ...]``."""

Loss = Callable[[Tensor, slice], Tensor]
"""From the logits ``[m, k]`` of some of the rows of a pass, and which rows these are, to one value per
row ``[m]`` (or several, ``[m, j]``)."""


class Proposal(NamedTuple):
    """Points that an attack believes adversarial: ``points [n, ...]``, ``claimed`` bool ``[n]``.

    Rows that are not claimed carry no meaning. A claimed point must lie in the threat model.

    Attributes:
        over: bool ``[n]``, the samples whose run ends early; None where no run does.
    """

    points: Tensor
    claimed: Tensor
    over: Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """The samples that an attack works on.

    Attributes:
        x: clean images in [0, 1], ``[n, ...]``.
        y: true classes, int64 ``[n]``; all are classified correctly without attack.
        logits: the judged model's output on ``x``, ``[n, k]`` (so that choosing targets costs no pass).
        draws: the samples' random numbers in this run.
    """

    x: Tensor
    y: Tensor
    logits: Tensor
    draws: Draws

    def __len__(self) -> int:
        return self.x.shape[0]

    def rows(self, index: Tensor) -> Batch:
        """Some of the samples (``index``: bool mask or positions)."""
        return Batch(self.x[index], self.y[index], self.logits[index], self.draws.rows(index))


class Oracle(Protocol):
    """Model passes, counted per sample. ``rows`` says which samples of the batch ``x`` belongs to
    (positions), where it is not the whole batch.

    Outputs are detached and have the dtype of ``x``.

    Attributes:
        micro_batch: the number of rows at which a row costs least. A smaller batch may be filled up to it with points
            that may be needed later.
    """

    micro_batch: int

    def logits(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """One forward pass: ``[m, k]``."""
        ...

    def gradient(self, x: Tensor, loss: Loss, rows: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """One forward and one backward pass: logits ``[m, k]``, loss ``[m]``, its gradient ``[m, ...]``."""
        ...

    def gradients(self, x: Tensor, losses: Loss, rows: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """One forward and ``j`` backward passes for losses ``[m, j]``: logits, losses, ``[m, j, ...]``."""
        ...


class Attack(ABC):
    """A recipe for one suite step.

    Attributes:
        gradient_free: it makes no backward passes, so that what it breaks beyond the attacks before it may be a sign
            of masked gradients.
        seeks_nearest: it goes on from an adversarial example to nearer ones, so that the nearest one that a run has
            claimed is an estimate of the distance to the decision boundary.
        step_cost: how many forward passes take as long as an iteration; one with its backward pass counts three.
        runs: restarts times targets; each run begins from the clean images of the samples that survive so far.
        steps: how often `step` is called in a run, at most.
        flags: what had to be adapted to the model; they go into the result, with the name of the step.
    """

    gradient_free: ClassVar[bool] = False
    seeks_nearest: ClassVar[bool] = False
    step_cost: ClassVar[int] = 3

    runs: int
    steps: int
    flags: tuple[Flag, ...] = ()

    def unfit(self, shape: tuple[int, ...]) -> str | None:
        """Why inputs of a shape (without the batch) cannot be attacked, as a sentence; None where they can."""
        return None

    @abstractmethod
    def start(self, batch: Batch, oracle: Oracle, run: int) -> tuple[State, Proposal]:
        """Begin run number ``run``: the first points and what is known of them."""

    @abstractmethod
    def step(self, batch: Batch, state: State, oracle: Oracle, i: int) -> tuple[State, Proposal]:
        """Iteration ``i`` (from 0). The state passed in belongs to the attack and may be updated in place."""

    def done(self, state: State) -> Tensor | None:
        """The share of its run that each sample has completed, ``[n]``. None where all take the same ``steps``
        iterations."""
        return None
