"""What does not fit is refused in one sentence before anything is trained, and nothing is lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import datasets, models, regimes
from harness.errors import HarnessError, InvalidInput, UnknownName
from harness.models import _selectors
from harness.regimes._base import Awp, PartOptimizer, Phase, Regime
from harness.training import Settings, TrainingDiverged, train
from harness.util.validation import validate
from tests.training.tiny import ARCHITECTURE, digits, moved, parent, settings, trained


def _regime(**fields: Any) -> Regime:
    return Regime(**{"name": "mine", "summary": "a test", "loss": "adversarial"} | fields)


def _toml(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def test_a_regime_of_ones_own_is_a_toml_file(tmp_path: Path) -> None:
    path = _toml(
        tmp_path,
        """
        loss = "mixed"
        adversarial_weight = 0.3
        trained = ["all", "-group:stem"]
        [[optimizers]]
        part = ["head"]
        kind = "adamw"
        [awp]
        gamma = 0.02
        [[phases]]
        share = 2
        [[phases]]
        trained = ["head"]
        optimizers = []
        awp = {gamma = 0.01, part = ["head"]}
        """,
    )
    regime = regimes.get(path)
    assert regime.name == "mine"
    first, second = regime.stages()
    assert (first.trained, second.trained) == (("all", "-group:stem"), ("head",))
    assert (first.adversarial_weight, second.loss) == (0.3, "mixed")
    assert (len(first.optimizers), len(second.optimizers)) == (1, 0)
    assert "conv1.weight" not in trained(regime, None, epochs=2).trained


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('train = ["head"]', ["unknown field 'train'", "'trained'"]),
        ('los = "natural"', ["unknown field 'los'", "did you mean 'loss'"]),
        ("[awp]\ngama = 0.1", ["unknown field 'awp.gama'", "did you mean 'gamma'"]),
        ("[[phases]]\nepochs = 3", ["unknown field 'phases.0.epochs'", "share"]),
        ('[[optimizers]]\npart = ["head"]\nlr = 0.1', ["unknown field 'optimizers.0.lr'", "learning_rate"]),
        ("[[optimizers]]\nlearning_rate = 0.1", ["'optimizers.0.part' is missing"]),
        ('step_size = "2/0"', ["step_size", "such as 2/255", "got '2/0'"]),
        ('step_size = "-1"', ["step_size", "such as 2/255", "got '-1'"]),
        ('loss = "robust"', ["loss", "'adversarial'", "got 'robust'"]),
        ("adversarial_weight = 2", ["adversarial_weight", "got 2"]),
        ("trained = []", ["trains nothing"]),
        ("loss = ", ["not valid TOML"]),
        ('parent = "natural"', ["start = 'parent'"]),
        ('start = "parent"\nnorm_layer = "group"', ["norm layer"]),
        ('norm_layer = "dual"\nloss = "mixed"', ["deploy"]),
        ('norm_layer = "dual"\ndeploy = "clean"', ["'mixed' or 'trades'"]),
        ('[[phases]]\ntrained = []\n[[phases]]\ntrained = ["all"]', ["trains nothing"]),
    ],
)
def test_a_wrong_regime_file_is_named_with_what_is_wrong(text: str, words: list[str], tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as error:
        regimes.get(_toml(tmp_path, text))
    message = str(error.value)
    assert "mine" in message
    assert "\n" not in message
    assert [word for word in words if word not in message] == []


def test_unknown_regimes_and_files() -> None:
    with pytest.raises(UnknownName, match="did you mean 'bn-ft'"):
        regimes.get("bn-fd")
    with pytest.raises(InvalidInput, match=r"cannot read the regime .*nowhere\.toml"):
        regimes.get("nowhere.toml")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"trained": ("group:blok2",)}, ["'group:blok2'", "did you mean 'group:block2'", "last-norm"]),
        ({"trained": ("bn-gama",)}, ["'bn-gama'", "did you mean 'bn-gamma'"]),
        ({"trained": ("groups:7:",)}, ["'groups:7:' matches nothing"]),
        ({"trained": ("head", "-head")}, ["nothing is left to train"]),
        ({"norm_layer": "group", "trained": ("bn-gamma",)}, ["'bn-gamma' matches nothing", "no BN layer"]),
        ({"norm_layer": "batch-no-affine", "trained": ("bn-beta",)}, ["no gamma and beta"]),
        ({"norm_layer": "group", "bn_statistics": "re-estimated-clean"}, ["no BN layer"]),
        ({"trained": ("head",), "awp": Awp(part=("group:stem",))}, ["nothing to perturb"]),
        ({"trained": ("bn-gamma",), "awp": Awp()}, ["nothing to perturb"]),
        ({"trained": ("head",), "optimizers": (PartOptimizer(part=("bn-gamma",)),)}, ["no such part is trained"]),
        (
            {"optimizers": (PartOptimizer(part=("head",)), PartOptimizer(part=("groups:-2:",)))},
            ["shares parameters"],
        ),
        ({"phases": (Phase(),) * 5}, ["3 epochs are too few for the 5 phases"]),
        ({"start": "parent", "parent": "natural"}, ["starts from a parent", "'natural'"]),
    ],
)
def test_a_regime_that_does_not_fit_the_network(fields: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InvalidInput) as error:
        trained(_regime(**fields), None)
    assert [word for word in words if word not in str(error.value)] == []


def test_parents_that_do_not_fit(tmp_path: Path) -> None:
    start = parent(tmp_path)

    def attempt(regime: str, architecture: str | None = None, dataset: Any = None) -> None:
        train(regimes.get(regime), dataset=dataset or digits(), architecture=architecture, parent=start)

    with pytest.raises(InvalidInput, match=r"is a digits-resnet, not a resnet20"):
        attempt("bn-ft", "resnet20")
    with pytest.raises(InvalidInput, match="starts at random"):
        attempt("bn-scratch")
    with pytest.raises(InvalidInput, match=r"shape \(1, 8, 8\) in 10 classes.*in 2 classes"):
        attempt("bn-ft", dataset=replace(digits(), classes=("a", "b")))
    group = parent(tmp_path / "group", norm_layer="group")
    with pytest.raises(InvalidInput, match="'bn-gamma' matches nothing"):
        trained(regimes.get("bn-ft"), group)


def test_dual_layers_asked_of_an_architecture_without_bn() -> None:
    with pytest.raises(HarnessError, match="dual"):
        train(regimes.get("bn-dual"), dataset=digits(), settings=settings(), architecture="lenet5")


def test_data_that_cannot_be_trained_on() -> None:
    with pytest.raises(InvalidInput, match="at least two images"):
        train(_regime(), dataset=datasets.load("digits", split="train", limit=1), architecture=ARCHITECTURE)
    with pytest.raises(InvalidInput, match="no standard threat model"):
        train(_regime(), dataset=replace(digits(), threats=()), architecture=ARCHITECTURE)
    with pytest.raises(InvalidInput, match="name an architecture"):
        train(_regime(), dataset=digits())
    with pytest.raises(InvalidInput, match="device"):
        train(_regime(), dataset=digits(), architecture=ARCHITECTURE, device="nowhere")


@pytest.mark.parametrize(
    ("field", "value"),
    [("epochs", 0), ("batch_size", 1), ("learning_rate", -1.0), ("eps", 0.1), ("attack", "cw"), ("step_size", "0/255")],
)
def test_settings_out_of_range(field: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=f"^the options: .*{field}"):
        validate(Settings, {field: value}, "the options")


def test_a_diverging_loss_stops_with_the_epoch_and_the_last_finite_state(tmp_path: Path) -> None:
    start = parent(tmp_path)
    regime = _regime(start="parent", loss="natural")
    with pytest.raises(TrainingDiverged, match="diverged in epoch 1 of 3") as error:
        trained(regime, start, learning_rate=1e30)
    assert moved(error.value.outcome.last, start.model) == set()
    # the second phase diverges; what the first one made is kept
    own = (PartOptimizer(part=("all",), learning_rate=1e30),)
    late = _regime(start="parent", loss="natural", phases=(Phase(share=2), Phase(optimizers=own)))
    with pytest.raises(TrainingDiverged, match="diverged in epoch 3 of 3") as error:
        train(late, dataset=digits(), settings=settings(), parent=start, state_dir=tmp_path / "state")
    outcome = error.value.outcome
    assert len(outcome.log) == 2
    assert moved(outcome.last, start.model)
    assert all(bool(value.isfinite().all()) for value in outcome.last.network.state_dict().values())
    assert not (tmp_path / "state").exists()


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(tick: Any) -> None:
        if tick.row is not None:
            raise Killed

    def attempt(progress: Any = None) -> None:
        train(
            _regime(),
            dataset=digits(),
            settings=settings(),
            architecture=ARCHITECTURE,
            progress=progress,
            state_dir=tmp_path,
        )

    with pytest.raises(Killed):
        attempt(kill)
    (state,) = tmp_path.glob("*.pt")
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(InvalidInput, match=f"{state.name} is damaged; delete it"):
        attempt()


def test_parts_of_any_network() -> None:
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(144, 3)
    )
    model = models.Model(network, architecture="mine", classes=3, shape=(1, 8, 8), norm_layer="own", normalization=None)
    assert _selectors.select(model, ("bn-gamma", "head")) == {"1.weight", "3.weight", "3.bias"}
    assert _selectors.select(model, ("-head", "-bn-beta")) == {"0.weight", "0.bias", "1.weight"}
    assert _selectors.select(model, ("all", "-groups::1")) == {"1.weight", "1.bias", "3.weight", "3.bias"}
    assert _selectors.select(model, ()) == frozenset()
    assert _selectors.select_bn_layers(model, ("group:1",)) == {"1"}
    assert _selectors.select_bn_layers(model, ("head",)) == frozenset()
    with pytest.raises(InvalidInput, match="did you mean 'bn-beta'"):
        _selectors.select(model, ("bn-betta",))
