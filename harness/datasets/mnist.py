"""MNIST (LeCun et al. 1998): handwritten digits, 28x28, 60,000 for training and 10,000 for testing."""

from __future__ import annotations

from harness.datasets._base import About
from harness.datasets._torchvision import member
from harness.threat import ThreatModel

__all__ = ["mnist"]

mnist = member(
    About(tuple("0123456789"), (1, 28, 28), (ThreatModel("Linf", "0.3"),)),
    "MNIST",
    folder="MNIST",
)
