"""What was evaluated on what, as every list of results begins."""

from __future__ import annotations

from harness.results.estimates import EstimateRecord
from harness.results.record import Result

__all__ = ["heading"]


def heading(record: Result | EstimateRecord) -> dict[str, str | int]:
    """A record's checkpoint, images, threat model and suite as plain values by name."""
    return {
        "checkpoint": record.checkpoint,
        "bn_stats": record.model.bn_stats,
        "dataset": record.dataset.name,
        "split": record.dataset.split,
        "threat": record.threat.text,
        "suite": record.suite,
        "seed": record.seed,
        "n": record.n,
        "partial": record.n < record.dataset.size,
    }
