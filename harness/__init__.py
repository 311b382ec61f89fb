"""Attack-benchmark evaluation harness.

A checkpoint registry feeds models trained under different batch-normalization regimes into an
evaluator that attacks them with PGD and AutoAttack, and the results become leaderboards of clean
against robust accuracy.

>>> import harness
>>> result = harness.evaluate(model, x, y, threat="Linf:8/255", suite="autoattack")  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from harness._version import __version__

if TYPE_CHECKING:
    from harness import checkpoints as checkpoints
    from harness import datasets as datasets
    from harness import models as models
    from harness.boards import leaderboard as leaderboard
    from harness.boards import load_results as load_results
    from harness.errors import HarnessError as HarnessError
    from harness.evaluation import curve as curve
    from harness.evaluation import evaluate as evaluate
    from harness.evaluation import verify as verify
    from harness.results.public import Result as Result
    from harness.threat import ThreatModel as ThreatModel

__all__ = [
    "HarnessError",
    "Result",
    "ThreatModel",
    "__version__",
    "checkpoints",
    "curve",
    "datasets",
    "evaluate",
    "leaderboard",
    "load_results",
    "models",
    "verify",
]

_HOMES = {
    "HarnessError": "harness.errors",
    "Result": "harness.results.public",
    "ThreatModel": "harness.threat",
    "curve": "harness.evaluation",
    "evaluate": "harness.evaluation",
    "verify": "harness.evaluation",
    "leaderboard": "harness.boards",
    "load_results": "harness.boards",
}
_MODULES = ("checkpoints", "datasets", "models")


def __getattr__(name: str) -> Any:
    # torch takes seconds to import; `harness --help` and `harness list` should not pay for it
    if name in _MODULES:
        return importlib.import_module(f"harness.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'harness' has no attribute {name!r}: it offers {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
