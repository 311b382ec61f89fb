"""A stored result is verified without an attack, and whatever is changed in it or in what it was made of is found."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import harness
from harness import checkpoints, datasets, evaluation
from harness.evaluation import Verification
from harness.evaluation.verification import CHECKS
from harness.results import _verdict_file, adversarial, store
from harness.results._evidence import content_sha256
from harness.results.adversarial import AdversarialPoints
from harness.util.trust import sources_sha256
from tests.results.test_integrity import changed, places

pytestmark = pytest.mark.usefixtures("unaudited")

N, CHANGES = 60, 100
SHIPPED = Path(__file__).resolve().parents[2] / "checkpoints"


class Material:
    """A folder with a checkpoint, a data set, and a result of both."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.weights, self.manifest = root / "checkpoints" / "natural.pt", root / "checkpoints" / "natural.toml"
        self.data = root / "images.npz"
        (self.result,) = (root / "results").glob("*.json")
        self.verdicts, self.examples = self.result.with_suffix(".npz"), self.result.with_suffix(".safetensors")

    def verify(self) -> Verification:
        return harness.verify(self.result, checkpoint_dir=self.root / "checkpoints", dataset=str(self.data))

    def content(self) -> Any:
        return json.loads(self.result.read_text())

    def images(self) -> dict[str, np.ndarray[Any, Any]]:
        with np.load(self.data) as archive:
            return dict(archive)

    def hashed(self, content: Any) -> None:
        """Write a changed result with all hashes made anew, as a cheat would."""
        content["samples_sha256"] = hashlib.sha256(self.verdicts.read_bytes()).hexdigest()
        content["adversarial"]["sha256"] = hashlib.sha256(self.examples.read_bytes()).hexdigest()
        content["content_sha256"] = content_sha256(content)
        self.result.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    (root / "checkpoints").mkdir()
    for name in ("natural.pt", "natural.toml"):
        shutil.copy(SHIPPED / name, root / "checkpoints" / name)
    digits = datasets.load("digits", limit=N)
    np.savez(root / "images.npz", x=digits.x.numpy(), y=digits.y.numpy(), threat="Linf:0.12")
    plan = evaluation.plan_checkpoint(
        checkpoints.load("natural", checkpoint_dir=root / "checkpoints"),
        datasets.load(str(root / "images.npz")),
        threat="Linf:0.12",
        suite="pgd-20",
        checkpoint_dir=root / "checkpoints",
        workers=1,
    )
    stored = evaluation.obtain(plan, root / "results")
    broken = round(N * (stored.result.clean_acc - stored.result.robust_acc))
    assert N / 5 < broken < N - 5, "or the changes below would say little"
    return root


@pytest.fixture
def material(made: Path, tmp_path: Path) -> Material:
    shutil.copytree(made, tmp_path / "copy")
    return Material(tmp_path / "copy")


def failed(verification: Verification) -> dict[str, str]:
    return {check.name: check.text for check in verification.checks if not check.holds}


def test_a_result_holds(material: Material) -> None:
    verification = material.verify()
    assert failed(verification) == {}
    assert verification.holds
    assert [check.name for check in verification.checks] == list(CHECKS)


def of_result(material: Material, chance: random.Random) -> None:
    content = material.content()
    material.result.write_text(json.dumps(changed(content, chance.choice(list(places(content))), chance)))


def of_bytes(path: str) -> Callable[[Material, random.Random], None]:
    def flip(material: Material, chance: random.Random) -> None:
        file = getattr(material, path)
        content = bytearray(file.read_bytes())
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        file.write_bytes(content)

    return flip


def of_images(material: Material, chance: random.Random) -> None:
    arrays = material.images()
    flat = arrays["x"].reshape(-1)
    place = chance.randrange(len(flat))
    flat[place] = np.nextafter(flat[place], np.float32(0.51))
    np.savez(material.data, **arrays)  # type: ignore[arg-type]


def of_labels(material: Material, chance: random.Random) -> None:
    arrays = material.images()
    row = chance.randrange(N)
    arrays["y"][row] = (arrays["y"][row] + chance.randrange(1, 10)) % 10
    np.savez(material.data, **arrays)  # type: ignore[arg-type]


def of_manifest(material: Material, chance: random.Random) -> None:
    """Facts of which the result tells; a manifest also holds notes, which are nobody's evidence."""
    text = material.manifest.read_text()
    facts = tomllib.loads(text)
    training = {name: value for name, value in facts["training"].items() if type(value) is int}
    told = [f'"{facts[name]}"' for name in ("sha256", "weights_sha256", "architecture", "regime")]
    old = chance.choice([*told, *(f"{name} = {value}" for name, value in training.items())])
    assert old in text
    last = chance.choice("0123456789")
    new = f"{old[:-2]}{last}{old[-1]}" if old.endswith('"') else f"{old}{last}"
    material.manifest.write_text(text.replace(old, new if new != old else f"{old[:-2]}x{old[-1]}"))


KINDS = {
    "result": of_result,
    "verdicts": of_bytes("verdicts"),
    "examples": of_bytes("examples"),
    "weights": of_bytes("weights"),
    "images": of_images,
    "labels": of_labels,
    "manifest": of_manifest,
}


def test_a_change_of_any_file_is_found(made: Path, tmp_path: Path) -> None:
    chance = random.Random(0)
    shutil.copytree(made, tmp_path / "copy")
    material = Material(tmp_path / "copy")
    for number in range(CHANGES):
        kind = list(KINDS)[number % len(KINDS)]
        shutil.copytree(made, material.root, dirs_exist_ok=True)
        KINDS[kind](material, chance)
        assert not material.verify().holds, f"change {number}, of {kind}, was not found"


def with_verdicts(material: Material, **arrays: Callable[[np.ndarray[Any, Any]], object]) -> None:
    """Change verdicts and make all hashes anew."""
    n = material.content()["n"]
    verdicts = _verdict_file.unpacked(material.verdicts.read_bytes(), n)
    copies = {name: array.copy() for name, array in verdicts.arrays().items()}
    for name, change in arrays.items():
        change(copies[name])
    material.verdicts.write_bytes(_verdict_file.packed(type(verdicts)(**copies)))
    material.hashed(material.content())


def with_points(material: Material, change: Callable[[AdversarialPoints], AdversarialPoints]) -> None:
    """Change adversarial examples and make all hashes anew."""
    x = torch.from_numpy(material.images()["x"])
    points = change(adversarial.unpack(material.examples, x))
    material.examples.write_bytes(adversarial.pack(points, x))
    content = material.content()
    content["adversarial"]["samples"] = len(points.rows)
    material.hashed(content)


def moved(points: AdversarialPoints) -> AdversarialPoints:
    copy = points.points.clone()
    pixel = copy[3].flatten()
    place = int((pixel - 0.5).abs().argmin())
    pixel[place] += 0.25
    return AdversarialPoints(points.facts, points.rows, copy)


def beyond(points: AdversarialPoints) -> AdversarialPoints:
    return AdversarialPoints(points.facts, points.rows, points.points - 1e-4)


def undone(material: Material) -> None:
    """Clean images in the place of adversarial examples."""
    x = torch.from_numpy(material.images()["x"])
    with_points(material, lambda points: AdversarialPoints(points.facts, points.rows, x[points.rows]))


def of_another(points: AdversarialPoints) -> AdversarialPoints:
    return AdversarialPoints(points.facts.model_copy(update={"evaluation_id": "0" * 64}), points.rows, points.points)


def smaller(material: Material) -> None:
    content = material.content()
    content["threat"] |= {"eps": "0.09", "radius": 0.09}
    material.hashed(content)


def other_class(material: Material) -> None:
    """A sample that is wrong without attack, or right, as some other class."""

    def change(array: np.ndarray[Any, Any]) -> None:
        row = int(np.flatnonzero(adv != clean)[0])
        array[row] = next(k for k in range(10) if k not in (clean[row], adv[row]))

    verdicts = store.read_verdicts(material.result)
    adv, clean = verdicts.adv_pred, verdicts.clean_pred
    with_verdicts(material, adv_pred=change)


def one_more_broken(material: Material) -> None:
    """A verdict turned from robust to broken, with all figures and the points to go with it."""
    x = torch.from_numpy(material.images()["x"])
    verdicts = store.read_verdicts(material.result)
    row = int(np.flatnonzero(verdicts.robust)[0])
    content = material.content()
    robust = int(verdicts.robust.sum()) - 1
    content["robust_acc"] = robust / content["n"]
    content["steps"][-1]["after"] = robust
    material.result.write_text(json.dumps(content))

    def added(points: AdversarialPoints) -> AdversarialPoints:
        rows = np.sort(np.append(points.rows, row))
        place = int(np.searchsorted(rows, row))
        parts = [points.points[:place], x[row][None], points.points[place:]]
        return AdversarialPoints(points.facts, rows, torch.cat(parts))

    with_points(material, added)

    def set_to(value: int) -> Callable[[np.ndarray[Any, Any]], None]:
        return lambda array: array.__setitem__(row, value)

    wrong = (int(verdicts.y[row]) + 1) % 10
    with_verdicts(material, robust=set_to(0), broken_by=set_to(0), adv_pred=set_to(wrong))


CHEATS: dict[str, tuple[Callable[[Material], None], str]] = {
    "a pixel moved out of the ball": (lambda m: with_points(m, moved), "ball"),
    "all pixels darker": (lambda m: with_points(m, beyond), "ball"),
    "clean images as examples": (undone, "broken"),
    "examples of another evaluation": (lambda m: with_points(m, of_another), "examples"),
    "a smaller radius": (smaller, "ball"),
    "another class under attack": (other_class, "broken"),
    "a robust sample called broken": (one_more_broken, "broken"),
    "images called otherwise": (lambda m: with_verdicts(m, index=lambda index: index.__setitem__(0, N - 1)), "files"),
}


@pytest.mark.parametrize("name", CHEATS)
def test_whoever_makes_the_hashes_anew_is_found_by_the_examples(material: Material, name: str) -> None:
    cheat, check = CHEATS[name]
    cheat(material)
    found = failed(material.verify())
    assert check in found
    assert found[check] != "not checked"


@pytest.mark.parametrize("field", ["seed", "suite-step", "eps", "weights"])
def test_what_decides_the_verdicts_is_part_of_the_identity(material: Material, field: str) -> None:
    content = material.content()
    if field == "seed":
        content["seed"] = 1
    elif field == "suite-step":
        content["steps"][0]["parameters"]["steps"] = 1000
    elif field == "eps":
        content["threat"] |= {"eps": "0.2", "radius": 0.2}
    else:
        content["model"]["sha256"] = "0" * 64
    material.hashed(content)
    assert "identity" in failed(material.verify())


def test_a_result_without_examples_is_not_called_verified(material: Material) -> None:
    content = material.content()
    content["adversarial"] = None
    material.result.write_text(json.dumps(content | {"content_sha256": content_sha256(content)}))
    found = failed(material.verify())
    assert list(found) == ["examples", "ball", "broken"]
    assert "--no-adversarial" in found["examples"]


def test_what_is_missing_is_said(material: Material) -> None:
    material.data.unlink()
    assert "images.npz" in failed(material.verify())["model"]
    assert "unknown checkpoint" in failed(harness.verify(material.result, checkpoint="nothing"))["model"]
    material.result.unlink()
    verification = material.verify()
    assert "No such file" in failed(verification)["files"]
    assert not any(check.holds for check in verification.checks)


@pytest.mark.parametrize("name", ["", ".", "../a.safetensors", "a/b", "a\0", "a\n", "x" * 300])
def test_a_name_that_no_file_beside_it_has(material: Material, name: str) -> None:
    content = material.content()
    content["adversarial"]["file"] = name
    material.hashed(content)
    assert "names no file beside it" in failed(material.verify())["examples"]


@pytest.mark.parametrize("fact", [{"shape": [8192, 8192, 32]}, {"classes": 1000}])
def test_images_that_a_data_set_does_not_have_are_wrong_without_the_model(
    tmp_path: Path, fact: dict[str, object]
) -> None:
    digits = datasets.load("digits", limit=10)
    plan = evaluation.plan_checkpoint(checkpoints.load("natural"), digits, threat="Linf:0.12", suite="fgsm", workers=1)
    path = evaluation.obtain(plan, tmp_path).path
    content = json.loads(path.read_text())
    content["checkpoint"] = "nobody_has_it"
    for change, holds in (({}, None), (fact, False)):
        other = content | {"dataset": content["dataset"] | change}
        path.write_text(json.dumps(other | {"content_sha256": content_sha256(other)}))
        (data,) = [check for check in harness.verify(path).checks if check.name == "data"]
        assert data.holds is holds, data.text
    assert "digits has images of shape [1, 8, 8] and 10 classes, the result says" in data.text


@pytest.mark.parametrize("norm", ["Linf:0.12", "L2:1", "L1:5"])
def test_a_model_of_ones_own_in_every_norm(tmp_path: Path, norm: str) -> None:
    digits = datasets.load("digits", limit=20)
    network = checkpoints.load("natural").model
    done = evaluation.examine(network, digits.x, digits.y, threat=norm, suite="pgd-20", workers=1)
    path = evaluation.keep(done, digits.x, tmp_path)
    assert harness.verify(path, model=network, x=digits.x, y=digits.y).holds
    other = checkpoints.load("bn_ft").model
    assert "sha256" in failed(harness.verify(path, model=other, x=digits.x, y=digits.y))["model"]
    assert "sha256" in failed(harness.verify(path, model=network, x=1 - digits.x, y=digits.y))["data"]
    assert "size" in failed(harness.verify(path, model=network, x=digits.x[:5], y=digits.y[:5]))["data"]
    with pytest.raises(harness.HarnessError, match="give model, x and y"):
        harness.verify(path, model=network)


def test_double_precision_is_kept(tmp_path: Path) -> None:
    digits = datasets.load("digits", limit=10)
    network = checkpoints.load("natural").model.double()
    done = evaluation.examine(network, digits.x, digits.y, threat="Linf:0.12", suite="fgsm", workers=1)
    path = evaluation.keep(done, digits.x, tmp_path)
    verification = harness.verify(path, model=network, x=digits.x, y=digits.y)
    assert failed(verification) == {}


@pytest.mark.parametrize(("kind", "open_checks"), [("clean", []), ("batch", ["clean", "broken"])])
def test_other_bn_statistics(tmp_path: Path, kind: str, open_checks: list[str]) -> None:
    digits = datasets.load("digits", limit=20)
    estimated_on = datasets.load("digits", split="train") if kind == "clean" else None
    plan = evaluation.plan_checkpoint(
        checkpoints.load("natural"),
        digits,
        threat="Linf:0.12",
        suite="fgsm",
        bn_stats=kind,
        bn_data=estimated_on,
        workers=1,
    )
    stored = evaluation.obtain(plan, tmp_path)
    assert list(failed(harness.verify(stored.path))) == open_checks


def test_code_that_a_result_names_is_not_run(tmp_path: Path) -> None:
    """Of a stranger's norm, architecture or data set."""
    digits = datasets.load("digits", limit=10)
    network = checkpoints.load("natural").model
    done = evaluation.examine(network, digits.x, digits.y, threat="Linf:0.12", suite="fgsm", workers=1)
    path = evaluation.keep(done, digits.x, tmp_path)
    evil = tmp_path / "evil.py"
    evil.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    content = json.loads(path.read_text())
    norm = {"norm": f"{evil}:Norm", "source_sha256": sources_sha256(evil)}
    for change in ({"threat": norm}, {"dataset": {"name": f"{evil}:data"}}):
        other = content | {name: content[name] | value for name, value in change.items()}
        path.write_text(json.dumps(other | {"content_sha256": content_sha256(other)}))
        assert not harness.verify(path, checkpoint="natural").holds
    assert not (tmp_path / "ran").exists()
