"""Did a network train? Read from the log of its training, not from how well it does.

A network that did not learn what it was trained on says nothing of what its regime can reach. So claims about it stay
open, whatever its figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

__all__ = ["COLLAPSE", "FALLING", "Health", "assess"]

FALLING = 0.01
"""A loss that falls by more than this share of ln(classes) in the last tenth of its epochs is still falling."""

COLLAPSE = 0.5
"""Robust accuracy on the validation split that ends below this share of its best has collapsed."""

_LEAST_FALL = 0.1
"""Points of accuracy (as a fraction) by which a collapse must fall; a few images of noise are none."""

_FEWEST = 3
"""Epochs from which a slope is read."""


@dataclass(frozen=True)
class Health:
    """How a training went; of phases in sequence, the last that trained anything. Numbers that were not measured are
    None.

    Attributes:
        verdict: "trained", "not trained", or "collapsed" (catastrophic overfitting: robust at first, then not).
        reason: why not; empty for "trained".
        steps: optimiser steps in all phases. passes: times that every training image was seen, likewise.
        guessing_loss: ln(classes), the loss of a network that guesses.
        final_loss, best_loss: mean over an epoch's batches, the last and the lowest.
        fall: how much the loss falls in a tenth of the epochs, by a straight line through the last tenth of them (at
            least three).
        gradient_norm: of the trained parameters at the last step.
        best_robust_acc, final_robust_acc: on the validation split under PGD.
    """

    verdict: Literal["trained", "not trained", "collapsed"]
    reason: str
    steps: int | None
    passes: int
    guessing_loss: float
    final_loss: float
    best_loss: float
    fall: float | None
    gradient_norm: float | None
    best_robust_acc: float | None
    final_robust_acc: float | None

    @property
    def trained(self) -> bool:
        """Whether figures of this network say something of its regime."""
        return self.verdict == "trained"

    def facts(self) -> dict[str, Any]:
        """What a manifest says of it; rounded, without what was not measured."""
        return {
            name: round(value, 5) if isinstance(value, float) else value
            for name, value in asdict(self).items()
            if value is not None and value != ""
        }


def assess(
    log: Sequence[Mapping[str, float | None]], *, classes: int, adversarial: bool, steps_per_epoch: int | None = None
) -> Health | None:
    """Judge a training by its log; None where nothing was trained.

    Args:
        log: rows with "phase", "loss", and where measured "gradient_norm" and "validation_robust_acc", in order.
        adversarial: whether the last phase trained on adversarial examples; else a loss of robustness is no collapse.
        steps_per_epoch: optimiser steps; None where that is not known.
    """
    epochs = [row for row in log if row.get("loss") is not None]
    if not epochs:
        return None
    last = [row for row in epochs if row["phase"] == epochs[-1]["phase"]]
    losses = _column(last, "loss")
    robust = _column(last, "validation_robust_acc")
    guessing, fall = math.log(classes), _fall(losses)
    verdict, reason = _verdict(losses, fall, robust if adversarial else [], guessing)
    return Health(
        verdict=verdict,
        reason=reason,
        steps=None if steps_per_epoch is None else steps_per_epoch * len(epochs),
        passes=len(epochs),
        guessing_loss=guessing,
        final_loss=losses[-1],
        best_loss=min(losses),
        fall=fall,
        gradient_norm=next(iter(_column(last[-1:], "gradient_norm")), None),
        best_robust_acc=max(robust, default=None),
        final_robust_acc=robust[-1] if robust else None,
    )


def _verdict(
    losses: Sequence[float], fall: float | None, robust: Sequence[float], guessing: float
) -> tuple[Literal["trained", "not trained", "collapsed"], str]:
    if not losses[-1] < guessing:
        return "not trained", f"its loss ends at {losses[-1]:.3f}, and guessing has {guessing:.3f}"
    if robust and robust[-1] < COLLAPSE * max(robust) and max(robust) - robust[-1] >= _LEAST_FALL:
        shares = f"from {100 * max(robust):.1f} to {100 * robust[-1]:.1f} %"
        return "collapsed", f"its robust accuracy on the validation split falls {shares} (catastrophic overfitting)"
    if fall is not None and fall > FALLING * guessing:
        share = f"{100 * fall / guessing:.1f} % of ln(classes) in the last tenth of the epochs"
        return "not trained", f"its loss still falls, by {share}, more than {100 * FALLING:g} %"
    return "trained", ""


def _fall(losses: Sequence[float]) -> float | None:
    """By a straight line through the last tenth; None where there are too few epochs for one."""
    if len(losses) < _FEWEST:
        return None
    last = losses[-max(_FEWEST, math.ceil(len(losses) / 10)) :]
    slope = float(np.polyfit(np.arange(len(last)), last, 1)[0])
    return -slope * len(losses) / 10


def _column(rows: Sequence[Mapping[str, float | None]], name: str) -> list[float]:
    return [value for row in rows if (value := row.get(name)) is not None]
