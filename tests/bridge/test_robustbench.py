"""robustbench as installed becomes importable, and the interpreter is left as it was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from harness.errors import InvalidInput, UnknownName
from harness.robustbench import EvaluationState, import_robustbench, zoo_model, zoo_names

TINY = "Hendrycks2020AugMix_WRN"  # the zoo's smallest network: 2.2 million parameters


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_zoo_network_needs_no_attack_engine_and_the_bridge_brings_it_later() -> None:
    lines = python(
        "import sys\n"
        "from harness.models.sources._zoo import import_package, zoo_names\n"
        "assert 'Standard' in zoo_names('cifar10', 'Linf')\n"
        "print('harness.autoattack' in sys.modules)\n"
        "try:\n"
        "    import_package().eval.AutoAttack(None)\n"
        "except Exception as error:\n"
        "    print(error)\n"
        "from harness.robustbench import import_robustbench\n"
        "from harness.autoattack import AutoAttack, EvaluationState\n"
        "evaluation = import_robustbench().eval\n"
        "print(evaluation.AutoAttack is AutoAttack, evaluation.EvaluationState is EvaluationState)\n"
    )
    loaded, refusal, patched = lines.splitlines()[-3:]
    assert (loaded, patched) == ("False", "True True")
    assert "harness.robustbench.import_robustbench()" in refusal


def test_an_installed_autoattack_is_not_shadowed(tmp_path: Path) -> None:
    real = tmp_path / "autoattack"
    real.mkdir()
    (real / "__init__.py").write_text("class AutoAttack:\n    real = True\n")
    (real / "state.py").write_text("class EvaluationState:\n    real = True\n")
    out = python(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from harness.robustbench import import_robustbench\n"
        "import_robustbench()\n"
        "import robustbench.eval as e, autoattack\n"
        "print(e.AutoAttack.real, e.EvaluationState.real, autoattack.__file__ is not None)\n"
    )
    assert out.splitlines()[-1] == "True True True"


def test_an_import_that_failed_can_be_repeated_and_leaves_no_stand_in_behind(tmp_path: Path) -> None:
    broken = tmp_path / "gdown"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise RuntimeError('no gdown here')\n")
    out = python(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from harness.robustbench import import_robustbench\n"
        "from harness.errors import HarnessError\n"
        "def there(*names):\n"
        "    return [n for n in sys.modules if n in names or n.split('.')[0] in names]\n"
        "before = there('autoattack', 'pkg_resources')\n"
        "try:\n"
        "    import_robustbench()\n"
        "except HarnessError as error:\n"
        "    print(error)\n"
        "print(there('robustbench', 'autoattack'))\n"
        f"sys.path.remove({str(tmp_path)!r})\n"
        "package = import_robustbench()\n"
        "assert import_robustbench() is package\n"
        "import robustbench\n"
        "assert robustbench is package and callable(package.benchmark) and callable(package.load_model)\n"
        "print(there('autoattack', 'pkg_resources') == before)\n"
    )
    message, left, as_before = out.splitlines()[-3:]
    assert "no gdown here" in message
    assert "pip install robustbench==1.1.1" in message
    assert (left, as_before) == ("[]", "True")


def test_its_packaged_files_are_found() -> None:
    package = import_robustbench()
    loaders = sys.modules[f"{package.__name__}.loaders"]
    path = Path(loaders.pkg_resources.resource_filename(loaders.__name__, "helper_files/imagenet_test_image_ids.txt"))
    assert len(path.read_text().splitlines()) == 5000


def test_load_model_reads_a_local_file(tmp_path: Path) -> None:
    package = import_robustbench()
    network = zoo_model(TINY, "cifar10", "corruptions")
    folder = tmp_path / "cifar10" / "corruptions"
    folder.mkdir(parents=True)
    torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, folder / f"{TINY}.pt")
    loaded = package.load_model(TINY, model_dir=tmp_path, dataset="cifar10", threat_model="corruptions")
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded(x), network(x))


def test_zoo_network_is_a_plain_module_in_eval_mode(capsys: pytest.CaptureFixture[str]) -> None:
    network = zoo_model(TINY, "cifar10", "corruptions")
    assert isinstance(network, nn.Module)
    assert not any(module.training for module in network.modules())
    assert capsys.readouterr().out == ""


def test_zoo_names_and_unknown_ones() -> None:
    names = zoo_names("cifar10", "Linf")
    assert "Standard" in names
    assert list(names) == sorted(names)
    with pytest.raises(UnknownName, match="did you mean 'Standard'"):
        zoo_model("Standart")
    with pytest.raises(UnknownName, match="robustbench data set 'cifar11'"):
        zoo_names("cifar11", "Linf")
    with pytest.raises(UnknownName, match="threat model for cifar10 'L7'"):
        zoo_names("cifar10", "L7")


@pytest.mark.parametrize("threat", ["Linf", "corruptions"])
def test_an_entry_that_only_comes_with_a_download_is_refused(threat: str) -> None:
    with pytest.raises(InvalidInput, match="only by downloading"):
        zoo_model("Standard_R50", "imagenet", threat)


def test_state_is_written_whole_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    state = EvaluationState(frozenset({"apgd-ce", "square"}), frozenset({"apgd-ce"}), torch.tensor([True, False]), 0.5)
    state.to_disk(path)
    assert [file.name for file in tmp_path.iterdir()] == ["state.json"]
    again = EvaluationState.from_disk(path)
    assert again.attacks_to_run == state.attacks_to_run
    assert again.run_attacks == state.run_attacks
    assert again.clean_accuracy == 0.5
    assert again.robust_flags.mean().item() == 0.5
    path.write_text(path.read_text()[:-5])
    with pytest.raises(InvalidInput, match=r"state\.json is not a readable AutoAttack state"):
        EvaluationState.from_disk(path)


class TinyModel(nn.Module):
    """A linear classifier, whose distance to each decision boundary is known in closed form."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 32 * 32, 10)
        with torch.no_grad():
            self.layer.weight.copy_(torch.randn(10, 3072, generator=torch.Generator().manual_seed(0)) / 50)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(x.flatten(1))
        return logits


@pytest.mark.parametrize("state", [False, True])
def test_benchmark_runs_on_this_engine(state: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = import_robustbench()
    model = TinyModel().eval()
    x = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = model(x)
    y = logits.argmax(1)
    y[0] = (y[0] + 1) % 10
    # the closed form: a linear model's distance to its nearest boundary; half of the samples stand
    weight = model.layer.weight
    gaps = (logits.gather(1, y[:, None]) - logits) / (weight[y][:, None] - weight[None]).abs().sum(-1)
    distances = gaps.masked_fill(nn.functional.one_hot(y, 10).bool(), float("inf")).amin(1).detach()
    eps = float(distances.sort().values[3:5].mean())
    expected = float((distances > eps).float().mean())
    monkeypatch.setattr(sys.modules["robustbench.eval"], "load_clean_dataset", lambda *_: (x, y))
    path = tmp_path / "aa.json" if state else None
    clean, robust = package.benchmark(model, n_examples=8, threat_model="Linf", eps=eps, aa_state_path=path)
    assert (clean, robust) == (7 / 8, expected)
