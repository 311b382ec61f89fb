"""What decides the outcome of a training, in the form in which it is hashed."""

from __future__ import annotations

from typing import Any

from harness.regimes._base import Regime
from harness.training.settings import Settings

__all__ = ["VERSION", "content"]

VERSION = 1
"""Raised when the same fields begin to train something else, a changed default included. Fields that have their default
are left out below, so that a new field changes nothing for those who do not use it."""


def content(regime: Regime, settings: Settings) -> dict[str, Any]:
    """Everything of a regime and its settings that decides what is trained; no words about them."""
    own = regime.model_dump(mode="json", include={"name", "start", "norm_layer", "deploy"})
    own |= regime.model_dump(mode="json", include={"init"}, exclude_defaults=True)
    stages = [stage.model_dump(mode="json", exclude_defaults=True) for stage in regime.stages()]
    return {
        "version": VERSION,
        "regime": own | {"stages": stages, "shares": [phase.share for phase in regime.phases]},
        "settings": settings.model_dump(mode="json", exclude_defaults=True),
    }
