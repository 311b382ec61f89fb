"""CIFAR-10 (Krizhevsky 2009): 32x32 colour photographs, 50,000 for training and 10,000 for testing."""

from __future__ import annotations

from harness.datasets._base import About
from harness.datasets._torchvision import member
from harness.threat import ThreatModel

__all__ = ["cifar10"]

_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

cifar10 = member(
    About(_CLASSES, (3, 32, 32), (ThreatModel("Linf", "8/255"), ThreatModel("L2", "0.5"))),
    "CIFAR10",
    folder="cifar-10-batches-py",
)
