"""Code runs where the user named it, and nowhere because a manifest does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from harness import checkpoints
from harness.checkpoints import Parent
from harness.cli import run
from harness.errors import CheckpointError, HarnessError, InvalidInput
from harness.util import trust
from tests.registry.material import registered, small

FACTORY = (
    "from torch import nn\ndef net(classes):\n    return nn.Sequential(nn.Flatten(), nn.Linear({width}, classes))\n"
)
IMPORT = ["--dataset", "digits", "--normalization", "none", "--name", "mine"]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder and an empty memory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(trust, "_in_this_process", {})
    return tmp_path


def forget(monkeypatch: pytest.MonkeyPatch, home: Path | None = None) -> None:
    """As in another process, and, with ``home``, on another user's machine."""
    monkeypatch.setattr(trust, "_in_this_process", {})
    if home is not None:
        monkeypatch.setenv("HARNESS_HOME", str(home))


def imported(code: str = FACTORY.format(width=64), name: str = "net.py") -> Path:
    Path(name).write_text(code)
    torch.save(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).state_dict(), "w.pt")
    assert run(["import", "w.pt", "--architecture", f"{name}:net", *IMPORT]) == 0
    return Path("home/checkpoints/mine.pt")


def strangers(folder: Path, name: str = "strange") -> Path:
    """A checkpoint whose manifest names code that leaves a file behind."""
    path = registered(folder, name)
    (folder / "evil.py").write_text(f"open({str(folder / 'sprung')!r}, 'w')\n")
    beside = checkpoints.manifest_path(path)
    text = beside.read_text().replace('architecture = "digits-resnet"', 'architecture = "evil.py:make"')
    beside.write_text(text)
    return path


def test_code_that_the_user_named_runs_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = imported()
    forget(monkeypatch)
    Path("net.py").unlink()
    manifest = checkpoints.load(path).manifest
    assert manifest.code_sha256 is not None
    assert manifest.architecture == f"code/{manifest.code_sha256[:16]}/net.py:net"
    assert (path.parent / "code" / manifest.code_sha256[:16] / "net.py").is_file()


def test_a_checkpoint_moves_with_its_code(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imported()
    (place / "home" / "checkpoints").rename(place / "moved")
    forget(monkeypatch)
    assert checkpoints.load(place / "moved" / "mine.pt").model(torch.rand(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize(
    "command",
    [
        ["inspect"],
        ["evaluate", "--suite", "clean", "--workers", "1", "--checkpoint"],
        ["cka", "natural"],
        ["train", "--regime", "bn-ft", "--dataset", "digits", "--parent"],
    ],
    ids=lambda command: command[0],
)
def test_code_that_a_manifest_names_does_not_run(
    command: list[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = strangers(place / "theirs")
    assert run([*command, str(path)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "evil.py" in said
    assert "sha256" in said
    assert "--trust-code" in said
    assert not (place / "theirs" / "sprung").exists()


def test_nor_that_of_a_parent(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = place / "theirs"
    mother = strangers(folder, "mother")
    weights = checkpoints.read_manifest(checkpoints.manifest_path(mother)).weights_sha256
    registered(folder, "child", parent=Parent(name="mother", weights_sha256=weights), regime="bn-ft")
    assert run(["inspect", str(folder / "child.pt")]) == 0
    assert "was not found" in capsys.readouterr().out
    assert run(["inspect", str(folder / "child.pt"), "--parent", str(mother)]) == 1
    assert not (folder / "sprung").exists()


@pytest.mark.parametrize("field", ["norm_layer", "dataset", "regime", "threat"])
def test_nor_that_of_any_other_field(field: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = place / "theirs"
    path = registered(folder, "strange", regime="natural")
    (folder / "evil.py").write_text(f"open({str(folder / 'sprung')!r}, 'w')\n")
    beside = checkpoints.manifest_path(path)
    lines = [line for line in beside.read_text().splitlines() if not line.startswith(f"{field} =")]
    value = f"{folder / 'evil.py'}:make" + (":0.5" if field == "threat" else "")
    beside.write_text("\n".join([f"{field} = {json.dumps(value)}", *lines]))
    assert run(["evaluate", "--checkpoint", str(path), "--suite", "clean", "--workers", "1"]) == 1
    assert "--trust-code" in capsys.readouterr().err
    assert not (folder / "sprung").exists()


def test_what_is_allowed_once_is_remembered_by_its_hash(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = imported()
    forget(monkeypatch, place / "other")
    assert run(["inspect", str(path)]) == 1
    assert run(["inspect", str(path), "--trust-code"]) == 0
    forget(monkeypatch)
    assert run(["inspect", str(path)]) == 0


def test_a_store_from_elsewhere_says_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = imported()
    stored = trust.store().read_text()
    assert str(place / "net.py") in stored
    forget(monkeypatch)
    monkeypatch.setattr(trust, "_entry", lambda sha256: f"another machine's {sha256}")
    with pytest.raises(CheckpointError, match="--trust-code"):
        checkpoints.load(path)


def test_the_current_folder_is_never_asked_what_to_trust(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_HOME")
    assert place not in trust.store().parents
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert place not in trust.store().parents


def test_without_a_place_to_remember_it_code_that_was_named_still_runs(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "file").write_text("")
    monkeypatch.setattr(trust, "store", lambda: place / "file" / "store")
    assert checkpoints.load(imported()).manifest.name == "mine"


def test_code_that_changed_is_said(place: Path) -> None:
    path = imported()
    copy = next(path.parent.glob("code/*/net.py"))
    copy.write_text(copy.read_text() + "# changed\n")
    with pytest.raises(CheckpointError, match="has changed since it was registered"):
        checkpoints.load(path)
    copy.unlink()
    with pytest.raises(CheckpointError, match="there is no file"):
        checkpoints.load(path)


def test_a_change_of_the_file_that_was_named_is_said(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    imported()
    Path("net.py").write_text(FACTORY.format(width=32))
    assert run(["inspect", "mine"]) == 0
    said = capsys.readouterr()
    assert f"warning: {place / 'net.py'} has changed since mine was registered" in said.err


def test_modules_beside_the_file_belong_to_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "parts").mkdir()
    (place / "parts" / "__init__.py").write_text("")
    (place / "parts" / "head.py").write_text("from . import size\nfrom torch import nn\nWIDTH = size.WIDTH\n")
    (place / "parts" / "size.py").write_text("WIDTH = 64\n")
    (place / "unused.py").write_text("")
    path = imported(
        "from torch import nn\n"
        "def net(classes):\n"
        "    from parts.head import WIDTH\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(WIDTH, classes))\n"
    )
    copies = next(path.parent.glob("code/*"))
    assert {str(file.relative_to(copies)) for file in copies.rglob("*.py")} == {
        "net.py", "parts/__init__.py", "parts/head.py", "parts/size.py",
    }  # fmt: skip
    before = trust.sources_sha256("net.py")
    (place / "parts" / "size.py").write_text("WIDTH = 64  # changed\n")
    assert trust.sources_sha256("net.py") != before


def test_each_network_has_the_modules_beside_its_own_file(place: Path) -> None:
    code = "from torch import nn\nfrom utils import WIDTH\ndef net(classes):\n    from utils import BIAS\n"
    code += "    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes, bias=BIAS), nn.ReLU(WIDTH))\n"
    for name, bias in (("a", True), ("b", False)):
        (place / name).mkdir()
        (place / name / "utils.py").write_text(f"WIDTH = False\nBIAS = {bias}\n")
        (place / name / "net.py").write_text(code)
        torch.save({"1.weight": torch.zeros(10, 64), **({"1.bias": torch.zeros(10)} if bias else {})}, "w.pt")
        assert run(["import", "w.pt", "--architecture", f"{name}/net.py:net", *IMPORT[:-1], name]) == 0
    for name, parameters in (("a", 650), ("b", 640), ("a", 650)):
        assert checkpoints.load(name).manifest.parameters == parameters


def test_code_outside_of_the_folder_is_not_taken(place: Path) -> None:
    path = imported()
    beside = checkpoints.manifest_path(path)
    name = checkpoints.read_manifest(beside).architecture
    for other in ("../../net.py:net", f"{place}/net.py:net"):
        beside.write_text(beside.read_text().replace(json.dumps(name), json.dumps(other)))
        with pytest.raises(CheckpointError, match="outside of its folder"):
            checkpoints.load(path)
        name = other


def test_sources_that_are_too_large_or_no_files(place: Path) -> None:
    (place / "large.py").write_text("#" * (2 << 20))
    for name in ("large.py", "nothing.py", "."):
        with pytest.raises(InvalidInput):
            trust.local_sources(name)
    with pytest.raises(HarnessError, match="nobody has named"):
        trust.check_trusted("0" * 64, "evil\x1b[2J.py", "something")


def test_two_checkpoints_of_equal_code_share_its_copy(place: Path) -> None:
    imported()
    torch.save(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).state_dict(), "w.pt")
    assert run(["import", "w.pt", "--architecture", "net.py:net", *IMPORT[:-1], "other"]) == 0
    assert len(list(Path("home/checkpoints/code").iterdir())) == 1
    assert small().architecture == "digits-resnet"
