"""Evaluation: a model, samples, a threat model and a suite in; a `Result` out.

>>> result = harness.evaluate(model, x, y, threat="Linf:8/255", suite="autoattack")  # doctest: +SKIP
"""

from harness.evaluation._evaluate import Evaluation, evaluate, evaluate_checkpoint, evaluation_id, examine

__all__ = ["Evaluation", "evaluate", "evaluate_checkpoint", "evaluation_id", "examine"]
