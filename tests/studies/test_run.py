"""Small studies from end to end: everything is done once, whatever stands in between."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from harness import checkpoints, training
from harness import studies as studies
from harness.cli import run as harness
from harness.errors import InvalidInput, UnknownName
from harness.studies import Event, Summary, runner
from harness.util.pool import can_fork
from tests.studies import made_up
from tests.studies.made_up import planned, write
from tests.support import of_strong_suites

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unaudited")]

SMALL = {"seeds": 1, "limit": 20, "suites": ["fgsm"]}


def silent(event: Event) -> None:
    """Nobody listens."""


def stamps(output: Path) -> dict[str, int]:
    """When each checkpoint and result was written."""
    found = [*output.glob("checkpoints/*"), *output.glob("results/*")]
    return {str(path.relative_to(output)): path.stat().st_mtime_ns for path in found}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary]:
    output = tmp_path_factory.mktemp("done")
    return output, studies.run(
        planned(**SMALL), output=output, progress=silent, workers=2, command="harness study run x"
    )


def test_everything_is_trained_and_evaluated(done: tuple[Path, Summary]) -> None:
    output, summary = done
    assert (summary.trained, summary.evaluated, summary.failures) == (3, 3, {})
    found = studies.collect(planned(**SMALL), output)
    assert {label: list(networks) for label, networks in found.networks.items()} == {
        "natural": [0],
        "bn-ft": [0],
        "at-full": [0],
    }
    network = found.networks["bn-ft"][0]
    assert network.manifest.regime == "bn-ft"
    assert network.manifest.parent is not None
    assert network.manifest.parent.weights_sha256 == found.networks["natural"][0].manifest.weights_sha256
    assert network.manifest.training["command"] == "harness study run x"
    assert [row["epoch"] for row in network.log] == [1.0]
    assert all(len(n.measured) == 1 for networks in found.networks.values() for n in networks.values())


def test_states_are_cleared(done: tuple[Path, Summary]) -> None:
    assert sorted(path.name for path in done[0].iterdir()) == ["checkpoints", "results", "run.json"]


def test_nothing_is_done_twice(done: tuple[Path, Summary]) -> None:
    output, _ = done
    before, notes = stamps(output), (output / "run.json").read_bytes()
    again = studies.run(planned(**SMALL), output=output, progress=silent, workers=2)
    assert (again.trained, again.evaluated, again.jobs) == (0, 0, {})
    assert (stamps(output), (output / "run.json").read_bytes()) == (before, notes)


def test_what_is_new_is_done_and_nothing_else(done: tuple[Path, Summary]) -> None:
    output, _ = done
    before = stamps(output)
    more = planned(**SMALL | {"suites": ["fgsm", "pgd-20"], "regimes": ["natural", "bn-ft", "at-full", "bn-scratch"]})
    summary = studies.run(more, output=output, progress=silent, workers=2, only=["bn-scratch", "natural"])
    assert sorted(summary.jobs) == [
        "evaluate bn-scratch seed 0 fgsm 0.15 stored",
        "evaluate bn-scratch seed 0 pgd-20 0.15 stored",
        "evaluate natural seed 0 pgd-20 0.15 stored",
        "train bn-scratch seed 0",
    ]
    assert {name: when for name, when in stamps(output).items() if name in before} == before


def test_an_entry_that_is_not_there(done: tuple[Path, Summary]) -> None:
    with pytest.raises(UnknownName, match="did you mean 'bn-ft'"):
        studies.run(planned(**SMALL), output=done[0], progress=silent, only=["bn-tf"])


def test_processes_change_no_figure(
    done: tuple[Path, Summary], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.studies.runner.can_isolate", lambda device: False)
    studies.run(planned(**SMALL), output=tmp_path, progress=silent, workers=1, only=["bn-ft"])
    ours, theirs = (studies.collect(planned(**SMALL), output).networks["bn-ft"][0] for output in (tmp_path, done[0]))
    assert ours.manifest.weights_sha256 == theirs.manifest.weights_sha256
    (measure,) = planned(**SMALL).measures
    assert (ours.measured[measure].robust == theirs.measured[measure].robust).all()


@pytest.mark.skipif(not can_fork(), reason="processes cannot be forked here")
def test_evaluations_on_an_executor(
    done: tuple[Path, Summary], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, output = write(tmp_path / "tiny.toml", **SMALL), tmp_path / "out"
    shutil.copytree(done[0] / "checkpoints", output / "checkpoints")
    command = ["study", "run", str(file), "--output", str(output), "--devices", "cpu,cpu"]
    assert harness(command) == 0
    out, err = capsys.readouterr()
    assert "evaluated 3 now" in out
    assert "tiny, devices: 6 of 6 shards done" in err
    ours, theirs = (studies.collect(planned(**SMALL), folder).networks for folder in (output, done[0]))
    (measure,) = planned(**SMALL).measures
    for label, networks in theirs.items():
        assert (ours[label][0].measured[measure].robust == networks[0].measured[measure].robust).all()
    assert harness(command) == 0
    assert "evaluated 0 now" in capsys.readouterr().out


def test_a_training_that_diverges_takes_along_what_starts_from_it(tmp_path: Path) -> None:
    bad = {"regime": "natural", "label": "wild", "training": {"learning_rate": 1e30, "epochs": 2}}
    child = {"regime": "bn-ft", "label": "child", "parent": "wild"}
    made = planned(**SMALL | {"regimes": ["natural"], "entry": [bad, child]})
    summary = studies.run(made, output=tmp_path, progress=silent, workers=2)
    assert list(summary.failures) == ["train wild seed 0"]
    assert "diverged" in summary.failures["train wild seed 0"]
    assert {n for n, d in summary.jobs.items() if d.status == "skipped"} == {
        "train child seed 0",
        "evaluate child seed 0 fgsm 0.15 stored",
        "evaluate wild seed 0 fgsm 0.15 stored",
    }
    assert (summary.trained, summary.evaluated) == (1, 1)
    assert len(list((tmp_path / "checkpoints").glob("wild-s0-*_before_divergence.pt"))) == 1


def test_a_parent_from_elsewhere_is_found_when_a_claim_is_checked(tmp_path: Path) -> None:
    known = checkpoints.load("natural")
    checkpoints.save(known.model, directory=tmp_path / "elsewhere", name="foreign")
    entries = [{"checkpoint": "foreign"}, {"regime": "bn-ft", "parent": "foreign"}]
    made = studies.plan(made_up.study(**SMALL, regimes=[], entry=entries), checkpoint_dir=tmp_path / "elsewhere")
    assert studies.run(made, output=tmp_path / "out", progress=silent, workers=1).failures == {}
    outcomes = studies.collect(made, tmp_path / "out").networks["bn-ft"][0].measured
    assert [of_strong_suites(outcome.result.flags) for outcome in outcomes.values()] == [[]]


def test_a_cut_off_study_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted after the third job; then all the rest is done, and nothing again."""
    trained: list[str] = []
    ended: list[str] = []

    def cutting(event: Event) -> None:
        if event.result is not None:
            ended.append(event.job.name)
        if len(ended) == 3:
            raise KeyboardInterrupt

    def counted(regime, **arguments):  # type: ignore[no-untyped-def]
        trained.append(f"{regime.name} {arguments['settings'].seed}")
        return real(regime, **arguments)

    real = training.train_and_register
    monkeypatch.setattr(training, "train_and_register", counted)
    monkeypatch.setattr("harness.studies.runner.can_isolate", lambda device: False)
    made = planned(**SMALL | {"seeds": 2})
    with pytest.raises(KeyboardInterrupt):
        studies.run(made, output=tmp_path, progress=cutting, workers=1)
    before = stamps(tmp_path)
    summary = studies.run(made, output=tmp_path, progress=silent, workers=1)
    assert len(summary.jobs) == 12 - 3
    assert sorted(trained) == sorted(f"{name} {seed}" for name in ("natural", "bn-ft", "at-full") for seed in (0, 1))
    assert {name: when for name, when in stamps(tmp_path).items() if name in before} == before
    sessions = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert [session["jobs"] for session in sessions] == [3, 9]


def test_a_killed_study_goes_on_where_it_was(tmp_path: Path) -> None:
    """Killed without a word in the middle of a training, with processes at work."""
    file = write(tmp_path / "tiny.toml", **SMALL | {"training": {"epochs": 24, "batch_size": 20, "steps": 1}})
    command = [sys.executable, "-m", "harness", "study", "run", str(file), "--output", str(tmp_path / "out")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, start_new_session=True)
    until = time.monotonic() + 60
    while not list(tmp_path.glob("out/.training/*/training-*.pt")) and time.monotonic() < until:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    states = list(tmp_path.glob("out/.training/*/training-*.pt"))
    assert states
    finished = subprocess.run([*command, "--json"], capture_output=True, text=True, env=environment, check=True)
    told = json.loads(finished.stdout)
    trained = len(list(tmp_path.glob("out/checkpoints/*.pt")))
    assert (trained, told["evaluated"]) == (3, 3)
    assert not (tmp_path / "out" / ".training").exists()
    # the run that went on took the weights of the state: the whole log is there, each epoch once
    logs = [path.read_text(encoding="utf-8").splitlines() for path in tmp_path.glob("out/checkpoints/*.csv")]
    assert [[line.split(",")[0] for line in log[1:]] for log in logs] == [[str(e + 1) for e in range(24)]] * 3


class TestCommand:
    def test_run_report_and_status(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        claims = [{"text": "params(bn-ft) < 0.2"}, {"text": "robust(natural) <= chance + 50", "about": "nobody"}]
        file = str(write(tmp_path / "tiny.toml", **SMALL, claim=claims))
        output = ["--output", str(tmp_path / "out")]
        assert harness(["study", "run", file, *output, "--only", "natural", "--workers", "1"]) == 0
        out, err = capsys.readouterr()
        assert "tiny: trained 1, evaluated 1 now" in out
        assert "[2/2] evaluate natural seed 0 fgsm 0.15 stored: done" in err
        assert (tmp_path / "out" / "report.md").is_file()
        assert "`harness study run" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")

        assert harness(["study", "status", file, *output, "--json"]) == 0
        table = json.loads(capsys.readouterr().out)
        assert [(row["entry"], row["trained"], row["evaluated"]) for row in table] == [
            ("natural", 1, 1),
            ("bn-ft", 0, 0),
            ("at-full", 0, 0),
        ]

        assert harness(["study", "report", file, *output, "--into", str(tmp_path / "copy"), "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert [claim["verdict"] for claim in told["claims"]][:1] == ["open"]
        same = [(tmp_path / folder / "report.md").read_bytes() for folder in ("out", "copy")]
        assert same[0] == same[1]

    def test_a_quick_variant_lies_in_a_folder_of_its_own(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
        file = str(write(tmp_path / "tiny.toml", **SMALL | {"seeds": 2}, claim=[{"text": "params(bn-ft) < 0.2"}]))
        assert harness(["study", "run", file, "--quick", "--only", "natural", "--workers", "1"]) == 0
        assert "tiny-quick: trained 1, evaluated 1 now" in capsys.readouterr().out
        (folder,) = (tmp_path / "study-runs").iterdir()
        assert folder.name == "tiny-quick"
        page = (folder / "report.md").read_text(encoding="utf-8")
        assert page.startswith("# tiny (quick variant: a tenth of the epochs, one seed, 100 images)")
        assert f"`harness study run {file} --quick --only natural`" in page

    def test_a_run_reads_its_file_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """So that what is searched and what is run cannot be two studies."""
        read = studies.read

        def read_and_remove(path: Path) -> studies.Study:
            found = read(path)
            path.unlink()
            return found

        def planned_only(*_: object, **__: object) -> None:
            raise InvalidInput("planned")

        monkeypatch.setattr(studies, "read", read_and_remove)
        monkeypatch.setattr("harness.cli.study._do", planned_only)
        file = write(tmp_path / "tiny.toml", **SMALL)
        assert harness(["study", "run", str(file), "--output", str(tmp_path / "out")]) == 1
        assert capsys.readouterr().err == "error: planned\n"

    @pytest.mark.parametrize("command", ["run", "report", "status"])
    def test_a_study_that_is_not_there(self, command: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert harness(["study", command, "nowhere.toml"]) == 1
        assert capsys.readouterr().err.startswith("error: cannot read the study nowhere.toml")

    def test_debug_is_an_option_of_every_command(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert harness(["study", "status", "nowhere.toml", "--debug"]) == 1
        assert "Traceback" in capsys.readouterr().err


def test_jobs_share_a_gpu_only_where_that_is_asked_for() -> None:
    gpu = torch.device("cuda")
    assert (runner._count("auto", gpu), runner._count(3, gpu)) == (1, 3)
    with pytest.raises(InvalidInput, match="workers must be 'auto' or a positive number, got 0"):
        runner._count(0, gpu)
