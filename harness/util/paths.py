"""Where things are kept: folders under ``$HARNESS_HOME``, or under the current folder if that is not set."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = [
    "cache_root",
    "checkpoints_root",
    "data_root",
    "leaderboards_root",
    "results_root",
    "runs_root",
    "studies_root",
    "user_root",
]


def cache_root() -> Path:
    """Where is kept what can be made again."""
    return _home() / "cache"


def checkpoints_root() -> Path:
    """Where checkpoints are registered."""
    return _home() / "checkpoints"


def data_root() -> Path:
    """Where data sets lie."""
    return _home() / "data"


def leaderboards_root() -> Path:
    """Where leaderboards are written."""
    return _home() / "leaderboards"


def results_root() -> Path:
    """Where results are stored."""
    return leaderboards_root() / "results"


def runs_root() -> Path:
    """Where trackers that write files write them."""
    return _home() / "runs"


def studies_root() -> Path:
    """Where studies keep what they make, a folder each."""
    return _home() / "study-runs"


def user_root() -> Path:
    """Where what belongs to the user alone is kept: ``$HARNESS_HOME``, or the user's folder of settings. It is never
    the current folder, which may come from somebody else."""
    if os.environ.get("HARNESS_HOME"):
        return _home()
    settings = os.environ.get("XDG_CONFIG_HOME")
    return (Path(settings) if settings else Path("~/.config").expanduser()) / "harness"


def _home() -> Path:
    return Path(os.environ.get("HARNESS_HOME") or ".").expanduser()
