"""Which of several evaluations is more robust, by a paired test on the samples that they have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from harness.errors import InvalidInput
from harness.results.record import Result, Verdicts
from harness.results.stats import Interval, holm, mcnemar, paired_difference

__all__ = ["Comparison", "Pair", "compare"]

Index = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, eq=False)
class Pair:
    """Two evaluations on their common samples.

    Attributes:
        first, second: their labels.
        n: common samples. both, only_first, only_second, neither: how many of them survive which attack.
        difference: robust accuracy of the first minus that of the second on the common samples; interval: at 95 %.
        p_value: of the exact McNemar test; adjusted: the same, Holm-corrected for the number of pairs.
        first_indices, second_indices: positions in the data set of the samples that survive in one only.
    """

    first: str
    second: str
    n: int
    both: int
    only_first: int
    only_second: int
    neither: int
    difference: float
    interval: Interval
    p_value: float
    adjusted: float
    first_indices: Index
    second_indices: Index

    @property
    def significant(self) -> bool:
        """Whether the difference is larger than chance explains, at 5 % over all pairs."""
        return self.adjusted < 0.05


@dataclass(frozen=True, eq=False)
class Comparison:
    """Several evaluations, every two of them compared.

    Attributes:
        labels: one per evaluation. pairs: in the order (0, 1), (0, 2), ..., (1, 2), ...
        notes: what a reader has to know, such as different suites.
    """

    labels: tuple[str, ...]
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]


def compare(evaluations: Sequence[tuple[Result, Verdicts]]) -> Comparison:
    """Compare every two of at least two evaluations.

    Raises:
        InvalidInput: fewer than two, other data sets, threat models or labels, or no common samples.
    """
    if len(evaluations) < 2:
        raise InvalidInput(f"a comparison needs at least two results, got {len(evaluations)}")
    results = [result for result, _ in evaluations]
    kinds: dict[str, dict[tuple[object, ...], str]] = {
        "data set": {(r.dataset.name, r.dataset.split): f"{r.dataset.name} {r.dataset.split}" for r in results},
        "threat model": {(r.threat.norm, r.threat.rounded): r.threat.text for r in results},
    }
    for what, values in kinds.items():
        if len(values) > 1:
            listed = " and ".join(sorted(values.values()))
            raise InvalidInput(f"a comparison needs results of one {what}, got {listed}; choose among them")
    labels = _labels(results)
    for a, b in _pairs(len(results)):
        same_places = np.array_equal(evaluations[a][1].index, evaluations[b][1].index)
        if same_places and results[a].dataset.sha256 != results[b].dataset.sha256:
            raise InvalidInput(
                f"{labels[a]} and {labels[b]} were evaluated on other images under the same name, their hashes differ: "
                "evaluate both on the same images"
            )
    tables = [_table(labels[a], labels[b], evaluations[a][1], evaluations[b][1]) for a, b in _pairs(len(results))]
    adjusted = holm([table["p_value"] for table in tables])
    pairs = tuple(Pair(**table, adjusted=p) for table, p in zip(tables, adjusted, strict=True))
    return Comparison(labels, pairs, tuple(_notes(results, pairs)))


def _pairs(size: int) -> list[tuple[int, int]]:
    return list(combinations(range(size), 2))


def _labels(results: Sequence[Result]) -> tuple[str, ...]:
    """The checkpoints' names, with what tells results of one name apart."""
    names = [result.label for result in results]
    if len(set(names)) < len(names):
        names = [f"{result.label} ({result.suite}, seed {result.seed})" for result in results]
    if len(set(names)) < len(names):
        names = [f"{name} [{position}]" for position, name in enumerate(names, start=1)]
    return tuple(names)


def _table(first: str, second: str, a: Verdicts, b: Verdicts) -> dict[str, Any]:
    common, rows_a, rows_b = np.intersect1d(a.index, b.index, assume_unique=True, return_indices=True)
    if len(common) == 0:
        raise InvalidInput(f"{first} and {second} have no samples in common: evaluate them on the same images")
    if not np.array_equal(a.y[rows_a], b.y[rows_b]):
        raise InvalidInput(f"{first} and {second} have other labels for the same samples: they are not the same images")
    robust_a, robust_b = a.robust[rows_a].astype(bool), b.robust[rows_b].astype(bool)
    test = mcnemar(robust_a, robust_b)
    both = int((robust_a & robust_b).sum())
    interval = paired_difference(test.only_first, test.only_second, len(common))
    return {
        "first": first,
        "second": second,
        "n": len(common),
        "both": both,
        "only_first": test.only_first,
        "only_second": test.only_second,
        "neither": len(common) - both - test.only_first - test.only_second,
        "difference": (test.only_first - test.only_second) / len(common),
        "interval": interval,
        "p_value": test.p_value,
        "first_indices": common[robust_a & ~robust_b].astype(np.int64),
        "second_indices": common[robust_b & ~robust_a].astype(np.int64),
    }


def _notes(results: Sequence[Result], pairs: Sequence[Pair]) -> list[str]:
    notes = []
    suites = sorted({result.suite for result in results})
    if len(suites) > 1:
        notes.append(
            f"the suites differ ({', '.join(suites)}): a weaker suite leaves more samples robust, so differences are "
            "partly those of the suites"
        )
    if len({result.dataset.sha256 for result in results}) > 1:
        fewest = min(pair.n for pair in pairs)
        notes.append(f"the results are of different samples of the data set; {fewest} or more are common to each pair")
    return notes
