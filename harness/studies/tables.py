"""A study's figures as rows: for the report, and as CSV files for whoever computes with them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from harness.results.record import Result
from harness.results.stats import wilson
from harness.studies.judging import Judgement
from harness.studies.measurements import Measurements
from harness.studies.planning import Measure
from harness.studies.statistics import p_text
from harness.util.text import spreadsheet_cell

__all__ = ["Spread", "claims_csv", "clean", "report_csv", "robust", "runs_csv", "trained_share"]

_NUMBER = re.compile(r"-?\d+(\.\d+)?")


@dataclass(frozen=True)
class Spread:
    """Accuracies of one entry, one of each seed, in percent.

    Attributes:
        images: how many images each of them is counted on.
    """

    values: tuple[float, ...]
    images: int

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return float(np.mean(self.values))

    @property
    def deviation(self) -> float | None:
        """Of the sample (k - 1); None for one value."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None

    @property
    def interval(self) -> tuple[float, float]:
        """What other images would change: the 95 % Wilson interval of the mean, as all seeds share their images."""
        low, high = wilson(round(self.mean / 100 * self.images), self.images)
        return 100 * low, 100 * high

    def __bool__(self) -> bool:
        return bool(self.values)

    def __str__(self) -> str:
        if not self.values:
            return "-"
        return f"{self.mean:.1f}" if self.deviation is None else f"{self.mean:.1f} ± {self.deviation:.1f}"


def clean(measurements: Measurements, label: str, measure: Measure) -> Spread:
    """Clean accuracy over seeds."""
    return _spread(measurements, label, measure, lambda result: result.clean_acc)


def robust(measurements: Measurements, label: str, measure: Measure) -> Spread:
    """Robust accuracy over seeds."""
    return _spread(measurements, label, measure, lambda result: result.robust_acc)


def _spread(measurements: Measurements, label: str, measure: Measure, accuracy: Callable[[Result], float]) -> Spread:
    results = [outcome.result for outcome in measurements.of(label, measure).values()]
    return Spread(tuple(100 * accuracy(result) for result in results), results[0].n if results else 0)


def trained_share(measurements: Measurements, label: str) -> tuple[int, int | None] | None:
    """Parameters, and how many of them were trained; None where there is no network."""
    manifests = [network.manifest for network in measurements.networks.get(label, {}).values()]
    return (manifests[0].parameters, manifests[0].trained_parameters) if manifests else None


def report_csv(measurements: Measurements) -> str:
    """A row for every entry and measure: means and deviations over seeds."""
    header = (
        "label", "regime", "suite", "eps", "bn_stats", "seeds", "n", "clean_mean", "clean_sd", "robust_mean",
        "robust_sd", "parameters", "trained_parameters",
    )  # fmt: skip
    rows: list[Sequence[object]] = []
    for member in measurements.plan.members:
        counts = trained_share(measurements, member.label)
        for measure in measurements.plan.measures_of(member):
            natural, standing = clean(measurements, member.label, measure), robust(measurements, member.label, measure)
            if natural and counts:
                n = next(iter(measurements.of(member.label, measure).values())).result.n
                rows.append(
                    (
                        member.label, member.regime.name if member.regime else "", measure.suite, measure.threat.eps,
                        measure.bn_stats, len(natural.values), n, _number(natural.mean), _number(natural.deviation),
                        _number(standing.mean), _number(standing.deviation), *counts,
                    )
                )  # fmt: skip
    return _csv(header, rows)


def runs_csv(measurements: Measurements) -> str:
    """A row for every evaluation, with what it was made on."""
    header = (
        "label", "seed", "suite", "eps", "bn_stats", "n", "clean", "robust", "flags", "evaluation_seconds", "epoch",
        "training_seconds", "training_device", "torch", "checkpoint", "weights_sha256", "evaluation_id",
    )  # fmt: skip
    rows: list[Sequence[object]] = []
    for networks in measurements.networks.values():
        for network in networks.values():
            facts = network.manifest.training
            for measure, outcome in network.measured.items():
                result = outcome.result
                rows.append(
                    (
                        network.label, network.seed, measure.suite, measure.threat.eps, measure.bn_stats, result.n,
                        _number(100 * result.clean_acc), _number(100 * result.robust_acc),
                        "; ".join(map(str, result.flags)), f"{result.seconds:.1f}", facts.get("epoch"),
                        facts.get("seconds"), facts.get("device"), facts.get("torch"), network.manifest.name,
                        network.manifest.weights_sha256, result.evaluation_id,
                    )
                )  # fmt: skip
    return _csv(header, rows)


def claims_csv(judgements: Sequence[Judgement]) -> str:
    """A row for every claim."""
    header = (
        "claim", "about", "verdict", "estimate", "low", "high", "p_value", "p_value_of", "holm_p_value", "seeds",
        "seeds_in_favour", "bootstrap_low", "bootstrap_high", "largest_mcnemar_p_value", "reason",
    )  # fmt: skip
    rows = [
        (
            j.claim.text, j.claim.about, j.verdict, _number(j.estimate), _number(j.low), _number(j.high),
            _p(j.p_value), j.of_what, _p(j.corrected), j.seeds, j.in_favour,
            *map(_number, j.bootstrap or (None, None)), _p(j.mcnemar), j.reason,
        )
        for j in judgements
    ]  # fmt: skip
    return _csv(header, rows)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _p(value: float | None) -> str:
    return "" if value is None else p_text(value)


def _csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(map(_cell, row) for row in rows)
    return text.getvalue()


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = str(value)
    # numbers may begin with a minus; all else may come from strangers' files
    return text if _NUMBER.fullmatch(text) else spreadsheet_cell(text, longest=10_000)
