"""Studies: regimes x seeds, trained and evaluated as far as that is missing, and claims judged on what came out.

A study is one TOML file (`read`). `plan` checks it against everything it names before anything runs, `run` does
what is missing, `collect` reads what is there, and `write_report` says what it shows.
"""

from __future__ import annotations

from harness.studies.elsewhere import evaluate_elsewhere
from harness.studies.measurements import Measurements, collect
from harness.studies.planning import Plan, plan
from harness.studies.report import write_report
from harness.studies.runner import Summary, run
from harness.studies.scheduling import Event
from harness.studies.spec import Study, quick, read

__all__ = [
    "Event",
    "Measurements",
    "Plan",
    "Study",
    "Summary",
    "collect",
    "evaluate_elsewhere",
    "plan",
    "quick",
    "read",
    "run",
    "write_report",
]
