"""A report can be made again elsewhere, byte for byte, from the measurements that travel with it."""

from __future__ import annotations

import io
import json
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.cli import run
from harness.errors import InvalidInput, ResultError
from harness.studies import Plan, archive, plan, planning, read, registration, run_log, write_report
from harness.util.reading import parse_json
from tests.studies.made_up import measurements, planned
from tests.studies.test_judging import CLEAN, ROBUST

pytestmark = pytest.mark.usefixtures("unaudited")

ROOT = Path(__file__).parents[2]
CLAIMS = [{"text": "robust(at-full) > robust(bn-ft)"}, {"text": "robust(bn-ft) > chance"}]


def study(**changes: Any) -> Plan:
    return planned(**{"claim": CLAIMS, "curve": {"eps": [0.05, 0.1]}, **changes})


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("study")
    plan = study()
    registration.register(plan, output)
    run_log.begin(output, command="harness study run tiny.toml", device="cpu", workers=2)
    run_log.note(output, jobs=27, seconds=100.04, cpu_seconds=150.0, ended=True)
    found = measurements(plan, ROBUST, CLEAN)
    # as trained here: a network's name is that of its training
    for label, networks in found.networks.items():
        for seed, network in networks.items():
            name = plan.names[label, seed]
            object.__setattr__(network, "manifest", network.manifest.model_copy(update={"name": name}))
    write_report(found, output)
    return output


def test_the_report_is_the_same_byte_for_byte(written: Path, tmp_path: Path) -> None:
    kept = archive.read(written / archive.NAME)
    found, notes = kept.measurements(study()), kept.notes
    elsewhere = tmp_path / "notes"
    elsewhere.mkdir()
    for name, content in notes.items():
        (elsewhere / name).write_bytes(content)
    files = write_report(found, elsewhere, directory=tmp_path / "report")
    assert {path.name for path in files} >= {"report.md", "report.csv", "runs.csv", "claims.csv", archive.NAME}
    for path in files:
        assert path.read_bytes() == (written / path.name).read_bytes(), path.name
    assert "before anything was evaluated" in (tmp_path / "report" / "report.md").read_text(encoding="utf-8")


def changed(written: Path, folder: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    with tarfile.open(written / archive.NAME) as tar:
        files = {about.name: file.read() for about in tar if (file := tar.extractfile(about))}
    change(files)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    path = folder / archive.NAME
    path.write_bytes(lzma.compress(buffer.getvalue()))
    return path


def first(files: dict[str, bytes], ending: str) -> str:
    return next(name for name in sorted(files) if name.startswith("networks/") and name.endswith(ending))


def flip_a_verdict(files: dict[str, bytes]) -> None:
    name = first(files, "stored.json")
    kept = parse_json(files[name])
    bits = kept["robust"]
    files[name] = files[name].replace(bits.encode(), (("0" if bits[0] != "0" else "f") + bits[1:]).encode())


def raise_the_accuracy(files: dict[str, bytes]) -> None:
    name = first(files, "stored.json")
    value = parse_json(files[name])["result"]["robust_acc"]
    files[name] = files[name].replace(f'"robust_acc":{value}'.encode(), b'"robust_acc":0.99')


def of_another_training(files: dict[str, bytes]) -> None:
    name = first(files, "manifest.json")
    files[name] = files[name].replace(b'"name":"', b'"name":"other-')


def with_evaluation(**changes: Any) -> Callable[[dict[str, bytes]], None]:
    """A change of a result's records, with a hash that fits again."""

    def change(files: dict[str, bytes]) -> None:
        name = first(files, "stored.json")
        kept = parse_json(files[name])
        for field, value in changes.items():
            kept["result"][field] = kept["result"][field] | value if isinstance(value, dict) else value
        kept["sha256"] = archive._digest(kept["result"], kept["correct"], kept["robust"])
        files[name] = json.dumps(kept).encode()

    return change


def with_log(rows: Any) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        files[first(files, "log.json")] = json.dumps(rows).encode()

    return change


def no_json(files: dict[str, bytes]) -> None:
    files[first(files, "manifest.json")] = b"{"


def nothing(files: dict[str, bytes]) -> None:
    files.clear()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (flip_a_verdict, "was changed after it was kept"),
        (raise_the_accuracy, "was changed after it was kept"),
        (of_another_training, "this study trains"),
        (with_evaluation(dataset={"sha256": "e" * 64}), "is of other images"),
        (with_evaluation(model={"sha256": "e" * 64}), "is of other weights"),
        (with_evaluation(model={"bn_stats": "batch"}), "is of other BN statistics"),
        (with_evaluation(threat={"radius": 0.3}), "is of other radius"),
        (with_evaluation(suite="square"), "is of other suite"),
        (with_log([{"loss": 1.0}]), "lacks its epoch or its phase"),
        (with_log({"loss": 1.0}), "cannot be used"),
        (no_json, "cannot be used"),
        (nothing, "none of the networks"),
    ],
)
def test_what_was_changed_is_refused(
    written: Path, tmp_path: Path, change: Callable[[dict[str, bytes]], None], words: str
) -> None:
    with pytest.raises(ResultError, match=words):
        archive.read(changed(written, tmp_path, change)).measurements(study())


def test_files_that_are_none(written: Path, tmp_path: Path) -> None:
    whole = (written / archive.NAME).read_bytes()
    bomb = lzma.compress(bytes(1 << 29), preset=0)
    for content in (b"", b"no archive", whole[: len(whole) // 2], bomb):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(ResultError, match="cannot be used"):
            archive.read(tmp_path / "bad")
    with pytest.raises(ResultError, match="cannot be used"):
        archive.read(tmp_path / "missing")


def test_links_and_devices_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        about = tarfile.TarInfo("networks/bn-ft/0/manifest.json")
        about.type, about.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(about)
    (tmp_path / "linked").write_bytes(lzma.compress(buffer.getvalue()))
    with pytest.raises(ResultError, match="no regular file"):
        archive.read(tmp_path / "linked")


@pytest.mark.parametrize("committed", sorted((ROOT / "studies" / "reports").iterdir()), ids=lambda path: path.name)
def test_every_report_of_this_repository_is_made_again_from_its_measurements(
    committed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any image, and without the networks of others, which are not in the repository."""
    monkeypatch.setattr(planning.datasets, "load", _no_images)
    study = ROOT / "studies" / f"{committed.name}.toml"
    asked = ("study", "report", str(study), "--from", str(committed / archive.NAME), "--into", str(tmp_path))
    assert run(asked) == 0
    for file in ("report.md", "report.csv", "runs.csv", "claims.csv"):
        assert (tmp_path / file).read_bytes() == (committed / file).read_bytes(), file


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--data-dir", "here"), "leave --data-dir out"),
        (("--output", "here", "--dataset", "digits"), "leave --output and --dataset out"),
        (("--download",), "leave --download out"),
    ],
)
def test_options_that_say_nothing_beside_measurements_are_refused(
    written: Path, options: tuple[str, ...], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = ROOT / "studies" / "partial-at-digits.toml"
    into = tmp_path / "into"
    asked = ("study", "report", str(file), "--from", str(written / archive.NAME), "--into", str(into), *options)
    assert run(asked) == 2
    assert words in capsys.readouterr().err
    assert not into.exists()


def test_a_study_that_trains_needs_no_training_images(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = study()
    monkeypatch.setattr(planning.datasets, "load", _no_images)
    kept = archive.read(written / archive.NAME)
    again = plan(made.study, known=kept.known(made.study))
    assert again.names == made.names
    assert again.train_set is not None
    assert (len(again.train_set), again.train_set.size) == (40, 1297)
    for name, content in kept.notes.items():
        (tmp_path / name).write_bytes(content)
    for path in write_report(kept.measurements(again), tmp_path):
        assert path.read_bytes() == (written / path.name).read_bytes(), path.name


IMAGES = {"name": "digits", "split": "train", "n": 40, "size": 1297, "shape": [1, 8, 8], "classes": 10}


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"shape": [-1, 8, 8]}, "sides of at least 1"),
        ({"shape": [1, 0, 8]}, "sides of at least 1"),
        ({"shape": [2**40] * 3}, "sides of at least 1"),
        ({"n": 2**63, "size": 2**63}, "size"),
        ({"n": 2000}, "2000 images are more than the 1297"),
        ({"classes": 10**9}, "classes"),
        ({"sha256": "x"}, "sha256"),
        ([], "expected a table"),
    ],
)
def test_impossible_images_are_refused(written: Path, tmp_path: Path, about: Any, words: str) -> None:
    def change(files: dict[str, bytes]) -> None:
        table = about if isinstance(about, list) else IMAGES | {"sha256": "0" * 64} | about
        files["training-images.json"] = json.dumps(table).encode()

    with pytest.raises(ResultError, match=f"cannot be used: .*{words}"):
        archive.read(changed(written, tmp_path, change)).known(study().study)


@pytest.mark.parametrize(
    ("changes", "asked", "words"),
    [
        ({"dataset": "mnist"}, {}, "images of digits, but the study is asked for on mnist"),
        ({}, {"dataset": "mnist"}, "images of digits, but the study is asked for on mnist"),
        ({}, {"test_dataset": "other.npz"}, "images of digits, but the study is asked for on other.npz"),
        ({"limit": 100}, {}, "of 200 images of digits .test., but the study takes 100"),
        ({}, {"limit": 300}, "of 200 images of digits .test., but the study takes 300"),
        ({"train_limit": 30}, {}, "of 40 images of digits .train., but the study takes 30"),
    ],
)
def test_measurements_of_other_images_than_are_asked_for(
    written: Path, changes: dict[str, Any], asked: dict[str, Any], words: str
) -> None:
    other = study().study.model_copy(update=changes)
    with pytest.raises(InvalidInput, match=words):
        plan(other, known=archive.read(written / archive.NAME).known(other), **asked)


def test_a_name_of_images_writes_no_line_of_its_own_into_a_report(written: Path, tmp_path: Path) -> None:
    def change(files: dict[str, bytes]) -> None:
        table = parse_json(files["training-images.json"]) | {"split": "train\n\n# Verified"}
        files["training-images.json"] = json.dumps(table).encode()

    kept = archive.read(changed(written, tmp_path, change))
    made = plan(study().study, known=kept.known(study().study))
    write_report(kept.measurements(made), tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "\n# Verified" not in text
    assert "# Verified" in text


def _no_images(*args: object, **more: object) -> None:
    raise AssertionError("images were asked for")


def test_measurements_that_lack_a_checkpoint_of_the_study(tmp_path: Path) -> None:
    name = "layers-cifar10-published"
    text = (ROOT / "studies" / f"{name}.toml").read_text(encoding="utf-8").replace("suites/", f"{ROOT}/studies/suites/")
    study = tmp_path / "more.toml"
    study.write_text(text.replace("[[claim]]", '[[entry]]\ncheckpoint = "another"\n\n[[claim]]', 1), encoding="utf-8")
    more = read(study)
    known = archive.read(ROOT / "studies" / "reports" / name / archive.NAME).known(more)
    with pytest.raises(InvalidInput, match="hold no network 'another', which the study more names"):
        plan(more, known=known)
