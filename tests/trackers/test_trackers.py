"""What experiment trackers are told: by a stand-in for each package, and by those that are installed themselves."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from harness import trackers
from harness.cli import run
from harness.engine.types import AttackProgress
from harness.errors import InvalidInput, UnknownName
from harness.trackers import Tracked, tracked

ABOUT = {"checkpoint": "natural", "threat": {"norm": "Linf", "eps": "8/255"}, "shape": [3, 8], "regime": None}
FLAT = {"checkpoint": "natural", "threat.norm": "Linf", "threat.eps": "8/255", "shape": "[3, 8]"}
TICKS = [AttackProgress("apgd-ce", *seen, 9) for seen in ((0.0, 9), (0.01, 8), (1.0, 6))]
TOLD = [({"done/apgd-ce": 0.0, "robust_acc_so_far": 0.9}, 0), ({"done/apgd-ce": 1.0, "robust_acc_so_far": 0.6}, 1)]


class Module(ModuleType):
    """Takes every call, and keeps it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **named: self.calls.append((name, args, named))


@pytest.fixture
def stand_in(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Module:
    module = Module(request.param)
    monkeypatch.setitem(sys.modules, request.param, module)
    return module


def report(tracker: str) -> None:
    with tracked(tracker, "natural pgd", ABOUT, 10) as track:
        for tick in TICKS:
            track(tick)


@pytest.mark.parametrize("stand_in", ["trackio", "wandb"], indirect=True)
def test_trackio_and_wandb_are_told(stand_in: Module) -> None:
    report(stand_in.__name__)
    assert stand_in.calls == [
        ("init", (), {"project": "robust-harness", "name": "natural pgd", "config": FLAT}),
        *(("log", (values,), {"step": step}) for values, step in TOLD),
        ("finish", (), {}),
    ]


@pytest.mark.parametrize("stand_in", ["mlflow"], indirect=True)
def test_mlflow_is_told(stand_in: Module) -> None:
    report("mlflow")
    assert stand_in.calls == [
        ("set_experiment", ("robust-harness",), {}),
        ("start_run", (), {"run_name": "natural pgd"}),
        ("log_params", (FLAT,), {}),
        *(("log_metrics", (values,), {"step": step}) for values, step in TOLD),
        ("end_run", (), {}),
    ]


def test_tensorboard_writes_what_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    results = tmp_path / "results"
    arguments = ["evaluate", "--checkpoint", "natural", "--suite", "fgsm", "--limit", "10", "--workers", "1"]
    assert run([*arguments, "--output", str(results), "--tracker", "tensorboard"]) == 0
    [folder] = (tmp_path / "runs").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    scalars = {name: [event.value for event in events.Scalars(name)] for name in events.Tags()["scalars"]}
    assert scalars["done/fgsm"][-1] == 1
    assert scalars["robust_acc"] == scalars["robust_acc_after/fgsm"]
    assert 0 <= scalars["robust_acc"][0] <= scalars["clean_acc"][0] <= 1


def test_trackio_keeps_what_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trackio = pytest.importorskip("trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    monkeypatch.setattr("trackio.utils.TRACKIO_DIR", tmp_path, raising=False)
    report("trackio")
    [found] = trackio.Api().runs("robust-harness")
    assert found.name == "natural pgd"


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InvalidInput, match=r"needs the package wandb: pip install 'robust-harness\[wandb\]'"):
        report("wandb")
    with pytest.raises(UnknownName, match="did you mean"):
        report("wandbb")
    assert trackers.names() == ("mlflow", "tensorboard", "trackio", "wandb")


def test_a_tracker_that_fails_ends_no_evaluation() -> None:
    class Gone:
        def log(self, values: Any, step: int) -> None:
            raise ConnectionError("no route")

        def close(self) -> None:
            raise AssertionError("is not told any more")

    track = Tracked(Gone(), 10)
    with pytest.warns(UserWarning, match="the tracker failed, .* ConnectionError: no route"):
        track(TICKS[0])
    track(TICKS[2])
    track.close()


def test_a_tracker_that_cannot_begin_ends_no_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(name: str, about: Any) -> Any:
        raise ConnectionError("no route")

    monkeypatch.setattr("harness.trackers.wandb.wandb", begin)
    with pytest.warns(UserWarning, match="the tracker failed, .* ConnectionError: no route") as warned:
        report("wandb")
    assert len(warned) == 1
