"""The normalisation that a file's model did itself, from constants beside its weights."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from harness.models import Normalization
from harness.weights import StoredTensor, WeightsFile

__all__ = ["constants_of", "for_bytes", "scaled"]

# as parts of a name: mean, new_mean, image_mean, mu; std, stds, data_std, sds, sigma
_MEAN = re.compile(r"(?:^|_)(?:means?|mu)(?:_|$)")
_DEVIATION = re.compile(r"(?:^|_)(?:stds?|sds?|sigma)(?:_|$)")
_LARGEST_MEAN = 1.5
_LARGEST_DEVIATION = 5.0
_BYTE = 255
_MOST = 100


def constants_of(
    file: WeightsFile, spare: Mapping[str, StoredTensor], channels: int
) -> dict[Normalization, tuple[str, ...]]:
    """Constants of normalisations (``normalize.mean`` and ``normalize.std``, ...) among tensors that are not the
    network's.

    Returns:
        each normalisation, with the names of all tensors that say it.
    """
    pairs: dict[str, dict[str, str]] = {}
    for name, tensor in spare.items():
        path, _, last = name.rpartition(".")
        kind = "mean" if _MEAN.search(last) else "std" if _DEVIATION.search(last) else None
        if kind and tensor.numel in (1, channels) and tensor.dtype.is_floating_point:
            pairs.setdefault(path, {})[kind] = name
    found: dict[Normalization, tuple[str, ...]] = {}
    for pair in [pair for pair in pairs.values() if len(pair) == 2][:_MOST]:
        held = file.read({kind: spare[name] for kind, name in pair.items()})
        mean, std = (_numbers(held[kind], channels) for kind in ("mean", "std"))
        if min(std) > 0:
            normalization = Normalization(mean, std)
            found[normalization] = (*found.get(normalization, ()), *sorted(pair.values()))
    return found


def _numbers(tensor: Tensor, channels: int) -> tuple[float, ...]:
    return tuple(_short(value) for value in tensor.double().reshape(-1).expand(channels).tolist())


def _short(value: float) -> float:
    """The shortest decimal that is the same float32: people wrote 0.4914, the file holds 0.49140000343..."""
    single = torch.tensor(value, dtype=torch.float32)
    return next(
        (
            short
            for digits in range(1, 18)
            if torch.tensor(short := float(f"{value:.{digits}g}"), dtype=torch.float32) == single
        ),
        value,
    )


def for_bytes(normalization: Normalization) -> bool:
    """Whether constants can only be for images in 0..255, where images are in [0, 1]."""
    return max(normalization.mean) > _LARGEST_MEAN or max(normalization.std) > _LARGEST_DEVIATION


def scaled(normalization: Normalization) -> Normalization:
    """Constants for images in 0..255 as those for images in [0, 1]."""
    return Normalization(
        tuple(value / _BYTE for value in normalization.mean), tuple(value / _BYTE for value in normalization.std)
    )
