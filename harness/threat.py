"""Threat models: a norm and a radius, written the way people write them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction

from torch import Tensor

from harness.errors import InvalidInput, UnknownName
from harness.norms import NORMS, Norm

__all__ = ["ThreatModel"]

_NUMBER = re.compile(r"\d+(\.\d*)?([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?")


@dataclass(frozen=True)
class ThreatModel:
    """All points within ``eps`` of the clean image, in ``norm``, that are images (in [0, 1]).

    ``eps`` keeps the text it was written as ("8/255", "0.5"), so that a result says what was asked;
    `radius` is its value.

    Raises:
        UnknownName: a norm other than Linf, L2, L1.
        InvalidInput: an eps that is not a positive finite number or fraction.
    """

    norm: str
    eps: str

    def __post_init__(self) -> None:
        match = {name.lower(): name for name in NORMS}.get(self.norm.lower())
        if match is None:
            raise UnknownName("norm", self.norm, NORMS)
        object.__setattr__(self, "norm", match)
        object.__setattr__(self, "eps", str(self.eps).replace(" ", ""))
        _value(self.eps)

    @classmethod
    def parse(cls, text: str | ThreatModel) -> ThreatModel:
        """From "Linf:8/255" (or a `ThreatModel`, returned as it is)."""
        if isinstance(text, ThreatModel):
            return text
        norm, colon, eps = text.partition(":")
        if not colon:
            raise InvalidInput(f"a threat model is written NORM:EPS, such as Linf:8/255; got {text!r}")
        return cls(norm, eps)

    @property
    def geometry(self) -> Norm:
        """The norm's geometry."""
        return NORMS[self.norm]

    @property
    def radius(self) -> float:
        """The value of ``eps``."""
        return _value(self.eps)

    @property
    def tolerance(self) -> float:
        """How far beyond the radius float32 rounding may carry a point that an attack projected."""
        return 1e-5 * max(self.radius, 1.0) if self.norm != "Linf" else 1e-6

    def distance(self, points: Tensor, x: Tensor) -> Tensor:
        """``[n]`` distances between ``points`` and ``x``, both ``[n, ...]``."""
        return self.geometry.size(points - x)

    def project(self, points: Tensor, x: Tensor) -> Tensor:
        """Points moved into the ball around ``x`` and into [0, 1]."""
        return self.geometry.project(points, x, self.radius)

    def __str__(self) -> str:
        return f"{self.norm}:{self.eps}"


def _value(eps: str) -> float:
    parts = eps.split("/")
    if len(parts) > 2 or not all(_NUMBER.fullmatch(part) for part in parts):
        raise InvalidInput(f"eps must be a positive number or fraction such as 8/255, got {eps!r}")
    try:
        value = float(Fraction(parts[0]) / Fraction(parts[1])) if len(parts) == 2 else float(eps)
    except ZeroDivisionError:
        raise InvalidInput(f"eps must be a positive number or fraction, got {eps!r}: it divides by zero") from None
    if not (value > 0 and math.isfinite(value)):
        raise InvalidInput(f"eps must be positive and finite, got {eps!r}")
    return value
