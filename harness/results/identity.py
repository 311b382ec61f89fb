"""What an evaluation is known by: one hash of what decides its verdicts, another of the record that is made of it.

The verdicts of an attack depend on weights, architecture, data, threat model, steps and seed. What the checkpoint is
called, what its manifest claims, and whether that could be checked are annotations: they belong to the record, and a
change of them is no reason to attack again. Both hashes follow from what a result says of itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from harness.audit import kinds
from harness.audit.flags import Flag
from harness.results.record import DatasetRecord, ModelRecord, Result, ThreatRecord

__all__ = ["identified", "network_id", "record_id", "run_id", "step_identity", "steps_made", "verdict_id"]

_ALGORITHM = 1
"""Raised whenever the same inputs may give other verdicts, so that old results are not taken for new ones."""


def verdict_id(
    *,
    model: ModelRecord,
    dataset: DatasetRecord,
    threat: ThreatRecord,
    steps: Iterable[Mapping[str, Any]],
    seed: int,
    precision: str,
) -> str:
    """Hash of everything that decides the verdicts of an evaluation.

    Of an architecture, attack or norm in a file of one's own, the source text counts and not the path.

    Args:
        steps: of the suite, in order, each from `step_identity`.
    """
    return _hash(
        {
            "algorithm": _ALGORITHM,
            **_network(model),
            "data": dataset.sha256,
            "threat": [_named(threat.norm, threat.source_sha256), threat.radius, threat.source_sha256],
            "steps": list(steps),
            "seed": seed,
            "precision": precision,
        }
    )


def network_id(model: ModelRecord) -> str:
    """Hash of everything that decides what a network answers: what it is known by, whatever it is called."""
    return _hash(_network(model))


def _network(model: ModelRecord) -> dict[str, Any]:
    return {
        "weights": model.sha256,
        "architecture": _named(model.architecture, model.source_sha256),
        "source": model.source_sha256,
        "norm_layer": model.norm_layer,
        "normalization": model.normalization,
        "bn_stats": [model.bn_stats, model.bn_stats_facts],
        **({"arguments": model.arguments} if model.arguments else {}),
    }


def step_identity(
    name: str, attack: str, parameters: Mapping[str, Any], source_sha256: str | None = None
) -> dict[str, Any]:
    """What one step adds to `verdict_id`; its name counts, because its random numbers are keyed by it."""
    named = _named(attack, source_sha256)
    return {"name": name, "attack": named, "parameters": dict(parameters), "source": source_sha256}


def steps_made(result: Result) -> list[dict[str, Any]]:
    """`step_identity` of every step of the suite that a result records."""
    seen = {}
    for step in result.steps:
        part = step_identity(step.part_of or step.name, step.attack, step.parameters, step.source_sha256)
        seen[part["name"]] = part  # the rows of a step that reports several follow each other
    return list(seen.values())


def record_id(
    evaluation_id: str,
    *,
    checkpoint: str,
    model: ModelRecord,
    dataset: DatasetRecord,
    threat: ThreatRecord,
    suite: str,
    flags: Iterable[Flag],
) -> str:
    """Hash of an evaluation and of what its record says besides: names, claims, and the flags known before the attack.

    Args:
        evaluation_id: from `verdict_id`.
        flags: those of the result; the ones that the attack raised are left out.
    """
    records = [record.model_dump(mode="json", exclude_defaults=True) for record in (model, dataset, threat)]
    known = [[flag.code, flag.text] for flag in flags if flag.code in kinds.KNOWN_BEFORE]
    return _hash([evaluation_id, checkpoint, *records, suite, known])


def run_id(result: Result) -> str:
    """Hash of the run that a result is a record of: equal for all of its records, whatever they and their files are
    called.

    The figures count, because a run has one set of them: a record with others is another claim.
    """
    return _hash([result.evaluation_id, result.started, result.seconds, result.clean_acc, result.robust_acc])


def identified(result: Result) -> Result:
    """``result`` with the hashes that follow from its content."""
    evaluation_id = verdict_id(
        model=result.model,
        dataset=result.dataset,
        threat=result.threat,
        steps=steps_made(result),
        seed=result.seed,
        precision=result.environment.precision,
    )
    record = record_id(
        evaluation_id,
        checkpoint=result.checkpoint,
        model=result.model,
        dataset=result.dataset,
        threat=result.threat,
        suite=result.suite,
        flags=result.flags,
    )
    return result.model_copy(update={"evaluation_id": evaluation_id, "record_id": record})


def _named(reference: str, source_sha256: str | None) -> str:
    """The name in ``FILE.py:NAME`` where the file's text counts besides, else the whole reference."""
    return reference.rpartition(":")[2] if source_sha256 else reference


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
