"""BN values of one network put into another, part by part: which of them carry what the other network gained.

A BN layer holds a scale (gamma), a shift (beta) and two running statistics (mean and variance). Training that
changes BN layers alone moves all four together. Here they are moved separately: each alone, in every
combination, layer by layer, and along the straight line between the two networks.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.errors import InvalidInput
from harness.models import Model
from harness.models._selectors import bn_layers
from harness.results.record import Verdicts

__all__ = ["PARTS", "Mix", "Row", "Swap", "bn_swap", "mixed", "parts_of"]

PARTS = ("gamma", "beta", "mean", "variance")
"""What a BN layer holds, in the order of the tables."""

_TENSORS = {"gamma": "weight", "beta": "bias", "mean": "running_mean", "variance": "running_var"}

_Answers = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Mix:
    """Which values come from B in a copy of A.

    Attributes:
        kind: "combination" (all layers), "layer" (one layer, or all layers but one), "path" (a share of the way)
            or "b" (B itself, where A and B differ in more than their BN layers).
        parts: which of `PARTS` come from B.
        layer: the BN layer that the mix is about; None where it is about all of them.
        without: whether that layer is the only one left as in A, instead of the only one taken from B.
        share: of the way from A to B; 1 outside of a path.
    """

    kind: str
    parts: tuple[str, ...]
    layer: str | None = None
    without: bool = False
    share: float = 1.0

    @property
    def label(self) -> str:
        """What comes from B, for people."""
        named = " + ".join(self.parts) or "nothing (A itself)"
        if self.kind == "b":
            return "B itself"
        if self.kind == "path":
            return f"{100 * self.share:.0f} % of the way"
        if self.layer is None:
            return named
        return f"all but {self.layer}" if self.without else f"{self.layer}: {named}"


@dataclass(frozen=True, eq=False)
class Row:
    """What became of every sample under one mix: bool ``[n]``, right without attack and under every attack."""

    mix: Mix
    clean: _Answers
    robust: _Answers


@dataclass(frozen=True, eq=False)
class Swap:
    """What `bn_swap` found.

    Attributes:
        parts: those of `PARTS` that the networks have; without gamma and beta only the statistics are left.
        layers: names of the BN layers.
        rest_equal: whether A and B are equal outside of their BN layers; then all parts from B make B.
        rows: all networks that were evaluated; combinations first, from none of the parts to all.
    """

    parts: tuple[str, ...]
    layers: tuple[str, ...]
    rest_equal: bool
    rows: tuple[Row, ...]

    def of_kind(self, kind: str) -> tuple[Row, ...]:
        """The rows of one kind, in order."""
        return tuple(row for row in self.rows if row.mix.kind == kind)


def bn_swap(
    a: Model,
    b: Model,
    judge: Callable[[Model], Verdicts],
    *,
    by_layer: bool = False,
    path_points: int = 5,
    report: Callable[[str], None] | None = None,
) -> Swap:
    """Evaluate A with every combination of BN parts from B.

    Args:
        a, b: networks of one architecture; left as they are.
        judge: evaluates a network on samples that are the same for all.
        by_layer: also each part and all parts of every layer alone, and of all layers but one.
        path_points: networks on the straight line from A to B in all BN values, both ends counted; 0 for none.
        report: hears the label of every network before it is evaluated.

    Raises:
        InvalidInput: other architectures, no BN layers, BN layers that are equal, or one point on a path.
    """
    parts = parts_of(a, b)
    if path_points == 1 or path_points < 0:
        raise InvalidInput(f"a path from A to B has at least 2 points, or 0 for none, got {path_points}")
    layers = tuple(bn_layers(a.network))
    rest_equal = _rest_equal(a, b)
    mixes = [Mix("combination", chosen) for size in range(len(parts) + 1) for chosen in combinations(parts, size)]
    mixes += [] if rest_equal else [Mix("b", parts)]
    for layer in layers if by_layer else ():
        mixes += [Mix("layer", chosen, layer) for chosen in (*((part,) for part in parts), parts)]
        mixes.append(Mix("layer", parts, layer, without=True))
    mixes += [Mix("path", parts, share=point / (path_points - 1)) for point in range(path_points)]
    known: dict[object, Row] = {}
    rows = []
    for mix in mixes:
        values = _values_of(mix)
        if values in known:  # both ends of a path are combinations
            rows.append(Row(mix, known[values].clean, known[values].robust))
            continue
        if report is not None:
            report(mix.label)
        verdicts = judge(copy.deepcopy(b) if mix.kind == "b" else _mixed(a, b, mix, layers))
        known[values] = Row(mix, verdicts.clean_pred == verdicts.y, verdicts.robust)
        rows.append(known[values])
    return Swap(parts, layers, rest_equal, tuple(rows))


def _values_of(mix: Mix) -> object:
    """Equal for mixes that are the same network."""
    parts = mix.parts if mix.share > 0 else ()
    return mix.kind == "b", parts, mix.layer, mix.without, mix.share if parts else 1.0


def _mixed(a: Model, b: Model, mix: Mix, layers: Sequence[str]) -> Model:
    chosen = layers
    if mix.layer is not None:
        chosen = [layer for layer in layers if (layer != mix.layer) == mix.without]
    return mixed(a, b, mix.parts, layers=chosen, share=mix.share)


def parts_of(a: Model, b: Model) -> tuple[str, ...]:
    """Those of `PARTS` that can be swapped between two networks.

    Raises:
        InvalidInput: other architectures, no BN layers, or BN layers that are equal.
    """
    if _shapes(a) != _shapes(b):
        raise InvalidInput(
            "BN values are swapped between networks whose tensors have the same names and shapes, got "
            f"{a.architecture} with norm layer {a.norm_layer!r} and {b.architecture} with norm layer "
            f"{b.norm_layer!r}: choose two checkpoints of one architecture"
        )
    held = _bn_tensors(a)
    if not held:
        raise InvalidInput(
            f"{a.architecture} with norm layer {a.norm_layer!r} has no BN layer: there is nothing to swap"
        )
    theirs = _bn_tensors(b)
    if all(torch.equal(tensor.cpu(), theirs[key].cpu()) for key, tensor in held.items()):
        raise InvalidInput("the BN layers of A and B are equal to the last bit: there is nothing to swap")
    return tuple(part for part in PARTS if any(part == one for _, one in held))


def mixed(
    a: Model, b: Model, parts: Collection[str], *, layers: Collection[str] | None = None, share: float = 1.0
) -> Model:
    """A copy of A with some BN values taken from B.

    Args:
        parts: which of `PARTS`. layers: in which BN layers; None for all.
        share: of the way from A's values to B's, on the straight line between them.
    """
    model = copy.deepcopy(a)
    theirs = _bn_tensors(b)
    with torch.no_grad():
        for (layer, part), tensor in _bn_tensors(model).items():
            if part in parts and (layers is None or layer in layers):
                # lerp is exact at both ends
                tensor.copy_(torch.lerp(tensor, theirs[layer, part].to(tensor.device), share))
    return model


def _bn_tensors(model: Model) -> Mapping[tuple[str, str], Tensor]:
    return {
        (name, part): tensor
        for name, layer in bn_layers(model.network).items()
        for part, attribute in _TENSORS.items()
        if isinstance(tensor := getattr(layer, attribute), Tensor)
    }


def _shapes(model: Model) -> tuple[list[tuple[str, tuple[int, ...]]], list[str]]:
    state = {name: value for name, value in model.network.state_dict().items() if isinstance(value, Tensor)}
    return [(name, tuple(tensor.shape)) for name, tensor in state.items()], list(bn_layers(model.network))


def _rest_equal(a: Model, b: Model) -> bool:
    moved = {f"{layer}.{attribute}" for layer in bn_layers(a.network) for attribute in _TENSORS.values()}
    moved |= {f"{layer}.num_batches_tracked" for layer in bn_layers(a.network)}  # no part of a prediction
    ours, theirs = a.network.state_dict(), b.network.state_dict()
    kept = [name for name, value in ours.items() if name not in moved and isinstance(value, Tensor)]
    return a.normalization == b.normalization and all(
        torch.equal(ours[name].cpu(), theirs[name].cpu()) for name in kept
    )
