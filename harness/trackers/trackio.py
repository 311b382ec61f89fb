"""Trackio (Hugging Face): a local database, for ``trackio show``."""

from __future__ import annotations

from collections.abc import Mapping

from harness.trackers._module_run import ModuleRun

__all__ = ["trackio"]


def trackio(name: str, about: Mapping[str, str | int | float]) -> ModuleRun:
    """Begin a run."""
    return ModuleRun("trackio", name, about)
