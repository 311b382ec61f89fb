"""A published checkpoint comes back from the Hub as what it was; the network is a folder here."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import harness
from harness import checkpoints
from harness.audit.kinds import RANDOMISED
from harness.errors import CheckpointError, HarnessError, InvalidInput, ResultError, StorageError
from harness.evaluation import Check
from harness.publishing import Evidence, repository
from harness.publishing.repository import publish, push
from harness.publishing.repository._card import card
from harness.util import hub as hub_module
from tests.house._tree import ROOT

huggingface_hub = pytest.importorskip("huggingface_hub", minversion="1.4")
yaml = pytest.importorskip("yaml")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "poe-lab/at-full"


class Hub:
    """What of huggingface_hub is used, on a folder; the rest is the real package."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[str, str | None]] = []
        self.pushed: list[Any] = []
        self.fetched = 0
        self.fails: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(huggingface_hub, name)

    def HfApi(self) -> Hub:
        return self

    def model_info(self, repo: str, *, revision: str | None = None) -> SimpleNamespace:
        self._fail()
        self.asked.append((repo, revision))
        files = sorted(path.relative_to(self.folder) for path in self.folder.rglob("*") if path.is_file())
        siblings = [SimpleNamespace(rfilename=file.as_posix()) for file in files]
        return SimpleNamespace(sha=COMMIT, siblings=siblings)

    def hf_hub_download(self, *, repo_id: str, filename: str, revision: str, local_dir: Path) -> str:
        self._fail()
        assert (repo_id, revision) == (REPO, COMMIT), "everything is fetched from the commit"
        self.fetched += 1
        path = Path(local_dir) / filename
        path.parent.mkdir(parents=True, exist_ok=True)
        return str(shutil.copy(self.folder / filename, path))

    def create_repo(self, repo: str, *, exist_ok: bool) -> None:
        self._fail()
        self.pushed.append((repo, exist_ok))

    def upload_folder(self, **given: Any) -> str:
        self.pushed.append(given)
        return f"https://huggingface.co/{REPO}/commit/{COMMIT}"

    def _fail(self) -> None:
        if self.fails is not None:
            raise self.fails


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A Hub with one repository, whose files lie in ``hub.folder``."""
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    fake = Hub(tmp_path / "repository")
    monkeypatch.setattr(hub_module, "import_module", lambda name: fake)
    return fake


def test_the_folder_and_the_way_back(evidence: Evidence, hub: Hub) -> None:
    written = publish(evidence, hub.folder, repo=REPO, license_name="mit", hub_dataset="poe-lab/digits")
    name, result = "at_full", evidence.path
    names = {f"results/{result.stem}{ending}" for ending in (".json", ".npz", ".safetensors")}
    assert set(written.files) == {
        ".eval_results/robust-harness.yaml", "README.md", f"{name}.safetensors", f"{name}.toml", *names
    }  # fmt: skip
    card = huggingface_hub.ModelCard.load(hub.folder / "README.md")
    assert card.data.license == "mit"
    assert [found.metric_value for found in card.data.eval_results] == [99.2, 81.2]
    text = (hub.folder / ".eval_results" / "robust-harness.yaml").read_text()
    entries = huggingface_hub.parse_eval_result_entries(yaml.safe_load(text))
    assert [(entry.dataset_id, entry.task_id, entry.value) for entry in entries] == [
        ("poe-lab/digits", "clean-accuracy", 99.2),
        ("poe-lab/digits", "robust-accuracy-autoattack-linf-0-15", 81.2),
    ]
    assert entries[0].source_url == f"https://huggingface.co/{REPO}"

    point = checkpoints.load(f"hf:{REPO}@main")
    assert hub.asked == [(REPO, "main")]
    fetched = hub.fetched
    assert checkpoints.find(f"hf:{REPO}") == point.path
    assert hub.fetched == fetched, "a commit is fetched once"
    assert point.manifest.source == f"hf:{REPO}@{COMMIT}"
    assert point.manifest.weights_sha256 == evidence.checkpoint.manifest.weights_sha256
    same = ("name", "regime", "training", "threat", "dataset", "normalization")
    assert all(getattr(point.manifest, field) == getattr(evidence.checkpoint.manifest, field) for field in same)
    hub.fails = ConnectionError("no route")
    assert checkpoints.load(f"hf:{REPO}@{COMMIT}").path == point.path, "a commit that is here needs no network"
    verification = harness.verify(hub.folder / "results" / result.name, checkpoint=f"hf:{REPO}@{COMMIT}")
    assert [check for check in verification.checks if not check.holds] == []


def test_what_nobody_could_load_is_not_published(evidence: Evidence, hub: Hub) -> None:
    taken = replace(evidence, checkpoint=replace(evidence.checkpoint, path=Path("net.pt2")))
    with pytest.raises(InvalidInput, match=r"net\.pt2 is no registered checkpoint"):
        publish(taken, hub.folder)


def test_flags_are_told(evidence: Evidence, hub: Hub) -> None:
    flagged = replace(evidence, result=evidence.result.model_copy(update={"flags": [RANDOMISED()]}))
    assert publish(flagged, hub.folder).dataset is None
    assert "`randomised`" in (hub.folder / "README.md").read_text()
    assert not (hub.folder / ".eval_results").exists()
    with pytest.raises(InvalidInput, match="not empty"):
        publish(flagged, hub.folder)


def test_flags_of_today_are_told(evidence: Evidence, hub: Hub) -> None:
    """Those of the model and the images now, and of steps that are not those of the suite."""
    others = evidence.result.steps[1:]
    result = evidence.result.model_copy(update={"steps": others})
    target = replace(evidence.target, check=lambda: (RANDOMISED(),))
    publish(replace(evidence, result=result, target=target), hub.folder)
    text = (hub.folder / "README.md").read_text()
    assert "- `randomised`:" in text
    assert "- `steps-differ`: what is called autoattack is not that suite: 3 steps ran" in text
    assert "No flag" not in text


def test_what_the_verification_found_is_told(evidence: Evidence, hub: Hub, tmp_path: Path) -> None:
    publish(evidence, tmp_path / "whole")
    whole = (tmp_path / "whole" / "README.md").read_text()
    assert "No flag was raised against the figures.\n" in whole
    assert "All 8 checks of `harness verify` held" in whole
    checks = tuple(
        check._replace(holds=None, text="not checked") if check.name in {"examples", "ball", "broken"} else check
        for check in evidence.verification.checks
    )
    unverified = replace(evidence, verification=replace(evidence.verification, checks=checks))
    publish(unverified, hub.folder)
    text = (hub.folder / "README.md").read_text()
    assert "No flag was raised against the figures, but not all of them could be checked." in text
    assert "**3 of the 8 checks of `harness verify` could not be made**" in text
    assert "| `ball` | they lie within the radius and in [0, 1] | could not be checked | not checked |" in text
    assert "| `clean` | every sample is classified without attack as it says | holds |" in text


def test_commands_of_the_card_name_what_is_in_the_folder(
    evidence: Evidence, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights are safetensors there, whatever they were registered as."""
    assert evidence.checkpoint.manifest.file == "at_full.pt"
    publish(evidence, hub.folder)
    text = (hub.folder / "README.md").read_text()
    named = re.findall(r"--checkpoint (\S+)", text)
    assert named == ["at_full.safetensors"] * 2
    monkeypatch.chdir(hub.folder)
    assert checkpoints.load(named[0]).manifest.name == "at_full"
    publish(evidence, tmp_path / "other", repo=REPO)
    assert f"harness evaluate --checkpoint hf:{REPO}\n" in (tmp_path / "other" / "README.md").read_text()


def test_names_in_a_result_are_only_text(evidence: Evidence, hub: Hub, tmp_path: Path) -> None:
    bad = "<img src=x>[x](y)|\n```\n# x\x1b[31m"
    fields = evidence.result
    result = fields.model_copy(
        update={
            "suite": bad,
            "harness_version": bad,
            "dataset": fields.dataset.model_copy(update={"name": bad, "split": bad}),
            "threat": fields.threat.model_copy(update={"norm": bad, "eps": bad}),
            "model": fields.model.model_copy(update={"sha256": f"`{bad}"}),
        }
    )
    manifest = evidence.checkpoint.manifest.model_copy(update={"regime": f"`{bad}", "architecture": f"`{bad}"})
    path = tmp_path / "a $(touch x); <b>\n```.json"
    path.write_bytes(evidence.path.read_bytes())
    for file in (fields.samples, fields.adversarial and fields.adversarial.file):
        shutil.copy(evidence.path.with_name(str(file)), tmp_path)
    point = replace(evidence.checkpoint, manifest=manifest)
    text = card(
        replace(evidence, result=result, checkpoint=point, path=path), license_name=None, dataset=None, weights="w"
    )
    body = text.split("\n---\n", 1)[1]
    assert "\x1b" not in text
    assert "harness verify 'results/a $(touch x); <b>\\n```.json' --checkpoint w\n" in body
    assert len(re.findall("^```", body, re.MULTILINE)) == 2
    assert re.findall("^#+ .*", body, re.MULTILINE) == ["# at_full", "## Verification", "## Use and check"]
    outside = re.sub("`[^`]*`", "", body.split("## Use and check")[0])
    assert "<img" not in outside
    assert "[x](y)" not in outside
    rows = [line for line in body.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {4, 5}
    huggingface_hub.ModelCard(text)


def test_a_failed_try_leaves_nothing_behind(
    evidence: Evidence, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(repository, "_checkpoint", lambda point: {"w.safetensors": b""}.items())
    with pytest.raises(StorageError, match="No space"):
        publish(evidence, tmp_path / "new" / "repository")
    assert not (tmp_path / "new").exists()


def test_what_is_wrong_is_not_published(evidence: Evidence, hub: Hub) -> None:
    verification = replace(evidence.verification, checks=(Check("clean", False, "3 of 500 are classified otherwise"),))
    with pytest.raises(ResultError, match="3 of 500"):
        publish(replace(evidence, verification=verification), hub.folder)
    assert not hub.folder.exists()


def test_push(evidence: Evidence, hub: Hub) -> None:
    written = publish(evidence, hub.folder, repo=REPO)
    assert push(written, REPO).endswith(COMMIT)
    assert hub.pushed[0] == (REPO, True)
    assert hub.pushed[1]["folder_path"] == hub.folder
    hub.fails = ConnectionError("no route to host")
    with pytest.raises(HarnessError, match=f"no route to host; the folder .* is complete.*hf upload {REPO}"):
        push(written, REPO)


def test_no_network_and_no_package(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.fails = ConnectionError("no route\nto host")
    with pytest.raises(
        HarnessError, match="cannot read hf:poe-lab/at-full from the Hugging Face Hub: no route to host"
    ):
        checkpoints.load(f"hf:{REPO}")

    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(hub_module, "import_module", missing)
    with pytest.raises(HarnessError, match=r"pip install 'robust-harness\[hub\]'"):
        checkpoints.load(f"hf:{REPO}")


@pytest.mark.parametrize("name", ["hf:", "hf:alone", "hf:../x/y", "hf:a/b@", "hf:a/..", "hf:a/b/c"])
def test_what_is_no_repository(name: str, hub: Hub) -> None:
    with pytest.raises(CheckpointError, match="hf:ORG/REPO"):
        checkpoints.load(name)
    assert hub.asked == []


def test_pickles_are_not_fetched(hub: Hub, tmp_path: Path) -> None:
    hub.folder.mkdir()
    for file in (ROOT / "checkpoints" / "natural.pt", ROOT / "checkpoints" / "natural.toml"):
        shutil.copy(file, hub.folder)
    with pytest.raises(CheckpointError, match="holds no checkpoint of this package"):
        checkpoints.load(f"hf:{REPO}")
    with pytest.raises(CheckpointError, match=r"only natural\.pt, which may carry code"):
        checkpoints.import_file(f"hf:{REPO}", name="x", directory=tmp_path / "out")
    (hub.folder / "natural.safetensors").touch()
    with pytest.raises(CheckpointError, match="only safetensors are read"):
        checkpoints.load(f"hf:{REPO}")


def test_weights_without_a_manifest_are_imported(evidence: Evidence, hub: Hub, tmp_path: Path) -> None:
    publish(evidence, hub.folder)
    (hub.folder / "at_full.toml").unlink()
    path = checkpoints.import_file(f"hf:{REPO}", name="mine", directory=tmp_path / "out")
    point = checkpoints.load(path)
    assert point.manifest.source == f"hf:{REPO}@{COMMIT}"
    assert point.manifest.weights_sha256 == evidence.checkpoint.manifest.weights_sha256
