"""What differs between two checkpoints of one architecture, tensor by tensor, to the last bit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from harness.checkpoints import differences
from harness.errors import CheckpointError
from harness.models import Model, in_group, layer_groups

__all__ = ["PARTS", "Difference", "Part", "difference"]

PARTS = (
    "convolutions",
    "bn-gamma",
    "bn-beta",
    "head",
    "other",
    "bn-mean",
    "bn-var",
    "bn-batches",
    "buffers",
    "normalization",
)
"""Where a tensor can belong: parameters first, then what is not trained. The last is what the model does to
images before the network sees them; no regime changes it."""

_PARAMETERS = frozenset(PARTS[:5])
_BN = {
    "weight": "bn-gamma",
    "bias": "bn-beta",
    "running_mean": "bn-mean",
    "running_var": "bn-var",
    "num_batches_tracked": "bn-batches",
}


@dataclass(frozen=True)
class Part:
    """The tensors of one kind.

    Attributes:
        tensors: how many there are. values: how many numbers they hold.
        changed: names of those in which any bit differs. changed_values: how many numbers differ.
        movement: size of the change relative to the parent's values (Euclidean norms over all tensors of
            the part); infinite where the parent's are all zero.
    """

    name: str
    tensors: int
    values: int
    changed: tuple[str, ...]
    changed_values: int
    movement: float


@dataclass(frozen=True)
class Difference:
    """Two checkpoints compared.

    Attributes:
        parts: one each of `PARTS` that the network has.
        changed: names of the parameters in which any bit differs.
        moved_layers: names of the BN layers whose running mean or variance differs.
        parameters: how many numbers the network's parameters hold; changed_parameters: how many of them lie
            in changed tensors.
    """

    parts: tuple[Part, ...]
    changed: frozenset[str]
    moved_layers: frozenset[str]
    parameters: int
    changed_parameters: int

    @property
    def nothing(self) -> bool:
        """Whether every tensor is the same bit for bit."""
        return not any(part.changed for part in self.parts)

    @property
    def changed_share(self) -> float:
        """Share of the parameters that lie in changed tensors: the trained share, as the weights tell it."""
        return self.changed_parameters / max(1, self.parameters)


def difference(model: Model, parent: Model) -> Difference:
    """Compare a model with the one it was trained from.

    Raises:
        CheckpointError: they do not have the same tensors; the error lists what differs.
    """
    ours, theirs = _tensors(model.network), _tensors(parent.network)
    our_constants, their_constants = _constants(model), _constants(parent)
    differ = [*differences(theirs, ours), *differences(their_constants, our_constants)]
    if differ:
        raise CheckpointError(
            f"a {model.architecture} cannot be compared with a parent "
            f"that is a {parent.architecture}: {'; '.join(differ)}"
        )
    homes = _homes(model)
    parts = tuple(
        _part(name, {n: (ours[n], theirs[n]) for n in ours if homes[n] == name})
        for name in PARTS
        if name in homes.values()
    )
    if model.normalization is not None or parent.normalization is not None:
        pairs = {name: (our_constants[name], their_constants[name]) for name in our_constants}
        parts = (*parts, _part(PARTS[-1], pairs))
    changed = frozenset(n for part in parts if part.name in _PARAMETERS for n in part.changed)
    return Difference(
        parts=parts,
        changed=changed,
        moved_layers=frozenset(
            n.rpartition(".")[0] for part in parts if part.name in ("bn-mean", "bn-var") for n in part.changed
        ),
        parameters=sum(part.values for part in parts if part.name in _PARAMETERS),
        changed_parameters=sum(ours[name].numel() for name in changed),
    )


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    # a parameter that stands under several names counts once
    names = {name for name, _ in network.named_parameters(remove_duplicate=False)}
    again = names - {name for name, _ in network.named_parameters()}
    return {
        name: tensor.detach().cpu()
        for name, tensor in network.state_dict().items()
        if isinstance(tensor, Tensor) and name not in again
    }


def _constants(model: Model) -> dict[str, Tensor]:
    """Mean and deviation that images are normalised with; 0 and 1 change nothing, so they stand for none."""
    channels = model.shape[0]
    mean, std = (0.0,) * channels, (1.0,) * channels
    if model.normalization is not None:
        mean, std = model.normalization.mean, model.normalization.std
    return {
        "normalization.mean": torch.tensor(mean, dtype=torch.float64),
        "normalization.std": torch.tensor(std, dtype=torch.float64),
    }


def _homes(model: Model) -> dict[str, str]:
    """Name of each tensor -> the part it belongs to."""
    network = model.network
    head = layer_groups(model).get("head", ())
    parameters = {name for name, _ in network.named_parameters()}
    owners = dict(network.named_modules(remove_duplicate=False))
    homes = {}
    for name in _tensors(network):
        path, _, attribute = name.rpartition(".")
        owner = owners.get(path)
        if isinstance(owner, _BatchNorm) and attribute in _BN:
            homes[name] = _BN[attribute]
        elif name not in parameters:
            homes[name] = "buffers"
        elif in_group(name, head):
            homes[name] = "head"
        else:
            homes[name] = "convolutions" if isinstance(owner, _ConvNd) else "other"
    return homes


def _part(name: str, pairs: dict[str, tuple[Tensor, Tensor]]) -> Part:
    changed, differing, moved, size = [], 0, 0.0, 0.0
    for tensor, (ours, theirs) in pairs.items():
        different = int(_bits(ours).ne(_bits(theirs)).sum())
        if different:
            changed.append(tensor)
            differing += different
            moved += float((ours.double() - theirs.double()).square().sum())
        size += float(theirs.double().square().sum())
    relative = 0.0 if moved == 0 else float("inf") if size == 0 else (moved / size) ** 0.5
    values = sum(ours.numel() for ours, _ in pairs.values())
    return Part(name, len(pairs), values, tuple(changed), differing, relative)


def _bits(tensor: Tensor) -> Tensor:
    """The tensor's numbers as whole ones with the same bits: 0.0 and -0.0 differ, a NaN equals itself."""
    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return tensor.contiguous().reshape(-1).view(whole)
