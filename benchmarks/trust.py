"""What the promises of docs/trust.md rest on, run and counted: ``python -m benchmarks.trust [--moments N] [--n N]``.

Cases of the tests for each promise, then kills of evaluations that are continued, then a verification that is timed.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import resume, verify
from benchmarks._foreign import add_material
from benchmarks.autoattack import machine

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


def main() -> None:
    """Run everything and print the tallies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_material(parser)
    parser.add_argument("--moments", type=int, default=20, help="kills")
    parser.add_argument("--n", type=int, default=10_000, help="images to verify")
    options = parser.parse_args()
    table = Table("promise", "cases that hold", title=f"docs/trust.md on {machine()}")
    listed = promises()
    counted = _cases(sorted({file for _, files in listed for file in files}))
    for promise, files in listed:
        held, all_ = (sum(counted[file][part] for file in files) for part in (0, 1))
        table.add_row(promise, f"{held} of {all_}")
    with tempfile.TemporaryDirectory() as folder:
        kills = resume.kills(options.moments, 0, Path(folder))
    worst = max(kill.seconds / kill.before for kill in kills)
    table.add_row("kills after which the verdicts are the same", f"{sum(k.same for k in kills)} of {len(kills)}")
    table.add_row("work redone after one of them, a worker, at most", f"{worst:.1f} s")
    found = verify.measure(options.n, options.material)
    holds = "holds" if found["holds"] else "does not hold"
    table.add_row(
        f"a result of {options.n:,} images, ResNet-20, verified on one thread", f"{found['seconds']:.1f} s, {holds}"
    )
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
