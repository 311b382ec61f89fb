"""A label that names a norm layer must be the label of a network that has it.

A report is read by its labels. One that says ``at-fixup`` of a network without Fixup makes every claim about it false,
whatever its figures.
"""

from __future__ import annotations

import re

from harness.errors import InvalidInput
from harness.models import Model, norm_layers
from harness.models._selectors import bn_layers

__all__ = ["check_label"]

_SHORT = {"gn": "group", "in": "instance", "ln": "layer", "ws": "weight-standardized"}
"""Short words for norm layers."""


def check_label(label: str, model: Model) -> None:
    """Refuse a label that names another norm layer than the network has.

    Args:
        model: as it is built for the entry of that label.

    Raises:
        InvalidInput: it does; or it says that there is no BN where there is.
    """
    words = "-" + re.sub(r"[._-]+", "-", label.lower()) + "-"
    if model.norm_layer in norm_layers.names():
        named = {name for name in norm_layers.names() if f"-{name}-" in words}
        named |= {name for short, name in _SHORT.items() if f"-{short}-" in words}
        # "batch-no-affine" names that layer, and not "batch"
        named = {name for name in named if not any(name != other and f"-{name}-" in f"-{other}-" for other in named)}
        if named and model.norm_layer not in named:
            raise InvalidInput(
                f"the entry {label!r} names the norm layer {sorted(named)[0]!r}, but what it builds has "
                f"{model.norm_layer!r}: call it otherwise, or change its norm_layer"
            )
    if "-no-bn-" in words and bn_layers(model.network):
        raise InvalidInput(f"the entry {label!r} says that it has no BN, but what it builds has BN layers: rename it")
