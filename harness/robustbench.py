"""robustbench with this package's AutoAttack: its ``benchmark`` runs on this package's engine.

>>> from harness.robustbench import import_robustbench
>>> robustbench = import_robustbench()  # doctest: +SKIP
>>> clean, robust = robustbench.benchmark(model, n_examples=1000, threat_model="Linf")  # doctest: +SKIP

An AutoAttack that is installed under upstream's name is not replaced.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from harness.autoattack import AutoAttack, EvaluationState
from harness.models.sources._zoo import MissingAutoAttack, import_package, zoo_model, zoo_names

__all__ = ["EvaluationState", "import_robustbench", "zoo_model", "zoo_names"]


def import_robustbench() -> ModuleType:
    """The package robustbench, imported; where it found no AutoAttack, it uses the one of this package.

    Raises:
        HarnessError: it is not installed or fails to import; nothing of it is left half-imported.
    """
    package = import_package()
    evaluation = vars(importlib.import_module("robustbench.eval"))
    for name, ours in (("AutoAttack", AutoAttack), ("EvaluationState", EvaluationState)):
        if evaluation.get(name) is MissingAutoAttack:
            evaluation[name] = ours
    return package
