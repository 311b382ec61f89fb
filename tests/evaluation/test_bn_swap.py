"""BN values swapped between two networks: exact at both ends, nothing changed, shares that add up."""

from __future__ import annotations

import csv
import io
from itertools import pairwise

import numpy as np
import pytest
import torch

from harness import checkpoints, datasets, models
from harness.batchnorm.attribution import attribute
from harness.batchnorm.swap import PARTS, Mix, Row, Swap, bn_swap, mixed, parts_of
from harness.batchnorm.swap_picture import swap_picture
from harness.batchnorm.swap_table import swap_table
from harness.checkpoints import weights_sha256
from harness.errors import InvalidInput
from harness.models import Model
from harness.results.record import Verdicts

pytestmark = pytest.mark.usefixtures("unaudited")

DATA = datasets.load("digits", limit=60)


def shipped(name: str) -> Model:
    return checkpoints.load(name).model


def judge(model: Model) -> Verdicts:
    """One step along the sign of the gradient, without the engine around it."""
    leaf = DATA.x.clone().requires_grad_()
    logits = model(leaf)
    (grad,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, DATA.y, reduction="sum"), leaf)
    attacked = predictions(model, (DATA.x + 0.15 * grad.sign()).clamp(0, 1)).argmax(dim=1).numpy()
    y, clean = DATA.y.numpy(), logits.argmax(dim=1).numpy()
    robust, nothing = (clean == y) & (attacked == y), np.zeros(len(y), dtype=np.int64)
    return Verdicts(DATA.indices.numpy(), y, clean, robust, nothing - 1, attacked, nothing, nothing)


def predictions(model: Model, x: torch.Tensor = DATA.x) -> torch.Tensor:
    with torch.no_grad():
        return model(x)


def small(norm_layer: str = "batch", *, seed: int = 0) -> Model:
    return models.build("digits-resnet", classes=10, shape=(1, 8, 8), norm_layer=norm_layer, seed=seed).eval()


def moved(model: Model) -> Model:
    """Another network of the same architecture, whose BN values all differ."""
    other = mixed(model, model, ())
    generator = torch.Generator().manual_seed(1)
    for layer in [module for module in other.modules() if isinstance(module, torch.nn.BatchNorm2d)]:
        for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
            if tensor is not None:
                tensor.data = tensor.data + 0.1 + torch.rand(tensor.shape, generator=generator)
    return other


def test_both_ends_are_the_networks_themselves() -> None:
    a, b = shipped("natural"), shipped("bn_ft")
    before = weights_sha256(a), weights_sha256(b)
    told: list[str] = []
    swap = bn_swap(a, b, judge, path_points=3, report=told.append)
    assert (weights_sha256(a), weights_sha256(b)) == before
    assert swap.rest_equal
    combinations = swap.of_kind("combination")
    assert len({row.mix.parts for row in combinations}) == len(combinations) == 16
    for row, model in ((combinations[0], a), (combinations[15], b)):
        verdicts = judge(model)
        assert (row.robust == verdicts.robust).all()
        assert (row.clean == (verdicts.clean_pred == verdicts.y)).all()
    assert (combinations[0].robust != combinations[15].robust).any()
    path = swap.of_kind("path")
    assert [row.mix.share for row in path] == [0, 0.5, 1]
    assert path[0].robust is combinations[0].robust
    assert path[2].robust is combinations[15].robust
    # the ends of the path are not evaluated a second time
    assert len(told) == 17
    assert told[0] == "nothing (A itself)"
    assert told[-1] == "50 % of the way"


@pytest.mark.parametrize("part", PARTS)
def test_a_part_alone_is_taken_and_nothing_else(part: str) -> None:
    a = small()
    b = moved(a)
    attribute = {"gamma": "weight", "beta": "bias", "mean": "running_mean", "variance": "running_var"}[part]
    state, ours, theirs = mixed(a, b, [part]).network.state_dict(), a.network.state_dict(), b.network.state_dict()
    bn = {name for name in state if name.split(".")[-2].startswith("bn")}
    assert bn
    for name, tensor in state.items():
        source = theirs if name in bn and name.endswith(f".{attribute}") else ours
        assert tensor.equal(source[name])


def test_all_parts_give_the_logits_of_b_to_the_last_bit() -> None:
    a, b = shipped("natural"), shipped("bn_ft")
    assert predictions(mixed(a, b, PARTS)).equal(predictions(b))
    assert predictions(mixed(a, b, ())).equal(predictions(a))
    assert predictions(mixed(a, b, PARTS, share=0.0)).equal(predictions(a))
    assert not predictions(mixed(a, b, PARTS, share=0.5)).equal(predictions(a))


def test_layer_by_layer() -> None:
    a = small()
    b = moved(a)
    swap = bn_swap(a, b, judge, by_layer=True, path_points=0)
    rows = swap.of_kind("layer")
    assert len(swap.layers) == 7
    assert len(rows) == 7 * 6
    alone, without = mixed(a, b, PARTS, layers=["bn"]), mixed(a, b, PARTS, layers=[n for n in swap.layers if n != "bn"])
    for row, model in ((rows[-2], alone), (rows[-1], without)):
        assert row.mix.layer == "bn"
        assert (row.clean == (judge(model).clean_pred == DATA.y.numpy())).all()
    assert [row.mix.label for row in rows[-2:]] == ["bn: gamma + beta + mean + variance", "all but bn"]


def test_networks_that_differ_in_more_than_bn_are_told_apart() -> None:
    a, b = shipped("natural"), shipped("bn_head_ft")
    swap = bn_swap(a, b, judge, path_points=0)
    assert not swap.rest_equal
    (itself,) = swap.of_kind("b")
    assert (itself.robust == judge(b).robust).all()


def test_only_statistics_can_be_swapped_without_gamma_and_beta() -> None:
    a = small("batch-no-affine")
    assert parts_of(a, moved(a)) == ("mean", "variance")
    assert len(bn_swap(a, moved(a), judge, path_points=0).rows) == 4


def test_what_cannot_be_swapped() -> None:
    batch = small()
    with pytest.raises(InvalidInput, match="same names and shapes, got digits-resnet with norm layer 'batch' and "):
        parts_of(batch, small("none"))
    with pytest.raises(InvalidInput, match="norm layer 'none' has no BN layer"):
        parts_of(small("none"), small("none", seed=1))
    with pytest.raises(InvalidInput, match="equal to the last bit"):
        parts_of(batch, small(seed=1))
    with pytest.raises(InvalidInput, match="at least 2 points, or 0 for none, got 1"):
        bn_swap(batch, moved(batch), judge, path_points=1)


def made_up(values: dict[tuple[str, ...], float], n: int = 400) -> Swap:
    """A swap whose robust accuracies are given; samples stand in a fixed order."""
    parts = tuple(dict.fromkeys(part for chosen in values for part in chosen))
    clean = np.ones(n, dtype=bool)
    rows = [Row(Mix("combination", chosen), clean, np.arange(n) < value * n) for chosen, value in values.items()]
    return Swap(parts, ("bn",), True, tuple(rows))


def test_shares_by_hand() -> None:
    swap = made_up({(): 0.1, ("mean",): 0.1, ("gamma",): 0.3, ("mean", "gamma"): 0.6})
    found = attribute(swap)
    assert found.gain.difference == pytest.approx(0.5)
    shares = {effect.part: effect for effect in found.effects}
    # gamma gives 0.2 first and 0.5 last; mean gives nothing first and 0.3 last
    assert shares["gamma"].share.difference == pytest.approx(0.35)
    assert shares["mean"].share.difference == pytest.approx(0.15)
    assert shares["mean"].alone.difference == pytest.approx(0)
    assert shares["mean"].last.difference == pytest.approx(0.3)
    assert shares["gamma"].share.low < 0.35 < shares["gamma"].share.high
    assert found.leader == "gamma"
    assert found.sentence.endswith("gamma carries the largest part of it")


def test_shares_add_up_to_the_gain() -> None:
    found = attribute(bn_swap(shipped("natural"), shipped("bn_ft"), judge, path_points=0))
    assert sum(effect.share.difference for effect in found.effects) == pytest.approx(found.gain.difference)
    assert [effect.part for effect in found.effects] == list(PARTS)


def test_what_samples_cannot_tell_is_not_said() -> None:
    level = made_up({(): 0.1, ("mean",): 0.3, ("gamma",): 0.3, ("mean", "gamma"): 0.5})
    assert attribute(level).leader is None
    assert attribute(level).sentence.endswith("the largest share is not clearly above the next")
    loss = made_up({(): 0.5, ("mean",): 0.3, ("gamma",): 0.3, ("mean", "gamma"): 0.4})
    assert attribute(loss).leader is None
    assert "no gain that 400 samples can show" in attribute(loss).sentence


def test_table_and_picture() -> None:
    a = small()
    swap = bn_swap(a, moved(a), judge, by_layer=True, path_points=3)
    lines = list(csv.DictReader(io.StringIO(swap_table(swap))))
    assert len(lines) == len(swap.rows) == 16 + 42 + 3
    assert [line["kind"] for line in lines[:16]] == ["combination"] * 16
    assert [lines[1][part] for part in PARTS] == ["1", "0", "0", "0"]
    for line in lines:
        bounds = [float(line[f"robust_acc{end}"]) for end in ("_low", "", "_high")]
        assert all(low <= high for low, high in pairwise(bounds))
        assert line["n"] == "60"
    drawn = [swap_picture(swap, attribute(swap), first="a", second="b", caption="c") for _ in range(2)]
    assert drawn[0].startswith(b"\x89PNG")
    assert drawn[0] == drawn[1]
