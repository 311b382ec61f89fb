"""Weights & Biases; ``WANDB_MODE=offline`` keeps it on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.trackers import PROJECT, required

__all__ = ["wandb"]


class _Run:
    def __init__(self, module: Any) -> None:
        self._module = module

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._module.log(dict(values), step=step)

    def close(self) -> None:
        self._module.finish()


def wandb(name: str, about: Mapping[str, str | int | float]) -> _Run:
    """Begin a run of the project `PROJECT`."""
    module: Any = required("wandb", "wandb")
    module.init(project=PROJECT, name=name, config=dict(about))
    return _Run(module)
