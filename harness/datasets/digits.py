"""The 8x8 handwritten digits of scikit-learn (from Alpaydin & Kaynak 1998, UCI): 1,797 real images, offline.

Which images are for testing depends on nothing but their pixels: within each class the images are
ordered by their SHA-256, and the first ones are for testing, 500 in all, spread over the classes in
proportion. Both splits keep the order in which the data set comes, which runs through the classes.
"""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from harness.datasets._base import About, Member, Request
from harness.errors import InvalidInput
from harness.threat import ThreatModel

__all__ = ["digits"]

_TEST = 500
# SHA-256 of the pixels (uint8, 0 to 16) and labels (uint8) in their order
_CONTENT = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"


def _read(request: Request) -> tuple[np.ndarray, np.ndarray, int]:
    rows = np.loadtxt(_file(), delimiter=",", dtype=np.float64).astype(np.uint8)
    pixels, y = rows[:, :-1].reshape(-1, 8, 8), rows[:, -1]
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


def _file() -> Path:
    """Where scikit-learn keeps them. That package itself is not imported: it takes as long as torch."""
    found = find_spec("sklearn")
    if found is None or not found.submodule_search_locations:
        raise InvalidInput("the digits come with scikit-learn, which is not installed: pip install scikit-learn")
    return Path(found.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"


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


digits = Member(About(tuple("0123456789"), (1, 8, 8), (ThreatModel("Linf", "0.15"),)), _read, files=lambda _: [_file()])
