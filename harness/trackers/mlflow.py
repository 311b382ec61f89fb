"""MLflow: where ``MLFLOW_TRACKING_URI`` says, else in the current folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from harness.trackers import PROJECT
from harness.util.extras import required

__all__ = ["mlflow"]

# the longest value that a parameter may have in all of its stores
_MOST = 500
_STRANGE = re.compile(r"[^\w\-./ ]")


class _Run:
    def __init__(self, module: Any) -> None:
        self._module = module

    def log(self, values: Mapping[str, float], step: int) -> None:
        # other letters than these are refused in names
        self._module.log_metrics({_STRANGE.sub("-", name): value for name, value in values.items()}, step=step)

    def close(self) -> None:
        self._module.end_run()


def mlflow(name: str, about: Mapping[str, str | int | float]) -> _Run:
    """Begin a run of the experiment `PROJECT`."""
    module: Any = required("mlflow", "--tracker mlflow")
    module.set_experiment(PROJECT)
    module.start_run(run_name=name)
    module.log_params({key: str(value)[:_MOST] for key, value in about.items()})
    return _Run(module)
