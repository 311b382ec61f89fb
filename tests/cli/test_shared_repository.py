"""The workflow in docs/examples keeps a leaderboard in a git repository honest: its own steps are run here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.results import history, store
from tests.house._tree import ROOT

yaml = pytest.importorskip("yaml")
WORKFLOW: dict[str, Any] = yaml.safe_load((ROOT / "docs" / "examples" / "shared-leaderboard.yml").read_text())
SHIPPED = ROOT / "leaderboards" / "results"


def git(folder: Path, *args: str) -> str:
    identity = ("-c", "user.name=tester", "-c", "user.email=tester@example.org", "-c", "init.defaultBranch=main")
    done = subprocess.run(["git", *identity, *args], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one result and a line of history, and a branch ``work`` that is checked out."""
    folder, binaries = tmp_path / "board", tmp_path / "bin"
    binaries.mkdir()
    program = binaries / "harness"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m harness "$@"\n')
    program.chmod(0o755)
    (folder / "results").mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    for name in ("natural", "bn_ft"):
        for ending in ("pt", "toml"):
            shutil.copy(ROOT / "checkpoints" / f"{name}.{ending}", folder / "checkpoints")
    hand_in(folder, "natural__pgd")
    (path,) = (folder / "results").glob("*.json")
    history.add(path.parent, history.entry("verified", path, store.read(path), by="nobody"))
    git(folder, "init", "-q")
    commit(folder)
    git(folder, "checkout", "-q", "-b", "work")
    return folder


def hand_in(folder: Path, name: str) -> None:
    for file in SHIPPED.glob(f"{name}__*"):
        shutil.copy(file, folder / "results")


def commit(folder: Path) -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "a change")


def run(folder: Path, job: str, name: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """One step as the workflow runs it."""
    (script,) = [step["run"] for step in WORKFLOW["jobs"][job]["steps"] if step.get("name") == name]
    path = f"{folder.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
    known = {"PYTHONPATH": str(ROOT), **os.environ, "PATH": path, "BASE": "main", **environment}
    return subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script],
        cwd=folder,
        env=known,
        capture_output=True,
        text=True,
        check=False,
    )


def test_only_additions_pass(repository: Path) -> None:
    name = "Results are only ever added"
    hand_in(repository, "bn_ft__pgd")
    (path,) = (repository / "results").glob("natural__*.json")
    history.add(path.parent, history.entry("retracted", path, store.read(path), reason="wrong"))
    commit(repository)
    assert run(repository, "check", name).returncode == 0
    assert run(repository, "check", "The history only grows").returncode == 0
    path.unlink()
    commit(repository)
    refused = run(repository, "check", name)
    assert refused.returncode == 1
    assert path.name in refused.stdout


def test_the_history_may_not_be_rewritten(repository: Path) -> None:
    log = repository / "results" / history.FILE
    log.write_text(log.read_text().replace("nobody", "somebody"))
    commit(repository)
    assert run(repository, "check", "The history only grows").returncode != 0
    log.unlink()
    commit(repository)
    assert run(repository, "check", "The history only grows").returncode != 0
    assert run(repository, "check", "Results are only ever added").returncode == 0


def test_new_results_are_verified(repository: Path) -> None:
    name = "Every new result can be verified"
    assert run(repository, "check", name).returncode == 0  # there is none
    hand_in(repository, "bn_ft__pgd")
    commit(repository)
    (examples,) = (repository / "results").glob("bn_ft__*.safetensors")
    examples.write_bytes(examples.read_bytes()[:-1] + b"\0")
    commit(repository)
    refused = run(repository, "check", name)
    assert refused.returncode != 0
    assert "WRONG  examples" in refused.stdout
    assert "natural" not in refused.stdout


def test_what_is_merged_is_noted_and_ranked(repository: Path) -> None:
    before = git(repository, "rev-parse", "HEAD")
    hand_in(repository, "bn_ft__pgd")
    commit(repository)
    noted = run(repository, "publish", "Note who verified the new results", BEFORE=before, RUN="run 7")
    assert noted.returncode == 0, noted.stderr
    assert [line.by for line in history.read(repository / "results")] == ["nobody", "CI, run 7"]
    made = run(repository, "publish", "Make the leaderboards")
    assert made.returncode == 0, made.stderr
    assert git(repository, "status", "--porcelain") == ""
    page = (repository / "leaderboards" / "digits-Linf.html").read_text()
    assert "by CI, run 7" in page
    assert "by nobody" in page


def test_every_step_is_known_here() -> None:
    """A step that is added to the workflow is tested, or is one that needs a server."""
    steps = {step["name"] for job in WORKFLOW["jobs"].values() for step in job["steps"] if "run" in step}
    tested = {
        "Results are only ever added",
        "The history only grows",
        "Every new result can be verified",
        "Note who verified the new results",
        "Make the leaderboards",
    }
    assert steps - tested == {"Install", "Publish them", "The leaderboards can be made"}
