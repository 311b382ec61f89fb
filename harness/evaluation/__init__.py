"""Evaluation: a model, samples, a threat model and a suite in; a `Result` out.

An evaluation is resolved once into a `Plan`, which is looked up in the store, run, and stored.

>>> result = harness.evaluate(model, x, y, threat="Linf:8/255", suite="autoattack")  # doctest: +SKIP
"""

from harness.evaluation._curve import ascending, curve
from harness.evaluation._evaluate import Evaluation, evaluate, evaluate_checkpoint, evaluation_id, examine, run
from harness.evaluation._forecast import Forecast, StepForecast, forecast
from harness.evaluation._material import Material
from harness.evaluation.differing import differing_samples
from harness.evaluation.distances import smallest_distances
from harness.evaluation.estimation import StoredEstimate, Target, estimate
from harness.evaluation.intake import Taken, take_in
from harness.evaluation.placement import place
from harness.evaluation.plan import Plan, plan_checkpoint, plan_model
from harness.evaluation.sharding import StoredPart, obtain_part, part_of, refuse_stranger, run_part, shard_plan
from harness.evaluation.stored import Stored, find, keep, obtain, recorded
from harness.evaluation.verification import Check, Verification, verify

__all__ = [
    "Check",
    "Evaluation",
    "Forecast",
    "Material",
    "Plan",
    "StepForecast",
    "Stored",
    "StoredEstimate",
    "StoredPart",
    "Taken",
    "Target",
    "Verification",
    "ascending",
    "curve",
    "differing_samples",
    "estimate",
    "evaluate",
    "evaluate_checkpoint",
    "evaluation_id",
    "examine",
    "find",
    "forecast",
    "keep",
    "obtain",
    "obtain_part",
    "part_of",
    "place",
    "plan_checkpoint",
    "plan_model",
    "recorded",
    "refuse_stranger",
    "run",
    "run_part",
    "shard_plan",
    "smallest_distances",
    "take_in",
    "verify",
]
