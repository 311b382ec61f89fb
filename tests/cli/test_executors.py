"""``harness evaluate --devices`` and ``--executor``: what they print, and what goes with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.util.pool import can_fork
from tests.cli.conftest import Harness

pytestmark = pytest.mark.usefixtures("unaudited")

ARGS = ("evaluate", "--checkpoint", "tiny", "--suite", "fgsm", "--limit", "20", "--output", "out")

FILE = """
from harness import evaluation
from harness.cluster import Executor, Options, Queue
from harness.errors import ModelError
from harness.results import parts

class Elsewhere:
    slots = 3

    def run(self, queue: Queue) -> None:
        while task := queue.next():
            if task.plan.settings.seed == 1:
                queue.failed(task, ModelError("its output is NaN"))
            elif task.shard.number < 3:
                parts.save(evaluation.run_part(task.plan, task.shard), queue.root)
                queue.done(task)

def elsewhere(options: Options) -> Executor:
    return Elsewhere()
"""


@pytest.mark.skipif(not can_fork(), reason="processes cannot be forked here")
@pytest.mark.usefixtures("tiny")
def test_on_two_devices(harness: Harness) -> None:
    code, out, err = harness(*ARGS, "--devices", "cpu,cpu", "--json")
    assert code == 0, err
    assert "tiny, fgsm, devices: 2 of 2 shards done" in err
    stored = json.loads(out)
    assert (stored["ran"], stored["n"]) == (True, 20)
    found = json.loads(harness(*ARGS, "--json").out)
    assert (found["ran"], found["result"]) == (False, stored["result"])
    assert "found, not run again" in harness(*ARGS, "--devices", "cpu,cpu").out


@pytest.mark.usefixtures("tiny")
def test_an_executor_of_ones_own(harness: Harness, folder: Path) -> None:
    (folder / "mine.py").write_text(FILE)
    code, out, err = harness(*ARGS, "--executor", "mine.py:elsewhere", "--seeds", "0,1")
    assert code == 1
    assert "tiny: fgsm, 2 of 3 shards done\n" in out
    assert out.endswith("the others go on elsewhere\nharness collect out says at any time how far they are\n")
    assert "seed 1 failed: its output is NaN" in err
    (shown,) = [json.loads(harness(*ARGS, "--executor", "mine.py:elsewhere", "--json").out)]
    assert (shown["there"], shown["missing"]) == (2, ["3/3"])
    assert harness(*ARGS, "--shard", "3/3").code == 0
    assert harness("collect", "out").code == 0


def test_a_broken_checkpoint_does_not_stop_the_others(harness: Harness, tiny: Path) -> None:
    for path in tiny.parent.glob("tiny*"):
        (tiny.parent / path.name.replace("tiny", "broken")).write_bytes(path.read_bytes())
    (tiny.parent / "broken.pt").write_bytes(b"noise")
    (tiny.parent.parent / "mine.py").write_text(FILE.replace("task.shard.number < 3", "True"))
    code, out, err = harness(*ARGS, "--checkpoint", "broken", "--executor", "mine.py:elsewhere")
    assert code == 1
    assert "failed: broken, fgsm, seed 0: " in out
    assert "tiny: fgsm on 20 of" in out
    assert err.count("error: broken, fgsm, seed 0 failed") == 1
    # as the task of a cluster, whose command names both
    alone = harness(*ARGS, "--output", "shards", "--checkpoint", "broken", "--shard", "1/2")
    assert alone.code == 1
    assert "error: 1 of 2 evaluations failed, the others are stored: broken, fgsm: " in alone.err
    assert len(list(Path("shards").glob("shards/*/part-1-of-2.safetensors"))) == 1


@pytest.mark.usefixtures("tiny")
def test_an_interrupt_of_force_promises_no_continuation(harness: Harness, folder: Path) -> None:
    (folder / "mine.py").write_text(FILE.replace("while task := queue.next():", "raise KeyboardInterrupt"))
    text = (folder / "mine.py").read_text()
    (folder / "mine.py").write_text(
        text[: text.index("            if task.plan")] + text[text.index("def elsewhere") :]
    )
    assert harness(*ARGS, "--executor", "mine.py:elsewhere", "--force").err.endswith(
        "error: interrupted; with --force the same command begins anew\n"
    )
    assert "continues where this one was" in harness(*ARGS, "--executor", "mine.py:elsewhere").err


@pytest.mark.usefixtures("tiny")
def test_what_does_not_go_together(harness: Harness) -> None:
    assert harness(*ARGS, "--shards", "3").code == 2
    assert harness(*ARGS, "--devices", "cpu", "--shard", "1/2").code == 2
    for words in (
        ("--devices", "cpu", "--partition", "short"),
        ("--devices", "cpu", "--executor", "slurm"),
        ("--executor", "ray", "--time", "1h"),
        ("--executor", "slurm", "--timeout", "1m"),
        ("--timeout", "1m"),
    ):
        assert harness(*ARGS, *words).code == 2, words
    harness(*ARGS, "--executor", "cloud").refused("unknown executor 'cloud'")
    harness(*ARGS, "--executor", "").refused("unknown executor ''")
    harness(*ARGS, "--devices", "cpu", "--timeout", "0s").refused("--timeout must be longer than nothing")
    Path("mine.py").write_text("five = 5\ndef none(options):\n    return None\n")
    harness(*ARGS, "--executor", "mine.py:five").refused("mine.py:five must be a function", "got a int")
    harness(*ARGS, "--executor", "mine.py:none").refused("mine.py:none must return an object with slots", "NoneType")
    harness(*ARGS, "--devices", "cpu", "--timeout", "soon").refused("a time is written as 90s")
