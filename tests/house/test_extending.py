"""The examples of docs/extending.md work as they stand: each is one file, and nothing else is touched."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from harness import attacks, datasets, models, regimes, suites
from harness.models import norm_layers
from harness.results import leaderboard
from harness.threat import ThreatModel
from harness.threat.rng import Draws, sample_keys
from tests.house._tree import ROOT
from tests.results.records import make_result
from tests.support import batch_of, drive, linear_model

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"```(?:python|toml)\n# (\S+)\n(.*?)```", PAGE, flags=re.DOTALL))


@pytest.fixture(scope="module", autouse=True)
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The examples as files, the families' folders made longer by those in the temporary one."""
    root = tmp_path_factory.mktemp("extending")
    known = set(sys.modules)
    families = []
    for name, text in EXAMPLES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if name.startswith("harness/"):
            families.append((importlib.import_module(".".join(Path(name).parent.parts)), str(path.parent)))
    for family, folder in families:
        family.__path__.append(folder)
    yield root
    for family, folder in families:
        family.__path__.remove(folder)
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(root)):
            family, _, member = name.rpartition(".")
            del sys.modules[name]
            if family:
                vars(sys.modules[family]).pop(member, None)


def test_there_is_an_example_for_every_family() -> None:
    assert set(EXAMPLES) == {
        "harness/attacks/random_points.py",
        "harness/datasets/gratings.py",
        "harness/models/plain3.py",
        "harness/models/norm_layers/rms.py",
        "harness/regimes/last_block_ft.py",
        "harness/results/formats/json_lines.py",
        "my_network.py",
        "random_then_pgd.toml",
    }


def test_regime() -> None:
    assert "last-block-ft" in regimes.names()
    regime = regimes.get("last-block-ft")
    assert regime.trained == ("groups:-2:",)
    from harness.models._selectors import select

    model = models.build("digits-resnet", classes=10, shape=(1, 8, 8), seed=0)
    trained = select(model, regime.trained)
    last, head = list(models.layer_groups(model).values())[-2:]
    assert trained
    assert all(name.startswith((*last, *head)) for name in trained)


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_attack(norm: str) -> None:
    assert "random-points" in attacks.names()
    model = linear_model(10, (1, 4, 4))
    x = torch.rand(20, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = model(x).argmax(1)
    threat = ThreatModel(norm, "0.5" if norm == "Linf" else "2")
    attack = attacks.build("random-points", threat, 10, tries=20)
    claimed, points = drive(attack, model, batch_of(model, x, y))
    assert claimed.any()
    assert (model(points).argmax(1) != y).equal(claimed)
    assert (threat.distance(points, x) <= threat.radius + threat.tolerance).all()
    # the randomness is the samples' own: in other company the same points are tried
    alone, _ = drive(attack, model, batch_of(model, x[5:9], y[5:9]))
    assert alone.equal(claimed[5:9])
    draws = Draws(sample_keys(x), 0, "test")
    first = threat.geometry.inside(x, threat.radius, draws, 0)
    assert not first.equal(threat.geometry.inside(x, threat.radius, draws, 2))


def test_suite(files: Path) -> None:
    suite = suites.get(str(files / "random_then_pgd.toml"), ThreatModel("Linf", "0.1"))
    assert [(step.attack, step.parameters) for step in suite.steps] == [
        ("random-points", {"tries": 100}),
        ("pgd", {"steps": 20, "restarts": 1}),
    ]


def test_dataset() -> None:
    assert "gratings" in datasets.names()
    test, train = datasets.load("gratings"), datasets.load("gratings", split="train", limit=50)
    assert (len(test), test.size, len(train), train.size) == (200, 200, 50, 800)
    assert test.shape == (1, 16, 16)
    assert str(test.threats[0]) == "Linf:0.1"
    # the two orientations differ in where neighbouring pixels are alike
    across = (test.x[:, :, :, 1:] - test.x[:, :, :, :-1]).abs().mean(dim=(1, 2, 3))
    along = (test.x[:, :, 1:] - test.x[:, :, :-1]).abs().mean(dim=(1, 2, 3))
    assert ((across < along).long() == test.y).float().mean() > 0.95


@pytest.mark.parametrize("norm_layer", ["batch", "rms"])
def test_architecture_and_norm_layer(norm_layer: str) -> None:
    assert "plain3" in models.names()
    assert "rms" in norm_layers.names()
    model = models.build("plain3", classes=2, shape=(1, 16, 16), norm_layer=norm_layer, seed=0).eval()
    x, y = datasets.load("gratings", split="train", limit=100).x, torch.arange(100) % 2
    assert model(x).shape == (100, 2)
    assert list(models.layer_groups(model)) == ["stem", "block1", "block2", "head"]
    # a member that is used in earnest learns
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(40):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (model(x).argmax(1) == y).float().mean() > 0.9


def test_format(tmp_path: Path) -> None:
    results = [make_result("a", suite="pgd"), make_result("b", suite="my-suite", regime=None)]
    (board,) = leaderboard.boards(results)
    written = {path.name: path for path in leaderboard.write(board, tmp_path)}
    assert f"{board.name}.jsonl" in written
    lines = written[f"{board.name}.jsonl"].read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [board.cells(row) for row in board.rows]


def test_architecture_in_a_file_of_ones_own(files: Path) -> None:
    model = models.build(f"{files / 'my_network.py'}:small", classes=10, shape=(1, 8, 8), seed=0)
    assert model(torch.rand(3, 1, 8, 8)).shape == (3, 10)
