"""What the promises of docs/trust.md rest on, run and counted: ``python -m benchmarks.trust [--moments N] [--n N]``.

Cases of the tests for each promise, then kills of evaluations that are continued, then an audit and a verification
that are timed.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import resume, verify
from benchmarks._foreign import add_material
from benchmarks.autoattack import machine
from harness import checkpoints, datasets, evaluation
from harness.evaluation import Plan

__all__ = ["main", "promises"]

_ROOT = Path(__file__).resolve().parents[1]


def promises() -> list[tuple[str, list[str]]]:
    """The promises of docs/trust.md and the test files that hold each."""
    text = (_ROOT / "docs" / "trust.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| (.*`tests/.+?) \|$", text, flags=re.MULTILINE)
    return [(promise, re.findall(r"tests/[\w/]+\.py", held)) for promise, held in rows]


def _cases(files: list[str]) -> dict[str, tuple[int, int]]:
    """How many cases of each test file hold, and how many there are; a skipped one is none."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-n", "0", f"--junitxml={report}", *files]
        subprocess.run(command, cwd=_ROOT, stdout=subprocess.DEVNULL, check=False)
        cases = list(ElementTree.parse(report).iter("testcase"))
    counted = dict.fromkeys(files, (0, 0))
    for case in cases:
        file = f"{case.get('classname', '').replace('.', '/')}.py"
        outcomes = {part.tag for part in case}
        if file in counted and "skipped" not in outcomes:
            held, all_ = counted[file]
            counted[file] = held + (not outcomes & {"failure", "error"}), all_ + 1
    return counted


# what docs/trust.md counts one by one
_TALLIES = {
    "hostile and broken files refused or ignored, no code run": "tests/hostile/test_hostile.py",
    "planted bad models flagged or refused": "tests/audit/test_planted.py",
    "healthy models without a flag": "tests/audit/test_healthy.py",
    "changes of a result's files caught, with and without hashes made anew": "tests/evaluation/test_verify.py",
}


def audit_share(n: int) -> tuple[float, float]:
    """Seconds of the audit before AutoAttack, and of the whole evaluation, of a robust model on ``n`` of the digits."""
    torch.set_num_threads(1)
    plan = evaluation.plan_checkpoint(
        checkpoints.load("at_full"),
        datasets.load("digits", limit=n),
        threat="Linf:0.15",
        suite="autoattack",
        workers=1,
    )
    spent = []
    audited = Plan.audited

    def timed(*args: Any) -> Any:
        began = time.perf_counter()
        flags = audited(*args)
        spent.append(time.perf_counter() - began)
        return flags

    with patch.object(Plan, "audited", timed):
        done = evaluation.run(plan)
    return sum(spent), done.result.seconds


def main() -> None:
    """Run everything and print the tallies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_material(parser)
    parser.add_argument("--moments", type=int, default=20, help="kills")
    parser.add_argument("--n", type=int, default=10_000, help="images to verify")
    parser.add_argument("--audited", type=int, default=100, help="images to attack after an audit that is timed")
    options = parser.parse_args()
    table = Table("promise", "cases that hold", title=f"docs/trust.md on {machine()}")
    listed = promises()
    counted = _cases(sorted({file for _, files in listed for file in files} | set(_TALLIES.values())))
    for what, file in _TALLIES.items():
        table.add_row(what, "{} of {}".format(*counted[file]))
    table.add_section()
    for promise, files in listed:
        held, all_ = (sum(counted[file][part] for file in files) for part in (0, 1))
        table.add_row(promise, f"{held} of {all_}")
    with tempfile.TemporaryDirectory() as folder:
        kills = resume.kills(options.moments, 0, Path(folder))
    worst = max(kill.seconds / kill.before for kill in kills)
    table.add_row("kills after which the verdicts are the same", f"{sum(k.same for k in kills)} of {len(kills)}")
    table.add_row("work redone after one of them, a worker, at most", f"{worst:.1f} s")
    audit, whole = audit_share(options.audited)
    table.add_row(
        f"the audit's share of AutoAttack on {options.audited:,} digits, at_full, one thread",
        f"{audit:.1f} s of {whole:.1f} s, {audit / whole:.1%}",
    )
    found = verify.measure(options.n, options.material)
    holds = "holds" if found["holds"] else "does not hold"
    table.add_row(
        f"a result of {options.n:,} images, ResNet-20, verified on one thread", f"{found['seconds']:.1f} s, {holds}"
    )
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
