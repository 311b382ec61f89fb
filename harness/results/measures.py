"""What a suite means on a leaderboard: the one place that says it.

A board has a column for every suite that its results hold: those listed here in this order, then all others by name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Measure", "columns", "measure_of", "ranking"]


@dataclass(frozen=True)
class Measure:
    """Robust accuracy under one suite.

    Attributes:
        name: of the column in files; no two of a board are equal.
        label: what people read.
        suites: whose result fills the column: the first of these that there is, the others standing in for it.
        strength: how far the suite should lower the accuracy, among the suites of this package; None where that is
            not known.
        standard: whether it ranks before all that are not.
    """

    name: str
    label: str
    suites: tuple[str, ...]
    strength: int | None = None
    standard: bool = False


_KNOWN = (
    Measure("pgd", "PGD", ("pgd",), strength=4, standard=True),
    Measure("autoattack", "AutoAttack", ("autoattack", "autoattack-reference"), strength=6, standard=True),
    Measure("autoattack-plus", "AutoAttack+", ("autoattack-plus",), strength=7),
    Measure("autoattack-rand", "AutoAttack (rand)", ("autoattack-rand",), strength=5),
    Measure("pgd-20", "PGD-20", ("pgd-20",), strength=3),
    Measure("square", "Square", ("square",), strength=2),
    Measure("fgsm", "FGSM", ("fgsm",), strength=1),
)
_BY_SUITE = {suite: measure for measure in _KNOWN for suite in measure.suites}
_TAKEN = {word.casefold() for measure in _KNOWN for word in (measure.name, measure.label)} | {"clean", "best_known"}


def measure_of(suite: str) -> Measure:
    """The measure that a result of ``suite`` belongs to; a suite of one's own is a measure of its own name."""
    if suite in _BY_SUITE:
        return _BY_SUITE[suite]
    name = f"{suite} (own suite)" if suite.casefold() in _TAKEN else suite
    return Measure(name, name, (suite,))


def columns(suites: Iterable[str]) -> tuple[Measure, ...]:
    """The measures of a board whose results are of these suites, in the order of its columns."""
    found = {measure_of(suite) for suite in suites}
    known = [measure for measure in _KNOWN if measure in found]
    return (*known, *sorted(found.difference(_KNOWN), key=lambda measure: measure.name))


def ranking(measures: Iterable[Measure]) -> tuple[Measure, ...]:
    """Measures in the order in which they rank rows: standard ones first, the strongest first, unknown ones last."""
    return tuple(sorted(measures, key=lambda m: (not m.standard, -(m.strength or 0), m.name)))
