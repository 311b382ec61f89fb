"""Two batch norms in one place, and switching a network between them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from harness.errors import CheckpointError, InvalidInput, UnknownName

__all__ = ["DualBatchNorm2d", "deploy_branch", "dual_layers", "use_branch"]

_BRANCHES = ("clean", "adversarial")


class DualBatchNorm2d(nn.Module):
    """Batch norm with a branch for clean and one for adversarial batches.

    In training and in evaluation alike the deployed branch works, unless `use_branch` selects one. Which
    branch is deployed is part of the state dict (a uint8 tensor: the position in "clean", "adversarial").

    Attributes:
        clean, adversarial: the two layers, each with parameters and statistics of its own.
        deployed: the branch that works where none is selected.
        selected: the branch that `use_branch` has selected, None outside of it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.clean = nn.BatchNorm2d(channels)
        self.adversarial = nn.BatchNorm2d(channels)
        self.deployed = "clean"
        self.selected: str | None = None

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = getattr(self, self.selected or self.deployed)(x)
        return out

    def get_extra_state(self) -> Tensor:
        return torch.tensor(_BRANCHES.index(self.deployed), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        if state.numel() != 1 or int(state) not in range(len(_BRANCHES)):
            raise CheckpointError(
                f"the deployed batch norm branch is stored as 0 or 1 ({', '.join(_BRANCHES)}), got {state.tolist()}"
            )
        self.deployed = _BRANCHES[int(state)]

    def extra_repr(self) -> str:
        return f"deployed={self.deployed!r}"


def dual_layers(model: nn.Module) -> tuple[DualBatchNorm2d, ...]:
    """The dual batch norms of a network, in order; empty where it has none."""
    return tuple(module for module in model.modules() if isinstance(module, DualBatchNorm2d))


@contextmanager
def use_branch(model: nn.Module, branch: str) -> Iterator[None]:
    """Let ``branch`` ("clean" or "adversarial") work in all dual batch norms of ``model`` for a while.

    Raises:
        UnknownName: another branch.
        InvalidInput: the model has no dual batch norm.
    """
    layers = _checked(model, branch)
    before = [layer.selected for layer in layers]
    for layer in layers:
        layer.selected = branch
    try:
        yield
    finally:
        for layer, selected in zip(layers, before, strict=True):
            layer.selected = selected


def deploy_branch(model: nn.Module, branch: str) -> None:
    """Make ``branch`` the one that works when none is selected: the model's own from now on.

    Raises:
        UnknownName: a branch other than "clean" and "adversarial".
        InvalidInput: the model has no dual batch norm.
    """
    for layer in _checked(model, branch):
        layer.deployed = branch


def _checked(model: nn.Module, branch: str) -> tuple[DualBatchNorm2d, ...]:
    if branch not in _BRANCHES:
        raise UnknownName("batch norm branch", branch, _BRANCHES)
    layers = dual_layers(model)
    if not layers:
        raise InvalidInput(
            f"the model has no dual batch norm and so no {branch} branch; build it with norm layer 'dual'"
        )
    return layers
