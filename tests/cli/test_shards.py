"""``harness evaluate --shard`` and ``harness collect``: what they print, and their exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Harness

ARGS = ("evaluate", "--checkpoint", "tiny", "--suite", "fgsm", "--limit", "20", "--output", "out", "--workers", "1")


@pytest.mark.usefixtures("tiny")
def test_shards_are_run_looked_at_and_joined(harness: Harness, folder: Path) -> None:
    harness("collect", "out").refused("there are no parts")
    code, out, _ = harness(*ARGS, "--shard", "2/2")
    assert code == 0
    assert "shard 2/2, 10 of 20 images" in out
    code, out, err = harness("collect", "out")
    assert code == 1
    assert "1 of 2" in out
    assert err == "error: parts of tiny are missing: run 'harness evaluate' with --shard 1/2\n"
    code, out, _ = harness(*ARGS, "--shard", "1/2", "--json")
    assert (code, json.loads(out)["shard"]) == (0, "1/2")
    assert "found, not run again" in harness(*ARGS, "--shard", "1/2").out
    code, out, _ = harness("collect", "out", "--json")
    (joined,) = json.loads(out)
    assert (code, joined["missing"], joined["n"]) == (0, [], 20)
    # what was joined is found like any other result
    assert harness("collect", "out").code == 0
    found = json.loads(harness(*ARGS, "--json").out)
    assert (found["ran"], found["result"], found["robust_acc"]) == (False, joined["result"], joined["robust_acc"])
    assert sorted(path.suffix for path in (folder / "out").iterdir() if path.is_file()) == [
        ".json",
        ".npz",
        ".safetensors",
    ]
    assert harness("verify", joined["result"]).code == 0
    assert harness(*ARGS, "--shard", "1/2", "--no-adversarial").code == 2


@pytest.mark.usefixtures("tiny")
def test_a_shard_from_the_environment(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_ARRAY_TASK_ID", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    harness(*ARGS, "--shard", "auto").refused("neither is set in the environment")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert "shard 2/4, 5 of 20 images" in harness(*ARGS, "--shard", "auto").out
    harness(*ARGS, "--shard", "5/4").refused("the shards of 4 are 1/4 to 4/4")
