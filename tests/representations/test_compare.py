"""Two models, layer by layer: the right layers, the right images, nothing left behind, the same every time."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from harness import checkpoints, datasets, models
from harness.errors import InvalidInput
from harness.models import Model
from harness.representations import LOGITS, compare, layers, linear_cka, picture, table, watched
from harness.representations import _compare as comparing
from harness.threat import ThreatModel
from harness.threat.perturb import Crafting, craft
from tests.registry.material import small

DATA = datasets.load("digits", limit=150)
THREAT = ThreatModel("Linf", "0.15")
PGD = Crafting.of("pgd", THREAT, steps=5)


def natural() -> Model:
    return checkpoints.load("natural").model


def hooks(model: Model) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@pytest.mark.parametrize(
    ("architecture", "shape", "expected"),
    [
        ("digits-resnet", (1, 8, 8), ["conv1", "layer1.0", "layer2.0", "layer3.0", "bn", LOGITS]),
        ("lenet5", (1, 8, 8), ["conv1", "conv2", "linear1", LOGITS]),
        ("resnet20", (3, 16, 16), ["bn1", *(f"layer{i}.{j}" for i in (1, 2, 3) for j in (0, 1, 2)), LOGITS]),
        ("torchvision:resnet18", (3, 32, 32), None),
    ],
)
def test_the_layers_are_the_blocks(architecture: str, shape: tuple[int, int, int], expected: list[str] | None) -> None:
    model = models.build(architecture, classes=10, shape=shape, seed=0)
    found = list(layers(model))
    assert found[-1] == LOGITS
    if expected is not None:
        assert found == expected
    else:
        assert [name for name in found if name.startswith("layer")][:3] == ["layer1.0", "layer1.1", "layer2.0"]


@pytest.mark.parametrize("name", models.names())
def test_every_architecture_can_be_watched(name: str) -> None:
    shape = (1, 8, 8) if name in ("digits-resnet", "lenet5") else (3, 16, 16)
    model = models.build(name, classes=10, shape=shape, seed=0).eval()
    with watched(model, layers(model)) as outputs, torch.no_grad():
        logits = model(torch.rand(2, *shape))
    assert set(outputs) == set(layers(model))
    assert outputs[LOGITS].equal(logits)
    assert hooks(model) == 0


def test_what_is_watched_is_what_the_layer_returned() -> None:
    model = natural()
    with watched(model, ["conv1"]) as outputs, torch.no_grad():
        model(DATA.x[:5])
    with torch.no_grad():
        expected = model.network.get_submodule("conv1")(model.normalize(DATA.x[:5])).flatten(1)
    torch.testing.assert_close(outputs["conv1"], expected)


class InPlace(nn.Module):
    """The second layer writes into the output of the first."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 8)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu_(self.first(x.flatten(1))))


def wrap(network: nn.Module) -> Model:
    return Model(network, architecture="own", classes=10, shape=(1, 8, 8), norm_layer="own", normalization=None).eval()


def test_later_work_in_place_does_not_reach_the_copy() -> None:
    model = wrap(InPlace())
    with watched(model, ["first"]) as outputs, torch.no_grad():
        model(DATA.x[:20])
    assert float(outputs["first"].min()) < 0


class Broken(nn.Module):
    """Fails, or runs a layer twice, or not at all, or makes a layer return a tuple."""

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(64, 64)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.linear(x), x

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.body = self.Pair() if how == "tuple" else nn.Linear(64, 64)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        if self.how == "fails" and len(x) > 2:
            raise RuntimeError("no")
        if self.how == "tuple":
            x = self.body(x)[0]
        elif self.how != "idle":
            x = self.body(x)
            x = self.body(x) if self.how == "twice" else x
        return self.head(x)


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ("fails", RuntimeError, "no"),
        ("twice", InvalidInput, "'body' of own runs more than once a pass"),
        ("idle", InvalidInput, "'body' of own takes no part"),
        ("tuple", InvalidInput, "'body' of own returns no tensor"),
    ],
)
def test_hooks_are_removed_whatever_happens(how: str, error: type[Exception], words: str) -> None:
    model = wrap(Broken(how))
    with pytest.raises(error, match=words):
        compare(model, model, DATA.x, DATA.y)
    assert hooks(model) == 0


def test_nothing_is_left_behind() -> None:
    first, second = natural(), small()
    before = [{name: value.clone() for name, value in m.state_dict().items()} for m in (first, second)]
    compare(first, second, DATA.x, DATA.y, crafting=PGD)
    for model, state in zip((first, second), before, strict=True):
        assert hooks(model) == 0
        assert all(value.equal(state[name]) for name, value in model.state_dict().items())
        assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_a_model_and_itself() -> None:
    for similarity in compare(natural(), natural(), DATA.x, DATA.y, crafting=PGD):
        assert similarity.rows == similarity.columns
        np.testing.assert_allclose(np.diag(similarity.matrix), 1, atol=1e-9)
        np.testing.assert_allclose(similarity.matrix, similarity.matrix.T, atol=1e-9)
        assert similarity.accuracies[0] == similarity.accuracies[1]


def test_each_model_is_given_its_own_adversarial_images() -> None:
    first, second = natural(), checkpoints.load("at_full").model
    clean, adversarial = compare(first, second, DATA.x, DATA.y, crafting=PGD, seed=4)
    assert (clean.inputs, adversarial.inputs, adversarial.n) == ("clean", "adversarial", 150)
    logits = []
    for model in (first, second):
        draws = torch.Generator().manual_seed(4)
        parts = []
        for x, y in zip(DATA.x.split(128), DATA.y.split(128), strict=True):

            def raises(logits: Tensor, y: Tensor = y) -> Tensor:
                return nn.functional.cross_entropy(logits, y, reduction="sum")

            parts.append(craft(model, x, raises=raises, crafting=PGD, generator=draws))
        points = torch.cat(parts)
        assert float((points - DATA.x).abs().max()) <= 0.15 + 1e-6
        with torch.no_grad():
            logits.append(model(points))
    assert adversarial.matrix[-1, -1] == pytest.approx(linear_cka(*logits), rel=1e-6)
    expected = tuple(float((out.argmax(1) == DATA.y).double().mean()) for out in logits)
    assert adversarial.accuracies == pytest.approx(expected)
    assert adversarial.accuracies[0] < adversarial.accuracies[1] < clean.accuracies[1]
    with torch.no_grad():
        assert clean.matrix[-1, -1] == pytest.approx(linear_cka(first(DATA.x), second(DATA.x)), rel=1e-6)


def test_the_same_seed_gives_the_same_matrices() -> None:
    def matrices(seed: int) -> list[np.ndarray]:
        torch.rand(5)
        return [s.matrix for s in compare(natural(), small(), DATA.x[:60], DATA.y[:60], crafting=PGD, seed=seed)]

    once, again, other = matrices(0), matrices(0), matrices(1)
    assert all((a == b).all() for a, b in zip(once, again, strict=True))
    assert (once[0] == other[0]).all()
    assert not (once[1] == other[1]).all()


def test_memory_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,) = compare(natural(), small(), DATA.x, DATA.y)
    monkeypatch.setattr(comparing, "_NUMBERS", 150 * 300)  # less than one layer at a time, for most
    monkeypatch.setattr(comparing, "_BATCH", 40)
    (pieces,) = compare(natural(), small(), DATA.x, DATA.y)
    np.testing.assert_allclose(pieces.matrix, whole.matrix, rtol=1e-4)
    assert pieces.accuracies == whole.accuracies


def test_other_architectures_are_compared_layer_by_layer() -> None:
    lenet = models.build("lenet5", classes=10, shape=(1, 8, 8), seed=0).eval()
    (similarity,) = compare(natural(), lenet, DATA.x, DATA.y)
    assert similarity.matrix.shape == (6, 4)
    assert ((similarity.matrix > 0) & (similarity.matrix <= 1)).all()


def test_what_cannot_be_compared() -> None:
    with pytest.raises(InvalidInput, match="eval mode"):
        compare(natural(), small().train(), DATA.x, DATA.y)
    with pytest.raises(InvalidInput, match="at least two images, got 1"):
        compare(natural(), small(), DATA.x[:1], DATA.y[:1])
    with (
        pytest.raises(InvalidInput, match=r"has no layer 'conv9': it has conv1, layer1\.0"),
        watched(natural(), ["conv9"]),
    ):
        pass


def test_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    similarities = compare(natural(), small(), DATA.x, DATA.y, crafting=PGD)
    similarities[0].matrix[0, 1] = np.nan  # as of a layer that gives the same for all images
    header, *rows = csv.reader(io.StringIO(table(similarities[0])))
    assert header == ["layer", *similarities[0].columns]
    assert [row[0] for row in rows] == list(similarities[0].rows)
    assert rows[0][2] == ""
    assert float(rows[2][3]) == pytest.approx(similarities[0].matrix[2, 2], abs=1e-6)
    drawn = picture(similarities, first="natural", second="small", caption="150 images")
    assert drawn.startswith(b"\x89PNG")
    assert drawn == picture(similarities, first="natural", second="small", caption="150 images")
    assert len(picture(similarities[:1], first="a", second="b", caption="")) < len(drawn)
