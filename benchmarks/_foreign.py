"""The public checkpoints and images that the benchmarks measure on; they are not part of the project.

A folder given by ``--material`` (default ``../shared``) holds ``models/`` and ``data/`` as the tables below say.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harness import models
from harness.checkpoints import NORMALIZATIONS
from harness.models import Model, Normalization

__all__ = ["CIFAR_MODELS", "MODELS", "WIDE", "add_material", "load", "samples", "wide"]

_LEAKY = "leaky-resnet32"
MODELS: dict[str, str] = {
    "resnet32_natural.pt": _LEAKY,
    "resnet32_at_all.pt": _LEAKY,
    "resnet32_at_then_nt_init_block1.pt": _LEAKY,
    "resnet32_at_then_nt_init_block3.pt": _LEAKY,
    "resnet32_nt_then_at_lastbn_linear.pt": _LEAKY,
    "resnet32_nt_then_at_block3_linear.pt": _LEAKY,
    "resnet32_nt_then_at_init_block1.pt": _LEAKY,
    "resnet32_nt_then_at_init_block3.pt": _LEAKY,
    "cifar10_resnet20_natural.th": "resnet20",
    "mnist_lenet5_advtrained.pt": "lenet5",
}
"""File name to architecture."""

CIFAR_MODELS = tuple(name for name in MODELS if not name.startswith("mnist"))


def add_material(parser: argparse.ArgumentParser) -> None:
    """The option that says where the material lies."""
    parser.add_argument("--material", type=Path, default=Path("../shared"), help="folder with models/ and data/")


def load(name: str, material: Path) -> Model:
    """One of `MODELS`, in eval mode on the CPU."""
    path = material / "models" / name
    if not path.is_file():
        raise SystemExit(f"{path} is not there: say with --material where the checkpoints and images lie")
    held = torch.load(path, weights_only=True, map_location="cpu")
    state = {key.removeprefix("module."): value for key, value in held.get("state_dict", held).items()}
    normalization: Normalization | None = None
    if MODELS[name] != "lenet5":
        normalization = NORMALIZATIONS["cifar10" if MODELS[name] == _LEAKY else "imagenet"]
    shape = (1, 28, 28) if MODELS[name] == "lenet5" else (3, 32, 32)
    model = models.build(MODELS[name], classes=10, shape=shape, norm_layer=models.OWN, normalization=normalization)
    # some of the files carry their normalisation as buffers of their own
    known = model.network.state_dict()
    model.network.load_state_dict({key: value for key, value in state.items() if key in known})
    return model.eval()


WIDE = "wrn-28-10"
"""A network as large as those of the leaderboards, with random weights."""


def wide(images: int) -> Model:
    """`WIDE` with seeded weights, and batch norms that know the statistics of that many random images."""
    model = models.build(WIDE, classes=10, shape=(3, 32, 32), seed=0).train()
    with torch.no_grad():
        model(torch.rand(min(images, 64), 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    return model.eval()


def samples(name: str, n: int, material: Path) -> tuple[Tensor, Tensor]:
    """The first ``n`` test images that a model is measured on, float32 in [0, 1], and their classes."""
    file = "mnist_test.npz" if name.startswith("mnist") else "cifar10_test_600.npz"
    with np.load(material / "data" / file, allow_pickle=False) as arrays:
        x, y = arrays["x"][:n], arrays["y"][:n]
    if len(x) < n:
        raise SystemExit(f"{file} holds {len(x)} images, {n} were asked for")
    return torch.from_numpy(x).float().div(255), torch.from_numpy(y.astype(np.int64))
