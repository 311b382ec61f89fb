"""The judge: only what it confirms counts as an adversarial example.

It re-checks every proposal on the model as it was loaded, in full float32 precision: inside the ball,
inside [0, 1], finite, misclassified. A point outside the threat model is an error of the attack and stops
the evaluation; a point that the plain model still classifies correctly is merely not confirmed.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from harness.backends.passes import Passes
from harness.errors import AttackError
from harness.threat import ThreatModel

__all__ = ["Judge"]


class Judge:
    """Forward passes on the plain model.

    Args:
        model: as loaded, in eval mode.
        threat: what proposals must respect.
        classes: number of logits.
        limit: largest batch.
        scale: what attacks see the logits multiplied by; the judge's own passes are of the model as it is.
    """

    def __init__(self, model: nn.Module, threat: ThreatModel, *, classes: int, limit: int, scale: float = 1.0) -> None:
        self.threat, self.scale = threat, scale
        self.passes = Passes(model, classes, limit)

    def logits(self, x: Tensor, call: str) -> Tensor:
        """Logits of the plain model, ``[n, classes]``."""
        return self.passes.logits(x, call)

    def plain(self) -> Passes:
        """Passes of the same model for an attack, timed apart from the judge's."""
        like = self.passes
        return Passes(
            like.network,
            like.classes,
            like.limit,
            micro_batch=like.micro_batch,
            fewest=like.fewest,
            scale=self.scale,
        )

    def drain(self) -> float:
        """Seconds spent in the model since the last call."""
        return self.passes.drain()

    def confirm(
        self, points: Tensor, x: Tensor, y: Tensor, *, step: str, names: np.ndarray[tuple[int], np.dtype[np.int64]]
    ) -> tuple[Tensor, Tensor]:
        """Which proposals are adversarial examples, and what the model takes them for.

        Args:
            points, x: ``[n, ...]`` proposals and clean images; y: ``[n]`` true classes.
            step: the attack's name; names: the samples' positions in the data set, both for errors.

        Returns:
            confirmed bool ``[n]``, predicted class ``[n]``.

        Raises:
            AttackError: a proposal lies outside the threat model or is not finite.
        """
        distance = self.threat.distance(points, x)
        limit = self.threat.radius + self.threat.tolerance
        # a NaN fails every comparison, so that it is caught by the one that must hold
        lawful = (distance <= limit) & (points.flatten(1).amin(1) >= 0) & (points.flatten(1).amax(1) <= 1)
        if not bool(lawful.all()):
            worst = int((~lawful).nonzero()[0, 0])
            low, high = float(points[worst].min()), float(points[worst].max())
            raise AttackError(
                f"step {step} proposed a point outside {self.threat} for sample {int(names[worst])}: distance "
                f"{float(distance[worst]):.6g} (at most {self.threat.radius:.6g}), pixels {low:.6g} to {high:.6g}; "
                "this is an error of the attack, not a verdict on the model"
            )
        logits = self.logits(points, f"judging {step}")
        predicted = logits.argmax(dim=1)
        # a NaN logit wins every argmax: it is no misclassification
        return (predicted != y) & torch.isfinite(logits).all(dim=1), predicted
