"""How accurate a network is under several normalisations, so that a wrong one is seen at once."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from harness import datasets
from harness.checkpoints._normalizations import NORMALIZATIONS
from harness.datasets import Dataset
from harness.errors import HarnessError
from harness.models import Model, Normalization

__all__ = ["Comparison", "compare_normalizations"]

_IMAGES = 200
_BATCH = 50
_CLEARLY = 0.05
"""Accuracy on 200 images that a better normalisation is ahead by, where chance does not explain it easily."""

_CHOSEN = "as registered"


@dataclass(frozen=True)
class Comparison:
    """Clean accuracy of one network on some images under several normalisations.

    Attributes:
        dataset: its name. images: how many. accuracies: fractions by the name of the normalisation.
        chosen: the name of the one that the model has; None where it is yet to be chosen.
    """

    dataset: str
    images: int
    accuracies: Mapping[str, float]
    chosen: str | None

    @property
    def better(self) -> str | None:
        """The name of a normalisation that is clearly more accurate than the chosen one, if there is one."""
        best = max(self.accuracies, key=lambda name: self.accuracies[name])
        ahead = self.chosen is not None and self.accuracies[best] >= self.accuracies[self.chosen] + _CLEARLY
        return best if ahead else None

    def __str__(self) -> str:
        """The accuracies, the chosen one first."""
        order = sorted(self.accuracies, key=lambda name: (name != self.chosen, -self.accuracies[name], name))
        shown = ", ".join(f"{name} {100 * self.accuracies[name]:.1f} %" for name in order)
        return f"clean accuracy on {self.images} {self.dataset} images by normalization: {shown}"


def compare_normalizations(
    model: Model, dataset: str | None, *, chosen: bool = True, data_dir: str | Path | None = None
) -> Comparison | None:
    """A model under its own normalisation and under others that people use; None where the images are not at hand.

    Args:
        dataset: on which; nothing is downloaded.
        chosen: whether the model's normalisation is one that was chosen.
    """
    if dataset is None:
        return None
    data = _images(dataset, tuple(model.shape), data_dir)
    if data is None or len(data.classes) != model.classes:
        return None
    candidates = {
        name: constants
        for name, constants in NORMALIZATIONS.items()
        if constants is None or len(constants.mean) == model.shape[0]
    }
    own = None
    if chosen:
        own = next((name for name, one in candidates.items() if _same(one, model.normalization)), _CHOSEN)
        candidates[own] = model.normalization
    network = model.network.eval()
    accuracies = {name: _accuracy(network, data.x[:], data.y, one) for name, one in candidates.items()}
    return Comparison(data.name, len(data), accuracies, own)


def _same(one: Normalization | None, other: Normalization | None) -> bool:
    return one.close_to(other) if one is not None and other is not None else one is other


def _accuracy(network: nn.Module, x: Tensor, y: Tensor, normalization: Normalization | None) -> float:
    if normalization is not None:
        mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in (normalization.mean, normalization.std))
        x = (x - mean) / std
    with torch.no_grad():
        parts = [x[begin : begin + _BATCH] for begin in range(0, len(x), _BATCH)]
        predicted = torch.cat([network(part).argmax(1) for part in parts])
    return float((predicted == y).double().mean())


def _images(dataset: str, shape: tuple[int, ...], data_dir: str | Path | None) -> Dataset | None:
    """Some images of a shape; photographs in a folder are made that large."""
    for form in (datasets.AS_THEY_ARE, datasets.Form(resize=shape[1], crop=shape[1])):
        with suppress(HarnessError):  # it is no reason to refuse weights that their images are not here
            data = datasets.load(dataset, limit=_IMAGES, data_dir=data_dir, form=form)
            if data.shape == shape:
                return data
    return None
