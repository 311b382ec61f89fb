"""Shared by the tests: a plain oracle, networks with known answers, and where foreign material lies."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from harness import models
from harness.attacks import Attack, Batch, Proposal, State
from harness.attacks._base import Loss
from harness.audit.flags import Flag
from harness.backends import Backend
from harness.backends.choose import Choice, Spent
from harness.engine import preflight
from harness.evaluation.plan import Plan
from harness.threat.rng import Draws, sample_keys

SHARED = Path(__file__).resolve().parents[2] / "shared"


AUDITED_AFTER = frozenset(("few-steps", "larger-eps-weaker", "noise-gains", "short-pgd-gains", "transfer-gains"))
"""Codes of flags that say how weak a suite is; those of the tests are weak on purpose."""


def of_strong_suites(flags: Iterable[Flag]) -> list[Flag]:
    """The flags that are not about a weak suite."""
    return [flag for flag in flags if flag.code not in AUDITED_AFTER]


def leave_out_audits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attack models without auditing them before and after, which takes most of a short evaluation's time."""
    monkeypatch.setattr(Plan, "audited", lambda *model: [])
    monkeypatch.setattr(Plan, "probed", lambda *attacked: ([], []))


class PlainOracle:
    """Passes on a model without packing, counting samples."""

    def __init__(self, model: nn.Module, micro_batch: int = 1) -> None:
        self.model = model.eval()
        self.micro_batch = micro_batch
        self.forward = 0
        self.backward = 0

    def logits(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        self.forward += len(x)
        with torch.no_grad():
            return self.model(x)

    def gradient(self, x: Tensor, loss: Loss, rows: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        self.forward += len(x)
        self.backward += len(x)
        leaf = x.detach().requires_grad_()
        logits = self.model(leaf)
        values = loss(logits, slice(None))
        (grad,) = torch.autograd.grad(values.sum(), leaf)
        return logits.detach(), values.detach(), grad

    def gradients(self, x: Tensor, losses: Loss, rows: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        self.forward += len(x)
        leaf = x.detach().requires_grad_()
        logits = self.model(leaf)
        values = losses(logits, slice(None))
        grads = []
        for j in range(values.shape[1]):
            self.backward += len(x)
            grads.append(torch.autograd.grad(values[:, j].sum(), leaf, retain_graph=True)[0])
        return logits.detach(), values.detach(), torch.stack(grads, dim=1)


def batch_of(model: nn.Module, x: Tensor, y: Tensor, *, seed: int = 0, stream: str = "test") -> Batch:
    """A batch as the engine would hand it to an attack."""
    with torch.no_grad():
        logits = model(x)
    return Batch(x, y, logits, Draws(sample_keys(x), seed, stream))


def drive(attack: Attack, model: nn.Module, batch: Batch, runs: int | None = None) -> tuple[Tensor, Tensor]:
    """Run an attack to its end without letting anyone leave: who was ever claimed, and the first point claimed.

    Returns:
        claimed bool ``[n]``, points ``[n, ...]`` (the clean image where nothing was claimed).
    """
    oracle = PlainOracle(model)
    points = batch.x.clone()
    claimed = torch.zeros(len(batch), dtype=torch.bool)

    def note(proposal: Proposal) -> None:
        fresh = proposal.claimed & ~claimed
        points[fresh] = proposal.points[fresh]
        claimed.logical_or_(proposal.claimed)

    for run in range(attack.runs if runs is None else runs):
        at = Batch(batch.x, batch.y, batch.logits, batch.draws.at(run))
        state: State
        state, proposal = attack.start(at, oracle, run)
        note(proposal)
        for i in range(attack.steps):
            state, proposal = attack.step(at, state, oracle, i)
            note(proposal)
    return claimed, points


def linear_model(
    classes: int, shape: tuple[int, ...], *, seed: int = 0, dtype: torch.dtype = torch.float64
) -> nn.Module:
    """A random linear classifier, whose distance to each decision boundary is known in closed form."""
    generator = torch.Generator().manual_seed(seed)
    features = int(torch.tensor(shape).prod())
    layer = nn.Linear(features, classes).to(dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(classes, features, generator=generator, dtype=dtype))
        layer.bias.copy_(torch.randn(classes, generator=generator, dtype=dtype) * 0.1)
    return nn.Sequential(nn.Flatten(), layer).requires_grad_(False)


def trained_looking(name: str) -> nn.Module:
    """An architecture whose batch norms have seen data."""
    shape = {"digits-resnet": (1, 8, 8), "lenet5": (1, 28, 28)}.get(name, (3, 32, 32))
    model = models.build(name, classes=10, shape=shape, norm_layer="none" if name == "lenet5" else "batch", seed=0)
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.2)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
    return model.eval()


def fix_choice(monkeypatch: pytest.MonkeyPatch, micro_batch: int = 24) -> None:
    """Take the copies in the order in which they are made, with so many rows, instead of timing them."""

    def fixed(plain: Backend, copies: list[Backend], images: Tensor, *, largest: int) -> tuple[list[Choice], Spent]:
        rows = min(micro_batch, largest)
        return [Choice(backend, rows, list(backend.notes)) for backend in (*copies, plain)], Spent(0, 0)

    monkeypatch.setattr(preflight, "choose", fixed)
