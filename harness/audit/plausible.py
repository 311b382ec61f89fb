"""Whether figures can be meant as they stand: a radius that covers every image, an accuracy of guessing.

Nothing here changes a figure or refuses one. What is hardly ever meant is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from harness.audit import kinds
from harness.audit.flags import Flag
from harness.threat import ThreatModel

__all__ = ["class_names", "guessing", "radius"]

_FEWEST = 30
_TINY = 1e-6
_STANDARD_ERRORS = 2.0


def radius(threat: ThreatModel, shape: Sequence[int]) -> Iterator[Flag]:
    """Doubts about a radius for images of a shape.

    Args:
        shape: of one image.
    """
    white = torch.ones(1, *shape, device="cpu")
    farthest = float(threat.distance(white, torch.zeros_like(white)))
    if threat.radius >= farthest:
        levels = f"; for {threat.eps} levels of 255 write {threat.eps}/255" if threat.eps.isdigit() else ""
        yield kinds.EPS_COVERS_ALL.saying(
            f"the radius {threat} reaches from a black image to a white one, so that it covers every image{levels}",
            eps=threat.eps,
        )
    elif 0 < threat.radius < _TINY * farthest:
        yield kinds.EPS_TINY(eps=threat.eps)


def guessing(y: np.ndarray[Any, Any], predicted: np.ndarray[Any, Any], classes: int) -> Iterator[Flag]:
    """Doubts about the accuracy without attack.

    Args:
        y, predicted: ``[n]`` true classes, and those predicted without attack. classes: how many there are.
    """
    n, chance = len(y), 1 / classes
    if n < _FEWEST:
        return
    unseen = ~np.isin(y, np.unique(predicted))
    if unseen.mean() >= 0.5:
        yield kinds.LABELS_NEVER_PREDICTED(samples=int(unseen.sum()), of=n)
    margin = _STANDARD_ERRORS * (chance * (1 - chance) / n) ** 0.5
    accuracy = float((y == predicted).mean())
    if accuracy <= chance + margin:
        yield kinds.CLEAN_BY_CHANCE(accuracy=f"{100 * accuracy:.1f} %", classes=classes)


def class_names(known: Sequence[str], found: Sequence[str], dataset: str) -> Iterator[Flag]:
    """Doubts about the order of classes that are called otherwise than in the data set that a model was made for."""
    if len(known) == len(found) and [_bare(name) for name in known] != [_bare(name) for name in found]:
        place = next(i for i, (a, b) in enumerate(zip(known, found, strict=True)) if _bare(a) != _bare(b))
        yield kinds.CLASS_NAMES(place=place, found=found[place], known=known[place], dataset=dataset)


def _bare(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())
