"""Every registered architecture keeps its contract with every norm layer that it can have."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harness import models
from harness.errors import InvalidInput, UnknownName
from harness.models import Model, Normalization, norm_layers
from harness.util import plugins

SHAPE = (3, 12, 12)
CLASSES = 7


def own_norm(architecture: str) -> str:
    member = plugins.lookup("harness.models", architecture, "architecture")
    name: str = inspect.signature(member).parameters["norm"].default.name
    return name


def count(name: str, shape: tuple[int, int, int] = (3, 32, 32)) -> int:
    with torch.device("meta"):
        model = models.build(name, classes=10, shape=shape)
    return sum(p.numel() for p in model.parameters())


def norms_of(architecture: str) -> tuple[str, ...]:
    """All that it can have; for large networks one that is put in place and one that replaces convolutions."""
    if own_norm(architecture) == "none":
        return ("none",)
    return ("batch", "fixup") if count(architecture) > 5_000_000 else norm_layers.names()


PAIRS = [(architecture, norm) for architecture in models.names() for norm in norms_of(architecture)]


def build(architecture: str, norm: str, seed: int = 0) -> Model:
    return models.build(architecture, classes=CLASSES, shape=SHAPE, norm_layer=norm, seed=seed)


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param


@pytest.fixture(scope="module")
def fresh(pair: tuple[str, str]) -> Model:
    """As built; tests leave it alone."""
    return build(*pair)


@pytest.fixture(scope="module")
def moved(pair: tuple[str, str]) -> Model:
    """Away from its starting weights, some of which are zero by design; float64, evaluation mode."""
    model = build(*pair, seed=1).double()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model.eval()


def images(n: int = 3, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(3), dtype=dtype)


def test_gives_finite_logits_per_image(fresh: Model) -> None:
    assert fresh.training
    with torch.no_grad():
        logits = copy.deepcopy(fresh)(images(dtype=torch.float32))
    assert logits.shape == (3, CLASSES)
    assert logits.dtype == torch.float32
    assert bool(logits.isfinite().all())


def test_an_image_is_judged_alone_whatever_its_batch(moved: Model) -> None:
    x = images()
    with torch.no_grad():
        together = moved(x)
        for i in range(len(x)):
            alone = moved(x[i : i + 1])
            assert alone.shape == (1, CLASSES)
            torch.testing.assert_close(alone[0], together[i], rtol=1e-9, atol=1e-9)
    assert not torch.allclose(together[0], together[1])


def test_gradient_reaches_the_image_and_every_working_parameter(moved: Model) -> None:
    x = images().requires_grad_()
    F.cross_entropy(moved(x), torch.tensor([0, 1, 2])).backward()
    assert x.grad is not None
    assert bool((x.grad.flatten(1).abs().amax(dim=1) > 0).all())
    idle = [name for name, p in moved.named_parameters() if p.grad is None or not bool(p.grad.any())]
    moved.zero_grad()
    assert all(".adversarial." in name for name in idle), idle


def test_a_seed_decides_the_weights_and_leaves_the_generator_alone(pair: tuple[str, str], fresh: Model) -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    again = build(*pair)
    assert torch.equal(torch.get_rng_state(), before)
    other = build(*pair, seed=5)
    same = again.state_dict()
    assert all(torch.equal(same[key], value) for key, value in fresh.state_dict().items())
    assert any(not torch.equal(same[key], value) for key, value in other.state_dict().items())


def test_groups_cover_every_parameter_and_buffer_once(fresh: Model) -> None:
    groups = models.layer_groups(fresh)
    assert next(iter(groups)) == "stem"
    assert list(groups)[-1] == "head"
    for key in fresh.network.state_dict():
        holders = [group for group, prefixes in groups.items() if models.in_group(key, prefixes)]
        assert len(holders) == 1, (key, holders)
    for group, prefixes in groups.items():
        for prefix in prefixes:
            fresh.network.get_submodule(prefix)  # raises when it is not there
        held = [name for name, _ in fresh.network.named_parameters() if models.in_group(name, prefixes)]
        assert held or group == "last-norm", group


def test_copies_and_pickles_are_the_same_model(moved: Model) -> None:
    x = images(1)
    with torch.no_grad():
        expected = moved(x)
        assert torch.equal(copy.deepcopy(moved)(x), expected)
        assert torch.equal(pickle.loads(pickle.dumps(moved))(x), expected)


def test_what_it_was_built_from_stands_in_the_model(pair: tuple[str, str], fresh: Model) -> None:
    assert (fresh.architecture, fresh.norm_layer) == pair
    assert (fresh.classes, fresh.shape, fresh.normalization) == (CLASSES, SHAPE, None)


@pytest.mark.parametrize("architecture", models.names())
def test_own_norm_layer_is_what_comes_unasked(architecture: str) -> None:
    with torch.device("meta"):
        model = models.build(architecture, classes=2, shape=(1, 28, 28))
    assert model.norm_layer == own_norm(architecture)


def conv(channels_in: int, channels_out: int, size: int) -> int:
    return channels_in * channels_out * size**2


@pytest.mark.parametrize(("name", "blocks"), [("resnet20", 3), ("resnet32", 5), ("resnet44", 7), ("resnet56", 9)])
def test_cifar_resnets_have_as_many_parameters_as_published(name: str, blocks: int) -> None:
    expected = conv(3, 16, 3) + 2 * 16 + 64 * 10 + 10
    before = 16
    for width in (16, 32, 64):
        expected += conv(before, width, 3) + (2 * blocks - 1) * conv(width, width, 3) + 2 * blocks * 2 * width
        before = width
    published = {"resnet20": 0.27e6, "resnet32": 0.46e6, "resnet44": 0.66e6, "resnet56": 0.85e6}
    assert expected == pytest.approx(published[name], abs=0.5e4)
    assert count(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"), [("wrn-28-10", 36_479_194), ("preact-resnet18", 11_172_170), ("leaky-resnet32", 464_154)]
)
def test_known_parameter_counts(name: str, expected: int) -> None:
    assert count(name) == expected


def test_digits_resnet_is_small_enough_to_ship() -> None:
    assert count("digits-resnet", (1, 8, 8)) < 90_000


def test_normalization_is_inside_but_not_in_the_state() -> None:
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    plain = build("resnet20", "batch").eval()
    model = models.build(
        "resnet20", classes=CLASSES, shape=SHAPE, normalization=Normalization(mean, std), seed=0
    ).eval()
    assert list(model.state_dict()) == list(plain.state_dict())
    x = images(dtype=torch.float32)
    by_hand = torch.stack([(x[:, c] - mean[c]) / std[c] for c in range(3)], dim=1)
    torch.testing.assert_close(model(x), plain(by_hand))
    assert model.double()(x.double()).dtype == torch.float64
    assert pickle.loads(pickle.dumps(model)).normalization == Normalization(mean, std)


@pytest.mark.parametrize(
    ("mean", "std"),
    [((0.5,), (0.0,)), ((0.5,), (-1.0,)), ((float("nan"),), (1.0,)), ((0.5, 0.5), (1.0,)), ((), ()), (0.5, 1.0)],
)
def test_impossible_normalization_is_refused(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    with pytest.raises(InvalidInput, match="normalization"):
        Normalization(mean, std)


def test_normalization_of_other_channels_is_refused() -> None:
    with pytest.raises(InvalidInput, match="1 channels and the images have 3"):
        models.build("resnet20", classes=2, shape=SHAPE, normalization=Normalization((0.5,), (0.5,)))


@pytest.mark.parametrize(
    ("classes", "shape"), [(1, SHAPE), (0, SHAPE), (2.5, SHAPE), (10, (3, 32)), (10, (3, 0, 32)), (10, (3, 32.0, 32))]
)
def test_impossible_classes_and_shapes_are_refused(classes: int, shape: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidInput, match=r"at least 2 classes|\(channels, height, width\)"):
        models.build("resnet20", classes=classes, shape=shape)


def test_unknown_architecture_lists_the_known_and_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"digits-resnet, .*did you mean 'resnet20'\?"):
        models.build("resnet-20", classes=10, shape=SHAPE)


def test_unknown_norm_layer_lists_the_known() -> None:
    with pytest.raises(UnknownName, match=r"expected one of batch, .*did you mean 'group'\?"):
        models.build("resnet20", classes=10, shape=SHAPE, norm_layer="groop")


@pytest.mark.parametrize("norm", [name for name in norm_layers.names() if name != "none"])
def test_a_norm_layer_asked_of_a_network_without_is_refused(norm: str) -> None:
    with pytest.raises(InvalidInput, match=f"no norm layers: expected norm layer 'none', got '{norm}'"):
        models.build("lenet5", classes=10, shape=SHAPE, norm_layer=norm)


def test_an_image_too_small_for_the_pooling_is_refused() -> None:
    with pytest.raises(InvalidInput, match="at least 4x4 pixels, got 3x8"):
        models.build("lenet5", classes=10, shape=(1, 3, 8))
