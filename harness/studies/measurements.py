"""What has been measured of a study, read back from its checkpoints and results."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from harness import regimes
from harness.checkpoints import Manifest, manifest_path
from harness.errors import InvalidInput
from harness.results import store
from harness.results.record import Result
from harness.studies.jobs import Folders, find_result, load
from harness.studies.planning import Measure, Member, Plan
from harness.training.health import Health, assess
from harness.util.reading import read_bounded
from harness.util.text import printable

__all__ = ["Measurement", "Measurements", "Network", "collect", "is_trained"]

_LARGEST_LOG = 1 << 24

Bits = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, eq=False)
class Measurement:
    """One evaluation: its record, and per sample who was right and who stood."""

    result: Result
    correct: Bits
    robust: Bits


@dataclass(frozen=True, eq=False)
class Network:
    """One trained network, as far as it was evaluated.

    Attributes:
        log: the numbers of every epoch, as the training wrote them.
    """

    label: str
    seed: int
    manifest: Manifest
    measured: Mapping[Measure, Measurement]
    log: tuple[Mapping[str, float], ...] = ()

    @property
    def trained_share(self) -> float | None:
        """Trained parameters in percent of all."""
        trained = self.manifest.trained_parameters
        return None if trained is None else 100 * trained / max(1, self.manifest.parameters)


@dataclass(frozen=True, eq=False)
class Measurements:
    """Everything that a report is made of.

    Attributes:
        networks: of every label, by seed; those that are not there yet are left out.
    """

    plan: Plan
    networks: Mapping[str, Mapping[int, Network]] = field(default_factory=dict)

    def of(self, label: str, measure: Measure) -> dict[int, Measurement]:
        """Evaluations of a label's networks, by seed."""
        found = self.networks.get(label, {})
        return {seed: n.measured[measure] for seed, n in found.items() if measure in n.measured}

    def lineage(self, label: str) -> tuple[str, ...]:
        """The label, and those of what it was trained from, one after the other."""
        parent = self.plan.member(label).parent
        return (label,) if parent is None else (label, *self.lineage(parent))

    def health(self, label: str, seed: int) -> Health | None:
        """How the training of a network went; None where that is not known, or nothing was trained."""
        network = self.networks.get(label, {}).get(seed)
        if network is None or not network.log:
            return None
        name, regime = network.manifest.regime, self.plan.member(label).regime
        if regime is None and name in regimes.names():
            regime = regimes.get(name)
        size, batch = (network.manifest.training.get(key) for key in ("train_size", "batch_size"))
        return assess(
            network.log,
            classes=network.manifest.classes,
            adversarial=regime is not None and regime.stages()[-1].loss != "natural",
            steps_per_epoch=max(1, size // batch) if isinstance(size, int) and isinstance(batch, int) else None,
        )


def is_trained(plan: Plan, member: Member, seed: int, folders: Folders) -> bool:
    """Whether there is nothing to train."""
    if member.source is not None:
        return True
    stem = folders.checkpoints / plan.names[member.label, seed]
    # the log is what is written last
    return all(stem.with_name(f"{stem.name}{suffix}").is_file() for suffix in (".pt", ".toml", ".csv"))


def collect(plan: Plan, output: Path) -> Measurements:
    """Read what is there.

    Raises:
        CheckpointError: a checkpoint that is damaged.
        ResultError: a result that is damaged.
    """
    folders = Folders(output)
    networks = {
        member.label: {
            seed: _network(plan, member, seed, folders)
            for seed in plan.seeds_of(member)
            if is_trained(plan, member, seed, folders)
        }
        for member in plan.members
    }
    return Measurements(plan, networks)


def _network(plan: Plan, member: Member, seed: int, folders: Folders) -> Network:
    point = load(plan, member, seed, folders)
    measured = {}
    for measure in plan.measures_of(member):
        path = find_result(plan, point, measure, folders)
        if path is not None:
            verdicts = store.read_verdicts(path)
            measured[measure] = Measurement(store.read(path), verdicts.clean_pred == verdicts.y, verdicts.robust)
    log = manifest_path(point.path).with_suffix(".csv")
    return Network(member.label, seed, point.manifest, measured, _log(log) if log.is_file() else ())


def _log(path: Path) -> tuple[dict[str, float], ...]:
    try:
        text = read_bounded(path, _LARGEST_LOG).decode("utf-8")
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        return tuple({name: float(value) for name, value in row.items() if value} for row in rows)
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise InvalidInput(f"the training log {path} cannot be read: {printable(error, longest=300)}") from error
