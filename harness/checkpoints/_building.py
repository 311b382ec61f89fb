"""Building a network whose sizes are a stranger's word."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from harness import models
from harness.errors import HarnessError
from harness.models import Model, Normalization
from harness.util.user_file import is_in_file

__all__ = ["build"]

_MANY_CLASSES = 100_000
_MANY_PIXELS = 1 << 20


def build(
    architecture: str,
    *,
    classes: int,
    shape: tuple[int, int, int],
    norm_layer: str,
    normalization: Normalization | None = None,
    arguments: Mapping[str, Any] | None = None,
    check: Callable[[Mapping[str, Tensor]], object],
) -> Model:
    """As `harness.models.build`; where a network would be extraordinarily large, it is first described, without memory
    for its weights.

    Args:
        check: raises if a state dict is not what the file holds.
    """
    made = partial(
        models.build,
        architecture,
        classes=classes,
        shape=shape,
        norm_layer=norm_layer,
        normalization=normalization,
        arguments=arguments,
        seed=0,
    )
    large = classes > _MANY_CLASSES or math.prod(shape) > _MANY_PIXELS
    if large and not is_in_file(architecture):
        try:
            with torch.device("meta"):
                described = made()
        except HarnessError:
            described = None  # some libraries need numbers to build a network
        if described is not None:
            check(described.network.state_dict())
    return made()
