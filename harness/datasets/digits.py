"""The 8x8 handwritten digits of scikit-learn (from Alpaydin & Kaynak 1998, UCI): 1,797 real images, offline.

Which images are for testing depends on nothing but their pixels: within each class the images are
ordered by their SHA-256, and the first ones are for testing, 500 in all, spread over the classes in
proportion. Both splits keep the order in which the data set comes, which runs through the classes.
"""

from __future__ import annotations

import hashlib

import numpy as np

from harness.datasets._base import About, Member, Request
from harness.errors import InvalidInput
from harness.threat import ThreatModel

__all__ = ["digits"]

_TEST = 500
# SHA-256 of the pixels (uint8, 0 to 16) and labels (uint8) in their order
_CONTENT = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"


def _read(request: Request) -> tuple[np.ndarray, np.ndarray, int]:
    from sklearn.datasets import load_digits

    raw = load_digits()
    pixels, y = raw.images.astype(np.uint8), raw.target.astype(np.uint8)
    content = hashlib.sha256(pixels.tobytes() + y.tobytes()).hexdigest()
    if content != _CONTENT:
        raise InvalidInput(
            f"scikit-learn's digits have the hash {content}, expected {_CONTENT}: "
            "this version ships other images, so figures would not be comparable; install another version"
        )
    held = _held_for_testing(pixels, y)
    chosen = np.flatnonzero(held if request.split == "test" else ~held)
    x = (pixels[chosen] / np.float32(16))[:, None].astype(np.float32)
    return x[: request.limit], y[chosen][: request.limit], len(chosen)


def _held_for_testing(pixels: np.ndarray, y: np.ndarray) -> np.ndarray:
    quota = _TEST * np.bincount(y) / len(y)
    count = np.floor(quota).astype(int)
    # largest remainders get what rounding down left over
    for label in np.argsort(count - quota, kind="stable")[: _TEST - count.sum()]:
        count[label] += 1
    held = np.zeros(len(y), dtype=bool)
    for label, n in enumerate(count):
        rows = np.flatnonzero(y == label)
        rank = sorted(rows, key=lambda row: hashlib.sha256(pixels[row].tobytes()).digest())
        held[rank[:n]] = True
    return held


digits = Member(About(tuple("0123456789"), (1, 8, 8), (ThreatModel("Linf", "0.15"),)), _read)
