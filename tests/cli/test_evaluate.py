"""``harness evaluate``: what is evaluated, what is found again, what is printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.engine.types import AttackProgress
from harness.evaluation import display
from harness.results import store
from harness.util.devices import find_device
from tests.cli.conftest import Harness
from tests.registry.material import registered


@pytest.mark.usefixtures("tiny")
def test_defaults_come_from_the_manifest(harness: Harness, calls: list[dict[str, Any]]) -> None:
    code, out, err = harness("evaluate", "--checkpoint", "tiny.pt")
    assert code == 0
    (asked,) = calls
    assert asked["checkpoint"] == "tiny"
    assert asked["dataset"].name == "digits"
    assert asked["n"] == asked["dataset"].size
    assert (str(asked["threat"]), asked["suite"], asked["seed"]) == ("Linf:0.15", "autoattack", 0)
    device = find_device()
    how = {"batch_size": "auto", "precision": "auto", "workers": "auto", "device": device}
    assert {name: asked[name] for name in how} == how
    assert "robust 50.0 %" in out
    assert "leaderboards/results/tiny__autoattack__Linf-0.15__" in out
    assert "a library that prints" not in out
    # stderr is no terminal here: one line a step
    assert [line for line in err.splitlines() if "surviving" in line] == [
        "tiny, autoattack: first: 7 of 10 surviving",
        "tiny, autoattack: second: 5 of 10 surviving",
    ]


def test_a_long_step_is_heard_of_in_a_log(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    monkeypatch.setattr(display.time, "monotonic", lambda: now)
    with display.displayed("tiny", "pgd") as report:
        assert report is not None
        for now, done in ((1000.0, 0.0), (1029.0, 0.1), (1031.0, 0.25), (1060.0, 0.5), (1061.0, 1.0)):  # noqa: B007
            report(AttackProgress("pgd", done, 10 - int(10 * done), 10))
    assert capsys.readouterr().err.splitlines() == [
        "tiny, pgd: pgd: 10 of 10 surviving",
        "tiny, pgd: pgd: 8 of 10 surviving, 25 % done",
        "tiny, pgd: pgd: 0 of 10 surviving, 100 % done",
    ]


@pytest.mark.usefixtures("tiny")
def test_everything_can_be_overridden(harness: Harness, calls: list[dict[str, Any]], folder: Path) -> None:
    args = (
        "--suite pgd --norm l2 --eps 1/2 --limit 20 --batch-size 8 --device cpu --seed 3 --precision bf16 --workers 2"
    )
    code, out, _ = harness("evaluate", "--checkpoint", "tiny", *args.split(), "--output", "elsewhere", "--json")
    assert code == 0
    (asked,) = calls
    assert (str(asked["threat"]), asked["suite"], asked["seed"], asked["n"]) == ("L2:1/2", "pgd", 3, 20)
    assert (asked["batch_size"], asked["precision"], asked["workers"], asked["device"]) == (8, "bf16", 2, "cpu")
    printed = json.loads(out)
    wanted = {"checkpoint": "tiny", "dataset": "digits", "threat": "L2:1/2", "suite": "pgd", "n": 20, "flags": []}
    assert {key: printed[key] for key in wanted} == wanted
    assert (printed["clean_acc"], printed["robust_acc"], printed["partial"]) == (1.0, 0.5, True)
    assert {"name", "before", "after", "forward", "backward"} <= set(printed["steps"][0])
    path = Path(printed["result"])
    assert path.parent == folder / "elsewhere"
    assert store.read(path).robust_acc == 0.5
    assert len(store.read_verdicts(path)) == 20


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [((), (False, None)), (("--compile", "--graphs"), (True, True)), (("--no-graphs",), (False, False))],
)
@pytest.mark.usefixtures("tiny")
def test_compiled_passes_and_graphs_are_asked_for(
    harness: Harness, calls: list[dict[str, Any]], flags: tuple[str, ...], wanted: tuple[bool, bool | None]
) -> None:
    assert harness("evaluate", "--checkpoint", "tiny", *flags).code == 0
    assert (calls[0]["compiled"], calls[0]["graphs"]) == wanted


@pytest.mark.parametrize(
    ("args", "threat"),
    [
        ([], "Linf:0.15"),
        (["--eps", "0.3"], "Linf:0.3"),
        (["--norm", "linf"], "Linf:0.15"),
        (["--norm", "L1", "--eps", "2"], "L1:2"),
    ],
)
@pytest.mark.usefixtures("tiny")
def test_threat(harness: Harness, calls: list[dict[str, Any]], args: list[str], threat: str) -> None:
    assert harness("evaluate", "--checkpoint", "tiny", *args).code == 0
    assert str(calls[0]["threat"]) == threat


@pytest.mark.usefixtures("tiny", "calls")
def test_a_norm_without_a_standard_needs_its_eps(harness: Harness) -> None:
    harness("evaluate", "--checkpoint", "tiny", "--norm", "L2").refused("L2", "--eps")


def test_a_manifest_that_says_nothing_leaves_it_to_the_data_set(
    harness: Harness, calls: list[dict[str, Any]], tiny: Path
) -> None:
    manifest = tiny.with_suffix(".toml")
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(line for line in lines if not line.startswith(("dataset", "threat"))))
    harness("evaluate", "--checkpoint", "tiny").refused("names no data set", "--dataset")
    assert harness("evaluate", "--checkpoint", "tiny", "--dataset", "digits").code == 0
    assert str(calls[0]["threat"]) == "Linf:0.15"


def test_the_same_evaluation_is_found(harness: Harness, calls: list[dict[str, Any]], tiny: Path) -> None:
    command = ["evaluate", "--checkpoint", str(tiny), "--suite", "pgd", "--json"]
    first = json.loads(harness(*command).out)
    again = json.loads(harness(*command).out)
    assert (first["ran"], again["ran"]) == (True, False)
    assert again["result"] == first["result"]
    assert len(calls) == 1
    assert "found, not run again" in harness(*command[:-1]).out
    # what decides the outcome is another evaluation; what does not is the same
    assert json.loads(harness(*command, "--workers", "1").out)["ran"] is False
    assert json.loads(harness(*command, "--seed", "1").out)["ran"] is True
    assert json.loads(harness(*command, "--limit", "10").out)["ran"] is True
    forced = json.loads(harness(*command, "--force").out)
    assert forced["ran"] is True
    assert forced["result"] != first["result"]


def test_several_checkpoints_are_a_list(harness: Harness, calls: list[dict[str, Any]], tiny: Path) -> None:
    for suffix in (".pt", ".toml"):
        text = tiny.with_suffix(suffix).read_bytes().replace(b'"tiny', b'"copy')
        tiny.with_name(f"copy{suffix}").write_bytes(text)
    code, out, _ = harness("evaluate", "--checkpoint", "tiny", "--checkpoint", "copy", "--suite", "clean", "--json")
    assert code == 0
    # the same weights on the same images: no second attack, but a record under the other name
    assert [(entry["checkpoint"], entry["ran"]) for entry in json.loads(out)] == [("tiny", True), ("copy", False)]
    assert [asked["checkpoint"] for asked in calls] == ["tiny"]


@pytest.mark.usefixtures("tiny", "calls")
def test_strict(harness: Harness) -> None:
    assert harness("evaluate", "--checkpoint", "tiny", "--suite", "pgd", "--strict").code == 0
    assert harness("evaluate", "--checkpoint", "tiny", "--suite", "fgsm").code == 0
    code, out, _ = harness("evaluate", "--checkpoint", "tiny", "--suite", "fgsm", "--strict", "--json")
    assert code == 3
    assert [flag["text"] for flag in json.loads(out)["flags"]] == ["doubtful"]


@pytest.mark.usefixtures("tiny", "calls")
def test_harness_home(harness: Harness, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(folder / "home"))
    out = harness("evaluate", "--checkpoint", "tiny", "--json").out
    assert Path(json.loads(out)["result"]).parent == folder / "home" / "leaderboards" / "results"


@pytest.mark.usefixtures("tiny")
def test_with_the_real_evaluator(harness: Harness) -> None:
    command = ["evaluate", "--checkpoint", "tiny", "--suite", "fgsm", "--limit", "30", "--workers", "1", "--json"]
    code, out, _ = harness(*command)
    assert code == 0
    printed = json.loads(out)
    assert printed["n"] == 30
    assert [step["name"] for step in printed["steps"]] == ["fgsm"]
    assert json.loads(harness(*command).out)["ran"] is False


@pytest.mark.usefixtures("tiny")
def test_bn_statistics(harness: Harness, calls: list[dict[str, Any]]) -> None:
    command = ["evaluate", "--checkpoint", "tiny", "--suite", "pgd", "--limit", "12"]
    assert harness(*command).code == 0
    for kind in ("clean", "adversarial", "batch"):
        assert harness(*command, "--bn-stats", kind).code == 0
    assert [(asked["bn_stats"], asked["bn_data"] and asked["bn_data"].split) for asked in calls] == [
        ("stored", None),
        ("clean", "train"),
        ("adversarial", "train"),
        ("batch", None),
    ]
    # all of the training images, however few are evaluated
    assert len(calls[1]["bn_data"]) == calls[1]["bn_data"].size > 1000
    assert calls[1]["n"] == 12


@pytest.mark.usefixtures("tiny")
def test_bn_statistics_with_the_real_evaluator(harness: Harness) -> None:
    command = ["evaluate", "--checkpoint", "tiny", "--suite", "fgsm", "--limit", "20", "--workers", "1"]
    printed = [json.loads(harness(*command, "--bn-stats", kind, "--json").out) for kind in ("stored", "clean", "batch")]
    assert [answer["bn_stats"] for answer in printed] == ["stored", "clean", "batch"]
    assert all(answer["ran"] for answer in printed)
    again = harness(*command, "--bn-stats", "clean")
    assert again.out.startswith("tiny [bn-stats: clean]: fgsm on ")
    assert "found, not run again" in again.out
    board = harness("leaderboard").out
    assert all(name in board for name in ("tiny ", "tiny [bn-stats: clean]", "tiny [bn-stats: batch]"))


@pytest.mark.usefixtures("tiny", "calls")
def test_bn_statistics_asked_wrongly(harness: Harness) -> None:
    command = ["evaluate", "--checkpoint", "tiny"]
    harness(*command, "--bn-stats", "train").refused("'train'", "adversarial", code=2)
    harness(*command, "--bn-data", "digits").refused("--bn-stats clean or adversarial", code=2)
    harness(*command, "--bn-stats", "clean", "--bn-data", "nothing").refused("unknown data set 'nothing'")


def test_eps_in_normalized_units(harness: Harness, calls: list[dict[str, Any]], folder: Path) -> None:
    registered(folder / "checkpoints", "scaled")  # divides by 0.4
    code, _, err = harness("evaluate", "--checkpoint", "scaled", "--eps", "0.25", "--eps-units", "normalized")
    assert code == 0
    assert str(calls[0]["threat"]) == "Linf:0.1"
    assert "warning: scaled: eps 0.25 was given in normalised units; Linf 0.1 in pixel units was used" in err


@pytest.mark.usefixtures("tiny", "calls")
def test_normalized_units_asked_wrongly(harness: Harness) -> None:
    command = ["evaluate", "--checkpoint", "tiny", "--eps-units", "normalized"]
    harness(*command).refused("--eps-units normalized needs --eps", code=2)
    harness(*command, "--eps", "0.1").refused("tiny has no normalisation", "--eps-units")
