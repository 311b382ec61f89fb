"""The wheel works alone: without the clone, with the shipped checkpoints inside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.house._tree import ROOT

ENDINGS = {".pt", ".safetensors", ".toml"}
# what `make demo` leaves there is nobody's to ship
SHIPPED = sorted(
    path.name
    for path in (ROOT / "checkpoints").iterdir()
    if path.suffix in ENDINGS and not path.name.startswith("bn_ft_demo")
)

pytestmark = pytest.mark.slow


def python(*arguments: str, folder: Path, path: Path | None = None) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "HARNESS_HOME"}}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    python("-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT), folder=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def unpacked(wheel: Path) -> Path:
    folder = wheel.parent / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_shipped_checkpoints_travel_inside(unpacked: Path) -> None:
    inside = unpacked / "harness" / "_shipped" / "checkpoints"
    assert SHIPPED
    assert sorted(path.name for path in inside.iterdir() if path.suffix in ENDINGS) == SHIPPED
    for name in SHIPPED:
        assert (inside / name).read_bytes() == (ROOT / "checkpoints" / name).read_bytes()


def test_nothing_else_travels(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert {name.split("/")[0].split("-")[0] for name in names} == {"harness", "robust_harness"}
        assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]
        assert {"harness/py.typed", "harness/cli/__init__.py"} <= set(names)
        assert [name for name in names if name.endswith("licenses/LICENSE")]


@pytest.mark.parametrize("ending", ["py", "css", "js"])
def test_every_module_travels(unpacked: Path, ending: str) -> None:
    there = {str(path.relative_to(unpacked)) for path in (unpacked / "harness").rglob(f"*.{ending}")}
    assert there
    assert there == {str(path.relative_to(ROOT)) for path in (ROOT / "harness").rglob(f"*.{ending}")}


def test_it_finds_its_checkpoints_in_an_empty_folder(unpacked: Path, tmp_path: Path) -> None:
    where = python("-c", "import harness; print(harness.__file__)", folder=tmp_path, path=unpacked)
    assert Path(where.strip()).is_relative_to(unpacked)
    listed = json.loads(python("-m", "harness", "list", "checkpoints", "--json", folder=tmp_path, path=unpacked))
    expected = [name.removesuffix(".toml") for name in SHIPPED if name.endswith(".toml")]
    assert sorted(row["name"] for row in listed) == sorted(expected)
    assert list(tmp_path.iterdir()) == []
