"""Attacks that each break one contract, and one that breaks none."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from harness.attacks import Attack, Batch, Oracle, Proposal, State
from harness.threat import ThreatModel


@dataclass(frozen=True)
class Walk(Attack):
    """A random walk in the ball; what is bad about the others is a method of theirs."""

    threat: ThreatModel
    runs: int = 2
    steps: int = 8
    seen: list[int] = field(default_factory=list)

    def start(self, batch: Batch, oracle: Oracle, run: int) -> tuple[State, Proposal]:
        point = self.threat.geometry.inside(batch.x, self.threat.radius, batch.draws, 0)
        return self.tried(batch, {"point": point}, oracle)

    def step(self, batch: Batch, state: State, oracle: Oracle, i: int) -> tuple[State, Proposal]:
        move = self.threat.geometry.steepest(self.noise(batch, state, i))
        state["point"] = self.threat.project(state["point"] + self.threat.radius * move, batch.x)
        return self.tried(batch, state, oracle)

    def noise(self, batch: Batch, state: State, i: int) -> torch.Tensor:
        return self.threat.geometry.noise(batch.x, batch.draws, i + 2)

    def tried(self, batch: Batch, state: State, oracle: Oracle) -> tuple[State, Proposal]:
        wrong = oracle.logits(state["point"]).argmax(dim=1) != batch.y
        return state, Proposal(state["point"], wrong)


class TorchRandomness(Walk):
    def noise(self, batch: Batch, state: State, i: int) -> torch.Tensor:
        return torch.randn_like(batch.x)


class NumpyRandomness(Walk):
    def noise(self, batch: Batch, state: State, i: int) -> torch.Tensor:
        return super().noise(batch, state, i) * float(np.random.uniform(0.5, 1))  # noqa: NPY002


class PythonRandomness(Walk):
    def noise(self, batch: Batch, state: State, i: int) -> torch.Tensor:
        return super().noise(batch, state, i) * random.choice([-1, 1])


class ReadsGlobalState(Walk):
    """Draws from the global generator and puts its state back."""

    def noise(self, batch: Batch, state: State, i: int) -> torch.Tensor:
        with torch.random.fork_rng(devices=[]):
            return torch.randn_like(batch.x)


class BatchRandomness(Walk):
    """One generator for the whole batch, seeded alike whoever is in it."""

    def noise(self, batch: Batch, state: State, i: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(i)
        return torch.randn(batch.x.shape, generator=generator, dtype=batch.x.dtype)


class BatchMean(Walk):
    """What is common to the batch decides for each of its samples."""

    def noise(self, batch: Batch, state: State, i: int) -> torch.Tensor:
        return super().noise(batch, state, i) + state["point"].mean(dim=0, keepdim=True)


class KeepsInItself(Walk):
    def noise(self, batch: Batch, state: State, i: int) -> torch.Tensor:
        self.seen.append(i)
        return super().noise(batch, state, i) * (-1) ** len(self.seen)


class KeepsQuietly(Walk):
    """Keeps a count that changes nothing yet."""

    def noise(self, batch: Batch, state: State, i: int) -> torch.Tensor:
        self.seen.append(i)
        return super().noise(batch, state, i)


class RemembersOutside(Walk):
    """Keeps the last point of a batch in a place that is not its state."""

    def noise(self, batch: Batch, state: State, i: int) -> torch.Tensor:
        last = self.__dict__.get("last")
        object.__setattr__(self, "last", state["point"].clone())
        fits = last is not None and last.shape == state["point"].shape
        return super().noise(batch, state, i) + (last if fits else 0)


class OutOfTheBall(Walk):
    def tried(self, batch: Batch, state: State, oracle: Oracle) -> tuple[State, Proposal]:
        state["point"] = batch.x + 1.2 * (state["point"] - batch.x)
        return super().tried(batch, state, oracle)


class OutOfTheBox(Walk):
    def tried(self, batch: Batch, state: State, oracle: Oracle) -> tuple[State, Proposal]:
        state, proposal = super().tried(batch, state, oracle)
        return state, proposal._replace(points=proposal.points - 1, claimed=torch.ones_like(proposal.claimed))


class NotANumber(Walk):
    def tried(self, batch: Batch, state: State, oracle: Oracle) -> tuple[State, Proposal]:
        state, proposal = super().tried(batch, state, oracle)
        return state, proposal._replace(points=proposal.points * torch.nan)


class ChangesImages(Walk):
    def tried(self, batch: Batch, state: State, oracle: Oracle) -> tuple[State, Proposal]:
        batch.x.clamp_(max=0.5)
        return super().tried(batch, state, oracle)


class SharedState(Walk):
    """A state tensor without a row a sample."""

    def tried(self, batch: Batch, state: State, oracle: Oracle) -> tuple[State, Proposal]:
        state["count"] = torch.zeros(3)
        return super().tried(batch, state, oracle)


class WrongMask(Walk):
    def tried(self, batch: Batch, state: State, oracle: Oracle) -> tuple[State, Proposal]:
        state, proposal = super().tried(batch, state, oracle)
        return state, proposal._replace(claimed=proposal.claimed.long())


class NeedsFullBatches(Walk):
    """Another point where a batch may be filled up."""

    def noise(self, batch: Batch, state: State, i: int) -> torch.Tensor:
        return super().noise(batch, state, i) * state["scale"][:, None, None, None]

    def tried(self, batch: Batch, state: State, oracle: Oracle) -> tuple[State, Proposal]:
        state["scale"] = torch.full((len(batch),), 1.0 if oracle.micro_batch == 1 else -1.0, dtype=torch.float64)
        return super().tried(batch, state, oracle)


class Unpicklable(Walk):
    def __init__(self, threat: ThreatModel) -> None:
        super().__init__(threat)
        object.__setattr__(self, "way", lambda: None)


def maker(kind: type[Walk]) -> Callable[..., Attack]:
    def build(threat: ThreatModel, classes: int, **parameters: Any) -> Attack:
        return kind(threat)

    return build


walk = maker(Walk)
torch_randomness = maker(TorchRandomness)
numpy_randomness = maker(NumpyRandomness)
python_randomness = maker(PythonRandomness)
reads_global_state = maker(ReadsGlobalState)
batch_randomness = maker(BatchRandomness)
batch_mean = maker(BatchMean)
keeps_in_itself = maker(KeepsInItself)
keeps_quietly = maker(KeepsQuietly)
remembers_outside = maker(RemembersOutside)
out_of_the_ball = maker(OutOfTheBall)
out_of_the_box = maker(OutOfTheBox)
not_a_number = maker(NotANumber)
changes_images = maker(ChangesImages)
shared_state = maker(SharedState)
wrong_mask = maker(WrongMask)
needs_full_batches = maker(NeedsFullBatches)
unpicklable = maker(Unpicklable)
