"""Hand-made results for the tests of store, leaderboard and command line."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from harness.audit.flags import Flag
from harness.audit.kinds import LEGACY
from harness.results.record import DatasetRecord, Environment, ModelRecord, Result, StepRecord, ThreatRecord, Verdicts
from harness.threat import ThreatModel


def make_result(
    checkpoint: str = "bn_ft",
    *,
    suite: str = "autoattack",
    robust: int = 40,
    clean: int = 98,
    n: int = 100,
    size: int = 100,
    threat: str = "Linf:0.15",
    dataset: str = "digits",
    data: str = "d" * 64,
    weights: str | None = None,
    seed: int = 0,
    flags: tuple[Flag | str, ...] = (),
    **model: Any,
) -> Result:
    """A result that differs from others in what is given."""
    threat_model = ThreatModel.parse(threat)
    robust = clean if suite == "clean" else robust
    weights = weights or hashlib.sha256(checkpoint.encode()).hexdigest()
    inputs = f"{weights}{suite}{threat}{data}{n}{seed}{model}"
    facts: dict[str, Any] = {"regime": "bn-ft", "parent": "natural", "trained_parameters": 448, **model}
    return Result(
        checkpoint=checkpoint,
        model=ModelRecord(
            **{"architecture": "digits-resnet", "parameters": 77_754, "norm_layer": "batch", "sha256": weights} | facts
        ),
        dataset=DatasetRecord(name=dataset, split="test", size=size, classes=10, shape=[1, 8, 8], sha256=data),
        threat=ThreatRecord(norm=threat_model.norm, eps=threat_model.eps, radius=threat_model.radius),
        suite=suite,
        seed=seed,
        n=n,
        clean_acc=clean / n,
        robust_acc=robust / n,
        steps=[]
        if suite == "clean"
        else [
            StepRecord(
                name=suite,
                attack="pgd",
                parameters={"steps": 100},
                before=clean,
                after=robust,
                forward=clean * 100,
                backward=clean * 99,
                seconds=1.5,
                model_seconds=1.4,
            )
        ],
        flags=[LEGACY.saying(flag) if isinstance(flag, str) else flag for flag in flags],
        environment=Environment(
            versions={"torch": "2.10.0"},
            python="3.11.0",
            platform="Linux",
            processor="x86_64",
            device="cpu",
            precision="fp32",
            passes=[],
            batch_size=100,
            workers=1,
            threads=1,
        ),
        evaluation_id=hashlib.sha256(inputs.encode()).hexdigest(),
        record_id=hashlib.sha256(f"{checkpoint}{inputs}".encode()).hexdigest(),
        started="2025-01-01T00:00:00+00:00",
        recorded="2025-01-01T00:00:02+00:00",
        seconds=2.0,
        model_seconds=1.4,
        overhead=1.05,
        harness_version="0.1.0",
    )


def make_verdicts(result: Result) -> Verdicts:
    """Verdicts that fit a result: the first samples stand, the last are wrong without attack."""
    n, robust, clean = result.n, round(result.robust_acc * result.n), round(result.clean_acc * result.n)
    index = np.arange(n)
    y = index % 10
    standing = index < robust
    right = index < clean
    return Verdicts(
        index=index,
        y=y,
        clean_pred=np.where(right, y, (y + 1) % 10),
        robust=standing,
        broken_by=np.where(right & ~standing, 0, -1),
        adv_pred=np.where(standing, y, (y + 1) % 10),
        forward=np.where(right, 100, 1),
        backward=np.where(right, 99, 0),
    )
