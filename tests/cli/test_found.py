"""A stored result is found without torch, and never where anything that decides it has changed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import checkpoints, evaluation
from harness.cli import _inputs
from harness.cli._evaluation import Planner, Request
from harness.evaluation import _evaluate
from harness.results import receipts
from harness.util import plugins, trust
from tests.cli.conftest import Harness
from tests.cli.test_start import imported
from tests.registry.material import registered, small

SUITE = """[[step]]
attack = "pgd"
steps = 3
restarts = 1
"""
NET = """from torch import nn
import layers
def net(num_classes, in_channels):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))
"""
COMMAND = ("evaluate", "--checkpoint", "own", "--dataset", "data.npz", "--suite", "mine.toml", "--eps", "0.1")


@pytest.fixture
def own(folder: Path) -> Path:
    """A checkpoint with a parent and an architecture of the user's own, images, and a suite in a file."""
    Path("net.py").write_text(NET)
    Path("layers.py").write_text("")
    parent = small(seed=1, architecture="net.py:net", norm_layer="own")
    registered(folder / "checkpoints", "parent", parent)
    made = checkpoints.Parent(name="parent", weights_sha256=checkpoints.weights_sha256(parent))
    registered(
        folder / "checkpoints", "own", small(architecture="net.py:net", norm_layer="own"), regime="at-full", parent=made
    )
    Path("mine.toml").write_text(SUITE)
    images(seed=0)
    return folder


def images(seed: int, labels: int = 0) -> None:
    x = np.random.default_rng(seed).integers(0, 256, (12, 1, 8, 8), dtype=np.uint8)
    np.savez("data.npz", x=x, y=(np.arange(12) + labels) % 10)


def request(**changed: Any) -> Request:
    return Request(root=Path("leaderboards/results"), **({"suite": "mine.toml", "dataset": "data.npz"} | changed))


def planned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which checkpoints are planned from now on."""
    asked: list[str] = []
    checked = Planner.checked

    def noted(planner: Planner, name: str, wanted: Request) -> evaluation.Plan:
        asked.append(name)
        return checked(planner, name, wanted)

    monkeypatch.setattr(Planner, "checked", noted)
    return asked


def meanwhile(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], None]) -> None:
    """Let something happen between planning an evaluation and running it."""
    run = _evaluate.run

    def disturbed(plan: evaluation.Plan, **how: Any) -> evaluation.Evaluation:
        happens()
        return run(plan, **how)

    monkeypatch.setattr(_evaluate, "run", disturbed)


def not_remembered(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """That a command is planned again after it was run; returns the list that grows with each plan."""
    assert harness(*COMMAND).code == 0
    asked = planned(monkeypatch)
    assert harness(*COMMAND).code == 0
    assert asked == ["own"]
    return asked


@pytest.mark.usefixtures("own", "calls")
def test_it_is_the_result_that_a_plan_finds(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    assert harness(*COMMAND).code == 0
    slow = evaluation.find(Planner().plan("own", request(eps="0.1")), Path("leaderboards/results"))
    asked = planned(monkeypatch)
    fast = harness(*COMMAND, "--json")
    assert asked == []
    assert slow is not None
    shown = json.loads(fast.out)
    assert shown["result"] == str(slow.path.resolve())
    assert shown["evaluation_id"] == slow.result.evaluation_id
    assert not shown["ran"]
    people = harness(*COMMAND)
    monkeypatch.setattr(receipts, "recall", lambda inputs: None)
    assert harness(*COMMAND) == people
    assert asked == ["own"]


@pytest.mark.usefixtures("own", "calls")
def test_torch_is_not_imported(harness: Harness) -> None:
    """As with leaderboards: whoever formats a table needs no networks."""
    assert harness(*COMMAND).code == 0
    assert imported(*COMMAND) & {"matplotlib", "pandas", "safetensors", "scipy", "sklearn", "torch"} == set()


def other_weights() -> None:
    registered(Path("checkpoints"), "own", small(seed=2, architecture="net.py:net", norm_layer="own"), overwrite=True)


def other_parent() -> None:
    model = small(seed=2, architecture="net.py:net", norm_layer="own")
    registered(Path("checkpoints"), "parent", model, overwrite=True)


def damaged() -> None:
    path = Path("checkpoints/own.pt")
    content, about = bytearray(path.read_bytes()), path.stat()
    content[-400] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))  # the same size and date


def in_front() -> None:
    registered(Path("first"), "own", small(seed=3, architecture="net.py:net", norm_layer="own"))
    os.environ["HARNESS_HOME"] = "elsewhere"
    Path("elsewhere").mkdir()
    Path("first").rename("elsewhere/checkpoints")


def edit(path: str, old: str, new: str) -> Callable[[], None]:
    def change() -> None:
        text = Path(path).read_text()
        assert old in text
        Path(path).write_text(text.replace(old, new))

    return change


def edited_code() -> None:
    (copy,) = Path("checkpoints/code").glob("*/layers.py")
    copy.write_text("changed = True")


CHANGES: dict[str, Callable[[], None]] = {
    "weights": other_weights,
    "a bit of the weights": damaged,
    "parent": other_parent,
    "manifest": edit("checkpoints/own.toml", 'threat = "Linf:0.15"', 'threat = "Linf:0.2"'),
    "image": lambda: images(seed=1),
    "label": lambda: images(seed=0, labels=1),
    "suite": edit("mine.toml", "steps = 3", "steps = 4"),
    "code": edited_code,
}


@pytest.mark.usefixtures("own", "calls")
@pytest.mark.parametrize("what", CHANGES)
def test_what_has_changed_is_planned_anew(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, what: str, folder: Path
) -> None:
    assert harness(*COMMAND).code == 0
    asked = planned(monkeypatch)
    CHANGES[what]()
    harness(*COMMAND)
    assert asked == ["own"]


@pytest.mark.usefixtures("own", "calls")
def test_a_checkpoint_that_is_found_first_is_another(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    assert harness(*COMMAND).code == 0
    monkeypatch.setenv("HARNESS_HOME", "")
    in_front()
    asked = planned(monkeypatch)
    harness(*COMMAND)
    assert asked == ["own"]


@pytest.mark.usefixtures("own", "calls")
@pytest.mark.parametrize(
    "more",
    ["--eps 0.2", "--norm L2", "--seed 1", "--limit 5", "--precision bf16", "--bn-stats batch", "--force"],
)
def test_what_is_asked_for_otherwise_is_planned(harness: Harness, monkeypatch: pytest.MonkeyPatch, more: str) -> None:
    assert harness(*COMMAND).code == 0
    asked = planned(monkeypatch)
    harness(*COMMAND, *more.split())
    assert asked == ["own"]


@pytest.mark.usefixtures("own")
def test_what_depends_on_more_than_listed_files_is_always_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _inputs.inputs_of("own", request()) is not None
    for changed in (
        {"dataset": "net.py:net"},
        {"norm": "net.py:net"},
        {"suite": "net.py:net"},
        {"checks": ("net.py:net",)},
        {"bn_stats": "clean"},
        {"eps": "0.1", "eps_units": "normalized"},
    ):
        assert _inputs.inputs_of("own", request(**changed)) is None
    assert _inputs.inputs_of("timm:resnet18", request()) is None
    edit("mine.toml", '"pgd"', '"net.py:net"')()
    assert _inputs.inputs_of("own", request()) is None
    monkeypatch.setattr(_inputs, "_MOST", 100)
    assert _inputs.inputs_of("own", request(suite="pgd")) is None


@pytest.mark.usefixtures("own", "calls")
def test_other_sources_of_this_package_are_other_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    before = _inputs.inputs_of("own", request())
    monkeypatch.setattr(_inputs, "_package", lambda: "another version")
    after = _inputs.inputs_of("own", request())
    assert before is not None
    assert after is not None
    assert before.sha256 != after.sha256


@pytest.mark.usefixtures("own", "calls")
@pytest.mark.parametrize("path", ["data.npz", "checkpoints/own.pt"])
def test_a_file_that_was_another_meanwhile_is_not_remembered(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    def disturb() -> None:
        content, about = Path(path).read_bytes(), Path(path).stat()
        Path(path).write_bytes(b"something else")
        Path(path).write_bytes(content)
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))

    meanwhile(monkeypatch, disturb)
    not_remembered(harness, monkeypatch)


@pytest.mark.usefixtures("own", "calls")
def test_a_link_that_led_elsewhere_meanwhile_is_not_remembered(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("a", "b"):
        Path(place).mkdir()
    Path("data.npz").rename("a/data.npz")
    Path("b/data.npz").write_bytes(Path("a/data.npz").read_bytes())
    Path("data.npz").symlink_to("a/data.npz")

    def exchange() -> None:
        for place in ("b", "a"):
            Path("data.npz").unlink()
            Path("data.npz").symlink_to(f"{place}/data.npz")

    meanwhile(monkeypatch, exchange)
    asked = not_remembered(harness, monkeypatch)
    assert harness(*COMMAND).code == 0  # nothing was exchanged this time
    assert asked == ["own"]


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("name", ["mine.py:attack", "mine.py\\u003aattack", "mine\\u002epy:attack"])
def test_a_suite_that_names_code_is_planned(name: str) -> None:
    Path("mine.toml").write_text(f'[[step]]\nattack = "{name}"\n')
    assert _inputs.inputs_of("own", request()) is None


@pytest.mark.usefixtures("own")
def test_weights_behind_a_link_are_planned() -> None:
    assert _inputs.inputs_of("own", request()) is not None
    Path("checkpoints/own.pt").rename("own.pt")
    Path("checkpoints/own.pt").symlink_to(Path("own.pt").absolute())
    assert _inputs.inputs_of("own", request()) is None


@pytest.mark.usefixtures("own", "calls")
def test_what_was_taken_back_is_not_found(harness: Harness) -> None:
    assert json.loads(harness(*COMMAND, "--json").out)["ran"]
    again = json.loads(harness(*COMMAND, "--json").out)
    assert not again["ran"]
    assert harness("retract", again["result"], "--reason", "a test").code == 0
    assert json.loads(harness(*COMMAND, "--json").out)["ran"]


@pytest.mark.usefixtures("own", "calls")
def test_where_plug_ins_are_installed_nothing_is_remembered(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "any_installed", lambda: True)
    not_remembered(harness, monkeypatch)


@pytest.mark.usefixtures("own", "calls")
def test_the_record_must_be_of_these_weights(harness: Harness) -> None:
    assert harness(*COMMAND).code == 0
    inputs = _inputs.inputs_of("own", request(eps="0.1"))
    assert inputs is not None
    root = Path("leaderboards/results")
    known = receipts.recall(inputs.sha256)
    if known is None:  # the command's own request has all of its defaults
        stored = evaluation.find(Planner().plan("own", request(eps="0.1")), root)
        assert stored is not None
        receipts.remember(inputs.sha256, stored.result.evaluation_id, stored.result.record_id)
    assert _inputs.found(inputs, root) is not None
    other = _inputs.Inputs(inputs.sha256, inputs.state, inputs.checkpoint, "0" * 64)
    assert _inputs.found(other, root) is None
    assert _inputs.found(inputs, Path("elsewhere")) is None


@pytest.mark.usefixtures("own", "calls")
def test_of_many_those_that_are_stored_are_not_planned(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    assert harness(*COMMAND).code == 0
    asked = planned(monkeypatch)
    code, out, _ = harness(*COMMAND, "--checkpoint", "parent")
    assert code == 0
    assert asked == ["parent"]
    assert out.count("(found, not run again") == 1


@pytest.mark.usefixtures("own")
def test_what_is_mended_before_an_attack_is_said_again(harness: Harness) -> None:
    first, second = (harness(*COMMAND[:-1], "8", "--workers", "1") for _ in range(2))
    assert "covers every image" in first.err
    warning = next(line for line in first.err.splitlines() if line.startswith("warning: "))
    assert second.err.splitlines() == [warning]


@pytest.mark.usefixtures("own", "calls")
def test_a_tracker_is_told_of_what_is_found(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    assert harness(*COMMAND).code == 0
    asked = planned(monkeypatch)
    harness(*COMMAND, "--tracker", "nothing-of-that-name")
    assert asked == ["own"]


def test_a_receipt_is_of_this_user_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, evaluation_id, record_id = (letter * 64 for letter in "abc")
    receipts.remember(inputs, evaluation_id, record_id)
    assert receipts.recall(inputs) == (evaluation_id, record_id)
    assert receipts.recall("d" * 64) is None
    path = trust.store().parent / "receipts" / inputs
    text = path.read_text()
    for wrong in (text.replace("b", "e"), text[:-1] + "x", text[:100], "", text.upper()):
        path.write_text(wrong)
        assert receipts.recall(inputs) is None
    path.write_text(text)
    assert receipts.recall(inputs) is not None
    key = trust.store().with_name(f"{trust.store().name}.key")
    key.chmod(0o644)
    assert receipts.recall(inputs) is not None
    assert key.stat().st_mode & 0o077 == 0
    monkeypatch.setattr(os, "getuid", lambda: 12345)  # the file is another user's now
    assert receipts.recall(inputs) is None
    monkeypatch.undo()
    key.write_bytes(b"another")
    assert receipts.recall(inputs) is None


def test_old_receipts_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "_MOST", 4)
    for number in range(5):
        receipts.remember(f"{number:064x}", "b" * 64, "c" * 64)
        path = trust.store().parent / "receipts" / f"{number:064x}"
        os.utime(path, (number, number))
    receipts.remember("f" * 64, "b" * 64, "c" * 64)
    assert len(list(path.parent.iterdir())) <= 4
    assert receipts.recall("f" * 64) is not None
    assert receipts.recall(f"{0:064x}") is None
