"""The examples of docs/extending.md work as they stand, from outside the package, which nothing is added to."""

from __future__ import annotations

import ast
import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import harness
from harness import attacks, datasets, models, regimes, suites
from harness.audit import checks
from harness.cli import run
from harness.contracts import check_attack, check_norm
from harness.models import norm_layers
from harness.models.sources import forms
from harness.results import formats, leaderboard, store
from harness.threat import ThreatModel
from harness.util import plugins
from harness.util.trust import trusting
from tests.house._tree import ROOT
from tests.results.records import make_result, make_verdicts
from tests.support import linear_model

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"```(?:python|toml)\n# (\S+)\n(.*?)```", PAGE, flags=re.DOTALL))

# family -> the example's file and member, and the name that an entry point gives it
MEMBERS = {
    "harness.attacks": ("random_points", "random_points", "random-points"),
    "harness.suites": ("quick", "quick", "quick"),
    "harness.threat.norms": ("edges_first", "edges_first", "edges-first"),
    "harness.datasets": ("gratings", "gratings", "gratings"),
    "harness.regimes": ("last_block_ft", "last_block_ft", "last-block-ft"),
    "harness.models": ("plain3", "plain3", "plain3"),
    "harness.models.norm_layers": ("rms", "rms", "rms"),
    "harness.models.sources": ("tiny_source", "tiny", "tiny"),
    "harness.results.formats": ("json_lines", "json_lines", "json-lines"),
    "harness.audit.checks": ("large_logits", "large_logits", "large-logits"),
}
OTHERS = {"my_network.py", "random_then_pgd.toml", "test_random_points.py"}
X = torch.rand(12, 1, 6, 6, generator=torch.Generator().manual_seed(0))

Named = Callable[[str], str]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The examples as files in the current folder."""
    for name, text in EXAMPLES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HARNESS_HOME", raising=False)
    return tmp_path


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The examples as an installed package with entry points."""
    root = tmp_path / "site"
    package, about = root / "example_plugins", root / "example_plugins-1.2.dist-info"
    package.mkdir(parents=True)
    about.mkdir()
    (package / "__init__.py").touch()
    groups = []
    for family, (file, member, name) in MEMBERS.items():
        (package / f"{file}.py").write_text(EXAMPLES[f"{file}.py"])
        groups.append(f"[harness.{family.rpartition('.')[2]}]\n{name} = example_plugins.{file}:{member}\n")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: example-plugins\nVersion: 1.2\n")
    (about / "entry_points.txt").write_text("\n".join(groups))
    monkeypatch.syspath_prepend(root)
    return root


@pytest.fixture(params=["file", "installed"])
def named(request: pytest.FixtureRequest) -> Named:
    """What a family's example is called on the command line, by each way to add it."""
    request.getfixturevalue("files")
    if request.param == "file":
        return lambda family: "{}.py:{}".format(*MEMBERS[family])
    request.getfixturevalue("installed")
    return lambda family: MEMBERS[family][2]


def linear() -> tuple[nn.Module, Tensor]:
    """A linear classifier of `X` and its classes."""
    model = linear_model(4, (1, 6, 6), dtype=torch.float32)
    return model, model(X).argmax(1)


def evaluated(**settings: Any) -> harness.Result:
    model, y = linear()
    return harness.evaluate(model, X, y, **{"threat": "Linf:0.05", "workers": 1} | settings)


class TestPage:
    def test_there_is_an_example_for_every_family(self) -> None:
        assert set(EXAMPLES) == {f"{file}.py" for file, _, _ in MEMBERS.values()} | OTHERS

    def test_every_family_is_in_the_table(self) -> None:
        for family in MEMBERS:
            parts = family.split(".")
            assert f"| `{'/'.join(parts[1:])}` | `harness.{parts[-1]}` |" in PAGE

    @pytest.mark.parametrize("name", [name for name in EXAMPLES if name.endswith(".py")])
    def test_only_public_names_are_imported(self, name: str) -> None:
        for node in ast.walk(ast.parse(EXAMPLES[name])):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("harness"):
                assert not any(part.startswith("_") for part in (node.module or "").split("."))
                offered = importlib.import_module(node.module or "").__all__
                assert [alias.name for alias in node.names if alias.name not in offered] == []

    def test_the_contracts_of_the_example(self, files: Path) -> None:
        scope: dict[str, Any] = {}
        assert files
        exec(EXAMPLES["test_random_points.py"], scope)
        scope["test_contracts"]()


def test_attack(named: Named, files: Path) -> None:
    attack = named("harness.attacks")
    (files / "mine.toml").write_text(f'[[step]]\nattack = "{attack}"\ntries = 30\n')
    with trusting():
        result = evaluated(suite="mine.toml", threat="Linf:0.3")
    (step,) = result.steps
    assert step.name == "random-points"
    assert 0 < step.after < step.before
    assert step.backward == 0
    check_attack(attack, "Linf:0.03", tries=10)


def test_attack_in_several_processes(files: Path) -> None:
    (files / "mine.toml").write_text('[[step]]\nattack = "random_points.py:random_points"\ntries = 30\n')
    with trusting():
        one, two = (evaluated(suite="mine.toml", threat="Linf:0.3", workers=workers) for workers in (1, 2))
    assert one.robust_acc == two.robust_acc < 1


def test_suite(named: Named) -> None:
    suite = named("harness.suites")
    assert [step.parameters["restarts"] for step in suites.get(suite, ThreatModel("L1", "5")).steps] == [3]
    result = evaluated(suite=suite)
    assert (result.suite, [step.name for step in result.steps]) == ("quick", ["apgd-ce"])


def test_suite_in_toml(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the attack's file is found beside the suite, wherever the command is given
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with trusting():  # which is remembered
        suite = suites.get(str(files / "random_then_pgd.toml"), ThreatModel("Linf", "0.1"))
    assert [(step.name, step.parameters) for step in suite.steps] == [
        ("random-points", {"tries": 100}),
        ("pgd", {"steps": 20, "restarts": 1}),
    ]
    result = evaluated(suite=str(files / "random_then_pgd.toml"), threat="Linf:0.3")
    assert [step.name for step in result.steps] == ["random-points", "pgd"]


def test_norm(named: Named) -> None:
    norm = named("harness.threat.norms")
    check_norm(norm)
    threat = ThreatModel.parse(f"{norm}:0.05")
    assert (threat.radius, threat.geometry.name) == (0.05, "edges-first")
    assert len(suites.get("autoattack", threat).steps) == 4
    inner, whole = (evaluated(suite="pgd-20", threat=f"{name}:0.05") for name in ("Linf", norm))
    assert whole.threat.norm == norm
    assert whole.robust_acc < inner.robust_acc


@pytest.mark.parametrize("attack", attacks.names())
def test_every_attack_works_in_a_norm_from_outside(files: Path, attack: str) -> None:
    assert files
    (files / "one.toml").write_text(f'[[step]]\nattack = "{attack}"\n' + ("queries = 300\n" * (attack == "square")))
    weak, strong = (evaluated(suite="one.toml", threat=f"edges_first.py:edges_first:{eps}") for eps in (0.01, 0.1))
    assert strong.robust_acc < weak.robust_acc


def test_dataset(named: Named, files: Path) -> None:
    name = named("harness.datasets")
    test, train = datasets.load(name), datasets.load(name, split="train", limit=50)
    assert (test.name, len(test), test.size, len(train), train.size) == ("gratings", 200, 200, 50, 800)
    assert test.shape == datasets.about(name).shape == (1, 16, 16)
    assert str(test.threats[0]) == "Linf:0.1"
    # the two orientations differ in where neighbouring pixels are alike
    across = (test.x[:, :, :, 1:] - test.x[:, :, :, :-1]).abs().mean(dim=(1, 2, 3))
    along = (test.x[:, :, 1:] - test.x[:, :, :-1]).abs().mean(dim=(1, 2, 3))
    assert ((across < along).long() == test.y).float().mean() > 0.95


def test_regime(named: Named) -> None:
    from harness.models._selectors import select

    regime = regimes.get(named("harness.regimes"))
    assert (regime.name, regime.trained) == ("last-block-ft", ("groups:-2:",))
    model = models.build("digits-resnet", classes=10, shape=(1, 8, 8), seed=0)
    trained = select(model, regime.trained)
    last, head = list(models.layer_groups(model).values())[-2:]
    assert trained
    assert all(name.startswith((*last, *head)) for name in trained)


@pytest.mark.usefixtures("files", "installed")
@pytest.mark.parametrize("norm_layer", ["batch", "rms", "rms.py:rms"])
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


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("architecture", ["my_network.py:small", "plain3.py:plain3"])
def test_architecture_in_a_file_of_ones_own(architecture: str) -> None:
    model = models.build(architecture, classes=10, shape=(1, 8, 8), seed=0)
    assert model(torch.rand(3, 1, 8, 8)).shape == (3, 10)


@pytest.mark.usefixtures("installed")
def test_source() -> None:
    assert forms()["tiny:NAME"] == "from example-plugins 1.2"
    model = models.build("tiny:32", classes=3, shape=(1, 6, 6), seed=0)
    assert (model(X).shape, model.norm_layer) == ((12, 3), "own")
    with pytest.raises(harness.HarnessError, match="tiny:big names no width"):
        models.build("tiny:big", classes=3, shape=(1, 6, 6))


@pytest.fixture
def results(files: Path) -> Path:
    root = files / "leaderboards" / "results"
    for name, robust in (("bn_ft", 40), ("natural", 1)):
        result = make_result(name, robust=robust)
        store.save(result, make_verdicts(result), root)
    return root


@pytest.mark.usefixtures("results")
def test_format(named: Named, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = named("harness.results.formats")
    assert run(["leaderboard", "--format", name, "--format", "csv", "--output", "boards"]) == 0
    assert capsys.readouterr().err == ""
    assert sorted(path.suffix for path in (files / "boards").iterdir()) == [".csv", ".jsonl"]
    (path,) = (files / "boards").glob("*.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["rank"], row["checkpoint"], row["autoattack_acc"]) for row in rows] == [
        (1, "bn_ft", 0.4),
        (2, "natural", 0.01),
    ]


@pytest.mark.usefixtures("results", "installed")
def test_an_installed_format_is_written_without_being_named(files: Path) -> None:
    assert "json-lines" in formats.names()
    assert run(["leaderboard", "--output", "boards"]) == 0
    assert sorted(path.suffix for path in (files / "boards").iterdir()) == [".csv", ".html", ".jsonl", ".md", ".tex"]
    assert leaderboard.boards([]) == []


def far_ahead() -> tuple[nn.Module, Tensor]:
    model, y = linear()
    model[1].weight.mul_(1e4)  # type: ignore[union-attr, operator]
    return model, y


def test_check(named: Named) -> None:
    name = named("harness.audit.checks")
    model, y = far_ahead()
    flags = harness.evaluate(model, X, y, threat="Linf:0.05", suite="clean", checks=(name,)).flags
    (flag,) = (flag for flag in flags if flag.code == "large-logits")
    assert flag.severity == "warn"
    assert flag.figures["of"] == 12
    assert evaluated(suite="clean", checks=(name,)).flags == []


@pytest.mark.usefixtures("installed")
def test_an_installed_check_is_made_without_being_named() -> None:
    model, y = far_ahead()
    assert checks.added() == ("large-logits",)
    assert "large-logits" in {f.code for f in harness.evaluate(model, X, y, threat="Linf:0.05", suite="clean").flags}


@pytest.mark.usefixtures("files", "installed")
@pytest.mark.parametrize("family", MEMBERS)
def test_installed_members_are_listed(family: str) -> None:
    name = MEMBERS[family][2]
    assert plugins.is_member(family, name)
    assert name in plugins.members(family)
    assert plugins.summaries(family)[name] == "from example-plugins 1.2"
