"""What the program imports before it does anything: help and lists are there at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house._tree import ROOT

# each of these takes longer to import than the whole program may
HEAVY = {"matplotlib", "numpy", "pandas", "pydantic", "robustbench", "safetensors", "scipy", "sklearn", "torch"}

SCRIPT = """
import contextlib, io, json, sys
from harness.cli import run
with contextlib.redirect_stdout(io.StringIO()):
    code = run(sys.argv[1:])
print(json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def imported(*arguments: str) -> set[str]:
    """The packages that a process has imported after a command."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], env=environment, capture_output=True, text=True, check=True
    )
    code, names = json.loads(done.stdout)
    assert code == 0, done.stderr
    return set(names)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["evaluate", "--help"],
        ["train", "--help"],
        ["study", "--help"],
        *(
            ["list", kind]
            for kind in ("architectures", "attacks", "datasets", "formats", "norm-layers", "norms", "sources", "suites")
        ),
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_imported(arguments: list[str]) -> None:
    assert imported(*arguments) & HEAVY == set()


def test_a_leaderboard_needs_no_torch(tmp_path: Path) -> None:
    results = ROOT / "leaderboards" / "results"
    if not results.is_dir():
        pytest.skip("the leaderboards are not part of this copy of the sources")
    found = imported("leaderboard", "--results", str(results), "--output", str(tmp_path))
    assert found & {"matplotlib", "pandas", "robustbench", "scipy", "sklearn", "torch"} == set()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shells_are_given_completions(shell: str) -> None:
    quickstart = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    assert 'eval "$(_HARNESS_COMPLETE=bash_source harness)"' in quickstart
    assert f"{shell}_source" in quickstart
    assert "harness" in completed(_HARNESS_COMPLETE=f"{shell}_source")
    words = {"COMP_WORDS": "harness evaluate --sui", "COMP_CWORD": "--sui" if shell == "fish" else "2"}
    assert "--suite" in completed(_HARNESS_COMPLETE=f"{shell}_complete", **words)


def completed(**environment: str) -> str:
    """What the program answers a shell."""
    script = "import sys; sys.argv = ['harness']; from harness.cli import main; main()"
    variables = os.environ | {"PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run([sys.executable, "-c", script], env=variables, capture_output=True, text=True, check=True)
    return done.stdout


def test_it_would_be_noticed() -> None:
    assert "pydantic" in imported("list", "regimes")
