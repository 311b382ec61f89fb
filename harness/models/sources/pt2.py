"""pt2:FILE, a network with its weights in a file of torch.export; also FILE.pt2."""

from __future__ import annotations

from pathlib import Path

from harness.models._base import Shape
from harness.models.norm_layers import NormLayer
from harness.models.sources._base import Complete, Foreign, agreeing
from harness.models.sources._exported import read_exported

__all__ = ["complete", "pt2"]


def pt2(name: str, classes: int, shape: Shape, norm: NormLayer | None) -> Foreign:
    """The network in the file ``name``; nothing of the file is run as code."""
    return agreeing(complete(name), f"pt2:{name}", classes, shape)


def complete(name: str) -> Complete:
    """The network in the file ``name`` with its weights."""
    path = Path(name).expanduser()
    network = read_exported(path)
    return Complete(network, network.classes, network.image, None, path)
