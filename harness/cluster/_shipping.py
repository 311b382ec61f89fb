"""Plans as what can be sent to another machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from harness.audit.flags import Flag
from harness.evaluation import Plan
from harness.util import paths, user_file
from harness.util.images import Images, StoredImages, as_floating, blocks, fits_into_memory
from harness.util.spool import Spool

__all__ = ["Shipment", "pack", "send_code_of_files"]


@dataclass(frozen=True, eq=False)
class Shipment:
    """A plan in three parts, of which several plans may share the larger ones.

    Attributes:
        plan: without model and images.
        images: ``[n, ...]``, bytes or floating point.
    """

    plan: Plan
    model: nn.Module
    images: np.ndarray[Any, Any]

    def unpacked(self) -> Plan:
        """The plan, on the machine that it was sent to."""
        target = replace(self.plan.target, model=self.model, x=_as_images(self.images))
        return replace(self.plan, target=target)


def pack(plan: Plan) -> Shipment:
    """A plan that keeps no state, and whose flags are known: what they depend on may not be there."""
    target = replace(plan.target, model=nn.Module(), x=torch.empty(0), check=partial(_known, plan.target.flags))
    bare = replace(plan, target=target, settings=replace(plan.settings, state_dir=None))
    return Shipment(bare, plan.target.model, _as_array(plan.target.x))


def send_code_of_files(register: Callable[[ModuleType], object]) -> None:
    """Have the code of all users' files that were run here sent along, as no other machine could import them.

    Args:
        register: `cloudpickle.register_pickle_by_value`.
    """
    for module in user_file.loaded():
        register(module)


def _known(flags: tuple[Flag, ...]) -> tuple[Flag, ...]:
    return flags


def _as_array(images: Images) -> np.ndarray[Any, Any]:
    if isinstance(images, StoredImages) and images.stored == np.uint8:
        # what is read as k / 255 goes as the byte k
        return np.concatenate([(part * 255).round().to(torch.uint8).numpy() for part in blocks(images)])
    array: np.ndarray[Any, Any] = images[:].numpy()
    return array


def _as_images(array: np.ndarray[Any, Any]) -> Images:
    # copied, because what Ray shares between processes must not be written
    if fits_into_memory(array.shape):
        return as_floating(torch.from_numpy(array.copy()))
    spool = Spool(paths.cache_root())
    for begin in range(0, len(array), 64):
        spool.append(torch.from_numpy(array[begin : begin + 64].copy()))
    return spool.images()
