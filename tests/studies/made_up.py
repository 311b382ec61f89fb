"""Studies and measurements that nobody measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from harness.studies import Measurements, Plan, Study, plan
from harness.studies.measurements import Measurement, Network
from harness.util.validation import validate
from tests.results.records import make_result

TINY: dict[str, Any] = {
    "name": "tiny",
    "dataset": "digits",
    "architecture": "digits-resnet",
    "regimes": ["natural", "bn-ft", "at-full"],
    "seeds": 3,
    "limit": 200,
    "train_limit": 40,
    "suites": ["fgsm", "pgd-20"],
    "training": {"epochs": 1, "batch_size": 20, "steps": 1, "validation": 0},
}


def study(**changes: Any) -> Study:
    return validate(Study, TINY | changes, "the study")


def planned(**changes: Any) -> Plan:
    return plan(study(**changes))


def write(path: Path, **changes: Any) -> Path:
    """A study's file with text, numbers and lists of text at the top, and a table of numbers."""
    table = TINY | changes
    lines = [f"{name} = {_toml(value)}" for name, value in table.items() if not isinstance(value, dict)]
    for name, value in table.items():
        if isinstance(value, dict):
            lines += [f"[{name}]", *(f"{n} = {_toml(v)}" for n, v in value.items())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _toml(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{name} = {_toml(v)}' for name, v in value.items())} }}"
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


def standing(share: float, n: int, *, shift: int = 0) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """So many of ``n`` samples, from the ``shift``-th on."""
    return np.roll(np.arange(n) < round(share * n), shift)


def measurements(
    made: Plan,
    robust: Mapping[str, Sequence[float]],
    clean: Mapping[str, Sequence[float]],
    losses: Mapping[str, float] = MappingProxyType({}),
    started: str = "2100-01-01T00:00:00+00:00",
) -> Measurements:
    """Networks of which, in every measure, the first so many samples survive (accuracies as shares, by seed).

    Args:
        losses: of every epoch, by label; 1 if not given.
        started: when the evaluations began; after everything else if not given.
    """
    from harness.checkpoints import Manifest

    n = len(made.test_set)
    networks: dict[str, dict[int, Network]] = {}
    for label in robust:
        trained = 480 if label.startswith("bn") else 77_562
        manifest = Manifest(
            name=label,
            file=f"{label}.pt",
            sha256="0" * 64,
            weights_sha256="1" * 64,
            architecture="digits-resnet",
            classes=10,
            shape=(1, 8, 8),
            parameters=77_562,
            trained_parameters=trained,
        )
        networks[label] = {}
        for seed, (up, across) in enumerate(zip(robust[label], clean[label], strict=True)):
            outcomes = {
                measure: Measurement(
                    make_result(
                        label,
                        suite=measure.suite,
                        n=n,
                        size=made.test_set.size,
                        data=made.test_set.sha256,
                        threat=str(measure.threat),
                        weights="1" * 64,
                        bn_stats=measure.bn_stats,
                        robust=round(up * n),
                        clean=round(across * n),
                    ).model_copy(update={"started": started}),
                    standing(across, n),
                    standing(up, n),
                )
                for measure in made.measures
            }
            log = tuple(
                {
                    "epoch": float(e),
                    "phase": 1.0,
                    "loss": losses.get(label, 1.0),
                    "validation_clean_acc": across,
                    "validation_robust_acc": up,
                }
                for e in (1, 2, 3)
            )
            networks[label][seed] = Network(label, seed, manifest, outcomes, log)
    return Measurements(made, networks)
