"""Norm layers: what each does to a feature map, and how the ones without normalisers begin."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from harness import models
from harness.errors import CheckpointError, InvalidInput, UnknownName
from harness.models import Model, norm_layers
from harness.models.norm_layers import DualBatchNorm2d, deploy_branch, dual_layers, use_branch
from harness.models.norm_layers.fixup import FixupConv2d
from harness.models.norm_layers.weight_standardized import StandardizedConv2d

SHAPE = (1, 8, 8)


def features(n: int = 6, channels: int = 16, size: int = 5) -> Tensor:
    return 3 + 2 * torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(0)).double()


def digits(norm: str, *, seed: int = 0) -> Model:
    return models.build("digits-resnet", classes=10, shape=SHAPE, norm_layer=norm, seed=seed)


@pytest.mark.parametrize("name", norm_layers.names())
@pytest.mark.parametrize("channels", [16, 33])
def test_keeps_the_shape_and_carries_its_name(name: str, channels: int) -> None:
    norm = norm_layers.get(name)
    assert norm.name == name
    x = features(channels=channels)
    assert norm(channels).double()(x).shape == x.shape
    for size, stride, expected in [(3, 1, 5), (3, 2, 3), (1, 2, 3)]:
        assert norm.conv(channels, 8, size, stride=stride).double()(x).shape == (6, 8, expected, expected)


@pytest.mark.parametrize(
    ("name", "over"),
    [
        ("batch", (0, 2, 3)),
        ("batch-no-affine", (0, 2, 3)),
        ("dual", (0, 2, 3)),
        ("layer", (1, 2, 3)),
        ("instance", (2, 3)),
    ],
)
def test_normalises_over_the_right_axes(name: str, over: tuple[int, ...]) -> None:
    out = norm_layers.get(name)(16).double().train()(features())
    torch.testing.assert_close(out.mean(over), torch.zeros_like(out.mean(over)), atol=1e-6, rtol=0)
    torch.testing.assert_close(out.var(over, correction=0), torch.ones_like(out.mean(over)), atol=1e-4, rtol=0)


def test_group_takes_eight_groups_or_the_next_divisor() -> None:
    groups = {channels: norm_layers.get("group")(channels).num_groups for channels in (16, 640, 12, 33, 7, 13)}
    assert groups == {16: 8, 640: 8, 12: 6, 33: 3, 7: 7, 13: 1}


@pytest.mark.parametrize("name", norm_layers.names())
def test_only_batch_norms_know_the_other_images(name: str) -> None:
    layer = norm_layers.get(name)(16).double().train()
    x = features()
    alone, together = layer(x[:1]), layer(x)[:1]
    assert torch.allclose(alone, together) == (name not in ("batch", "batch-no-affine", "dual"))


@pytest.mark.parametrize(("name", "parameters"), [("batch", 32), ("batch-no-affine", 0), ("dual", 64), ("none", 0)])
def test_parameters_of_a_layer(name: str, parameters: int) -> None:
    assert sum(p.numel() for p in norm_layers.get(name)(16).parameters()) == parameters


@pytest.mark.parametrize("name", norm_layers.names())
def test_a_network_learns_to_read_digits(name: str) -> None:
    bundled = load_digits()
    x = torch.from_numpy(bundled.images).float()[:, None] / 16
    y = torch.from_numpy(bundled.target).long()
    model = digits(name)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    for _ in range(120):
        batch = torch.randint(1200, (32,), generator=generator)
        loss = F.cross_entropy(model(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        accuracy = (model(x[1200:]).argmax(1) == y[1200:]).float().mean().item()
    assert accuracy > 0.6


class TestDual:
    def test_branches_keep_their_own_statistics(self) -> None:
        model = digits("dual")
        start = {key: value.clone() for key, value in model.state_dict().items()}
        with use_branch(model, "adversarial"):
            model(torch.rand(8, *SHAPE))
        changed = {key for key, value in model.state_dict().items() if not torch.equal(value, start[key])}
        assert changed
        assert all(".adversarial." in key for key in changed), changed

    @pytest.mark.parametrize("training", [True, False])
    def test_the_deployed_branch_works_unless_another_is_selected(self, training: bool) -> None:
        layer = DualBatchNorm2d(16).double().train(training)
        nn.init.constant_(layer.adversarial.weight, 2.0)
        x = features()
        clean, adversarial = layer.clean(x), layer.adversarial(x)
        torch.testing.assert_close(layer(x), clean)
        with use_branch(layer, "adversarial"):
            torch.testing.assert_close(layer(x), adversarial)
            with use_branch(layer, "clean"):
                torch.testing.assert_close(layer(x), clean)
            torch.testing.assert_close(layer(x), adversarial)
        torch.testing.assert_close(layer(x), clean)
        deploy_branch(layer, "adversarial")
        torch.testing.assert_close(layer(x), adversarial)

    def test_a_selection_ends_with_an_error_too(self) -> None:
        model = digits("dual")
        with pytest.raises(ZeroDivisionError), use_branch(model, "adversarial"):
            raise ZeroDivisionError
        assert all(layer.selected is None for layer in dual_layers(model))

    def test_the_state_dict_says_which_branch_is_deployed(self) -> None:
        trained = digits("dual")
        deploy_branch(trained, "adversarial")
        other = digits("dual", seed=1)
        other.load_state_dict(trained.state_dict(), strict=True)
        assert {layer.deployed for layer in dual_layers(other)} == {"adversarial"}
        assert all(isinstance(value, Tensor) for value in trained.state_dict().values())

    @pytest.mark.parametrize("stored", [torch.tensor(7), torch.tensor([0, 1])])
    def test_a_damaged_state_dict_is_refused(self, stored: Tensor) -> None:
        with pytest.raises(CheckpointError, match="stored as 0 or 1"):
            DualBatchNorm2d(4).set_extra_state(stored)

    def test_every_norm_of_the_network_is_dual(self) -> None:
        model = digits("dual")
        inside = {id(norm) for layer in dual_layers(model) for norm in (layer.clean, layer.adversarial)}
        assert inside == {id(module) for module in model.modules() if isinstance(module, nn.BatchNorm2d)}

    @pytest.mark.parametrize("switch", [deploy_branch, lambda model, branch: use_branch(model, branch).__enter__()])
    def test_refuses_unknown_branches_and_networks_without(self, switch: object) -> None:
        assert callable(switch)
        with pytest.raises(UnknownName, match="expected one of adversarial, clean"):
            switch(digits("dual"), "main")
        with pytest.raises(InvalidInput, match="no dual batch norm"):
            switch(digits("batch"), "clean")


class TestFixup:
    def test_starts_as_the_paper_says(self) -> None:
        model = models.build("resnet56", classes=10, shape=(3, 32, 32), norm_layer="fixup", seed=0)
        convs = [module for module in model.modules() if isinstance(module, FixupConv2d)]
        inner = [conv for conv in convs if conv.branch == (1, 2)]
        last = [conv for conv in convs if conv.branch == (2, 2)]
        assert (len(convs), len(inner), len(last)) == (55, 27, 27)
        for conv in last:
            assert not conv.weight.any()
            assert conv.multiplier is not None
            assert conv.multiplier.item() == 1
        for conv in inner:
            he = math.sqrt(2 / (conv.out_channels * 9))
            assert conv.weight.std().item() == pytest.approx(he * 27**-0.5, rel=0.1)
            assert conv.multiplier is None
        assert convs[0].weight.std().item() == pytest.approx(math.sqrt(2 / (16 * 9)), rel=0.1)
        assert not model.network.linear.weight.any()
        assert not model.network.linear.bias.any()
        scalars = [p for name, p in model.named_parameters() if name.endswith("shift")]
        assert len(scalars) == 2 * 55
        assert not any(scalar.any() for scalar in scalars)

    def test_a_block_starts_as_its_shortcut(self) -> None:
        network = digits("fixup").network
        x = torch.rand(4, 16, 8, 8)
        torch.testing.assert_close(network.layer1(x), x)


class TestWeightStandardized:
    def test_filters_have_mean_zero_and_the_variance_of_the_paper(self) -> None:
        conv = norm_layers.get("weight-standardized").conv(16, 32, 3).double()
        assert isinstance(conv, StandardizedConv2d)
        rows = conv.standardized().flatten(1)
        torch.testing.assert_close(rows.mean(1), torch.zeros(32).double())
        expected = 2 / (1 - 1 / math.pi) / (16 * 9)
        torch.testing.assert_close(rows.var(1, correction=0), torch.full((32,), expected).double())

    @pytest.mark.parametrize("slope", [None, 0.0, 0.1])
    def test_variance_passes_through_rectifier_and_convolution(self, slope: float | None) -> None:
        conv = norm_layers.get("weight-standardized").conv(64, 256, 1, slope=slope).double()
        nn.init.zeros_(conv.bias)
        z = torch.randn(8, 64, 16, 16, generator=torch.Generator().manual_seed(0)).double()
        out = conv(z if slope is None else F.leaky_relu(z, slope))
        # over all positions, around each channel's mean: what a batch norm would set to one
        assert out.var((0, 2, 3)).mean().item() == pytest.approx(1, rel=0.05)

    def test_a_block_starts_as_its_shortcut(self) -> None:
        network = digits("weight-standardized").network
        x = torch.rand(4, 16, 8, 8)
        torch.testing.assert_close(network.layer1(x), x)
