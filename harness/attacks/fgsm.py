"""FGSM: one gradient step to the edge of the ball.

Goodfellow et al. 2015, "Explaining and Harnessing Adversarial Examples" (arXiv 1412.6572).
"""

from __future__ import annotations

from harness.attacks._base import Attack
from harness.attacks.pgd import pgd
from harness.threat import ThreatModel

__all__ = ["fgsm"]


def fgsm(threat: ThreatModel, classes: int, *, loss: str = "ce", random_start: bool = False) -> Attack:
    """One steepest step of length eps, from the clean image or from a random point in the ball.

    Args:
        threat: the threat model.
        classes: how many classes the model knows.
        loss: what is raised: ce, margin or dlr.
        random_start: start uniformly in the ball (the result is projected back into it).

    Raises:
        UnknownName: no such loss.
        InvalidInput: fewer than 2 classes.
    """
    return pgd(threat, classes, steps=1, restarts=1, step_size=threat.radius, loss=loss, random_start=random_start)
