"""Norm layers: one file each, a `NormLayer` that is called with the channels and injected into architectures.

An architecture takes one such object for all that depends on the way of normalising: the normalisers,
the convolutions and the starting weights.
"""

from __future__ import annotations

from harness.models.norm_layers._base import NormLayer
from harness.models.norm_layers._branches import DualBatchNorm2d, deploy_branch, dual_layers, use_branch
from harness.util import plugins

__all__ = ["DualBatchNorm2d", "NormLayer", "deploy_branch", "dual_layers", "get", "names", "use_branch"]


def names() -> tuple[str, ...]:
    """The registered norm layers."""
    return plugins.members(__name__)


def get(name: str) -> NormLayer:
    """The norm layer ``name``, or the one that ``FILE.py:NAME`` names.

    Raises:
        UnknownName: no norm layer of that name.
        InvalidInput: a file that does not define a norm layer.
    """
    member: NormLayer = plugins.lookup(__name__, name, "norm layer", NormLayer)
    return member
