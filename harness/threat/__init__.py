"""Threat models: a norm and a radius, written the way people write them.

Radii are in the units of images in [0, 1]. Work that applies eps after the images were normalised means
another ball, larger in number and smaller in fact (Galloway et al. 2019, arXiv 1905.02161: eps 0.03 of a
deviation of about 0.2 is 1.5/255); such a radius is written "Linf:0.03@normalized" and converted when the
model's normalisation is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING

from harness.errors import InvalidInput
from harness.threat import norms
from harness.util.literals import parse_length
from harness.util.user_file import is_in_file

if TYPE_CHECKING:
    from torch import Tensor

    from harness.threat.norms import Norm

__all__ = ["Threat", "ThreatModel"]

_NORMALIZED = "normalized"


@dataclass(frozen=True)
class ThreatModel:
    """All points within ``eps`` of the clean image, in ``norm``, that are images (in [0, 1]).

    ``norm`` is a registered norm, or ``FILE.py:NAME``; such a file is run when the geometry is first needed.
    ``eps`` keeps the text it was written as ("8/255", "0.5"), which results show; `radius` is its value. ``note`` says
    where the radius comes from if it was not given in pixel units; two threat models that differ in it alone are equal.

    Raises:
        UnknownName: no such norm.
        InvalidInput: an eps that is no finite number or fraction, or below 0.
    """

    norm: str
    eps: str
    note: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not is_in_file(self.norm):
            object.__setattr__(self, "norm", norms.name_of(self.norm))
        object.__setattr__(self, "eps", str(self.eps).replace(" ", ""))
        _value(self.eps)

    @classmethod
    def parse(cls, text: Threat, *, std: Sequence[float] | None = None) -> ThreatModel:
        """From "Linf:8/255", or ("Linf", 8 / 255) (or a `ThreatModel`, returned as it is).

        Args:
            std: what the model divides each channel by, needed for "Linf:0.03@normalized", a radius that counts
                after that division. It becomes the radius times the mean of ``std``, and `note` says so.

        Raises:
            InvalidInput: not of that form, or in normalised units where ``std`` is not known.
        """
        if isinstance(text, ThreatModel):
            return text
        if not isinstance(text, str):
            return cls._of_pair(text)
        norm, colon, eps = text.rpartition(":")
        if not colon:
            raise InvalidInput(f"a threat model is written NORM:EPS, such as Linf:8/255; got {text!r}")
        eps, at, units = eps.partition("@")
        if not at:
            return cls(norm, eps)
        if units.strip() != _NORMALIZED:
            raise InvalidInput(f"eps is in pixel units, or in normalised ones with @{_NORMALIZED}; got {text!r}")
        if not std:
            raise InvalidInput(
                f"{text!r} is a radius in normalised units, but the model has no known normalisation to convert it "
                "with: give eps in pixel units"
            )
        return cls(norm, eps)._in_pixels(std)

    @classmethod
    def _of_pair(cls, pair: object) -> ThreatModel:
        match pair:
            case (str(norm), str(eps)):
                return cls(norm, eps)
            case (str(norm), float() | int() as eps) if not isinstance(eps, bool):
                return cls(norm, _text(float(eps)))
        raise InvalidInput(f'a threat model is written "Linf:8/255" or ("Linf", 8 / 255); got {pair!r}')

    def _in_pixels(self, std: Sequence[float]) -> ThreatModel:
        low, mean, high = (self.radius * value for value in (min(std), sum(std) / len(std), max(std)))
        if low == high:
            how = f"exactly that many deviations of {std[0]:g}"
        else:
            how = (
                f"the mean over the channels, whose own radii are {low:.6g} to {high:.6g}: a ball of one radius in "
                "normalised units is none in pixel units"
            )
        note = f"eps {self.eps} was given in normalised units; {self.norm} {mean:.6g} in pixel units was used, {how}"
        return ThreatModel(self.norm, f"{mean:.6g}", note)

    @cached_property
    def geometry(self) -> Norm:
        """The norm's geometry.

        Raises:
            InvalidInput, UnknownName: a file that does not define the norm.
        """
        return norms.get(self.norm)

    @property
    def sparse(self) -> bool:
        """Whether attacks change few values in the norm, as in L1.

        Raises:
            InvalidInput, UnknownName: a file that does not define the norm.
        """
        return norms.is_sparse(self.norm)

    @property
    def radius(self) -> float:
        """The value of ``eps``."""
        return _value(self.eps)

    @property
    def tolerance(self) -> float:
        """How far beyond the radius float32 rounding may carry a point that an attack projected."""
        return self.geometry.tolerance(self.radius)

    def distance(self, points: Tensor, x: Tensor) -> Tensor:
        """``[n]`` distances between ``points`` and ``x``, both ``[n, ...]``."""
        return self.geometry.size(points - x)

    def project(self, points: Tensor, x: Tensor) -> Tensor:
        """Points moved into the ball around ``x`` and into [0, 1]."""
        return self.geometry.project(points, x, self.radius)

    def without_rounding(self, points: Tensor, x: Tensor) -> Tensor:
        """Points that rounding left a hair outside, projected once more; all others as they are.

        A sum over 150,000 pixels in float32 is off by more than `tolerance`. What lies further out than
        rounding explains (0.1 % of the radius) stays there, to be refused.
        """
        distance = self.distance(points, x)
        hair = (distance > self.radius) & (distance <= 1.001 * self.radius)
        if not bool(hair.any()):
            return points
        return self.project(points, x).where(norms.column(hair, points), points)

    def __str__(self) -> str:
        return f"{self.norm}:{self.eps}"


Threat = str | tuple[str, float | str] | ThreatModel
"""A threat model as people write it: "Linf:8/255" or ("Linf", 8 / 255)."""


def _text(eps: float) -> str:
    """A number as people write it: the float next to 8/255 is 8/255."""
    levels = round(eps * _LEVELS)
    return f"{levels}/{_LEVELS}" if levels and levels / _LEVELS == eps != round(eps, 4) else repr(eps)


_LEVELS = 255


@cache  # needed in every query of an attack
def _value(eps: str) -> float:
    return parse_length(eps, "eps")
