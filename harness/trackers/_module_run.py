"""Runs of trackers whose module keeps the current run itself, as Weights & Biases has made usual."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.trackers import PROJECT
from harness.util.extras import required

__all__ = ["ModuleRun"]


class ModuleRun:
    """A run of the project `PROJECT`, begun with ``init``.

    Args:
        package: of the tracker, and its extra. name: of the run. about: what it is a run of.

    Raises:
        InvalidInput: the package is not installed.
    """

    def __init__(self, package: str, name: str, about: Mapping[str, str | int | float]) -> None:
        self._module: Any = required(package, f"--tracker {package}")
        self._module.init(project=PROJECT, name=name, config=dict(about))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Note figures by name."""
        self._module.log(dict(values), step=step)

    def close(self) -> None:
        """End it."""
        self._module.finish()
