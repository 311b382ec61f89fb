"""Regimes: one file each, saying only what differs from natural training of the whole network.

The fields are those of `Regime`.
"""

from __future__ import annotations

from pathlib import Path

from harness.regimes._base import Awp, Conduct, Fact, Init, PartOptimizer, Phase, Regime, read
from harness.util.plugins import lookup, members

__all__ = ["Awp", "Conduct", "Fact", "Init", "PartOptimizer", "Phase", "Regime", "get", "names"]


def names() -> tuple[str, ...]:
    """Names of the package's regimes, sorted."""
    return members(__name__)


def get(name_or_path: str | Path) -> Regime:
    """A regime by name, or a user's from a TOML file or from ``FILE.py:NAME``.

    Raises:
        UnknownName: no such regime; the error lists the known ones and the nearest.
        InvalidInput: a file that is missing or wrong.
    """
    if Path(name_or_path).suffix == ".toml":
        return read(name_or_path)
    regime: Regime = lookup(__name__, str(name_or_path), "regime", Regime)
    return regime
