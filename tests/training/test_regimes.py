"""Every regime moves exactly what it declares, bit for bit, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from harness import regimes
from harness.checkpoints import Checkpoint
from harness.models import Model
from harness.regimes._base import Regime
from tests.training.tiny import moved, parent, tensors, trained, untrained

_BLOCKS = {
    "stem": "conv1.",
    "block1": "layer1.",
    "block2": "layer2.",
    "block3": "layer3.",
    "last-norm": "bn.",
    "head": "linear.",
}


def _declared(regime: Regime, model: Model) -> set[str]:
    """Parameters that the regime says it trains, worked out from the words alone."""
    layers = {name: module for name, module in model.network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    gammas = {f"{name}.weight" for name, layer in layers.items() if layer.affine}
    betas = {f"{name}.bias" for name, layer in layers.items() if layer.affine}
    everything = {name for name, _ in model.network.named_parameters()}
    words = {"all": everything, "bn-gamma": gammas, "bn-beta": betas}
    union: set[str] = set()
    for stage in regime.stages():
        part: set[str] = set()
        for selector in stage.trained:
            word = selector.removeprefix("-")
            names = words.get(word) if word in words else _of_groups(word, everything)
            assert names
            part = part - names if selector.startswith("-") else part | names
        union |= part
    return union


def _of_groups(word: str, everything: set[str]) -> set[str]:
    groups = list(_BLOCKS)
    if word.startswith("groups:"):
        first, last = (int(bound) if bound else None for bound in word.removeprefix("groups:").split(":"))
        wanted = groups[first:last]
    else:
        wanted = [word.removeprefix("group:")]
    return {name for name in everything if any(name.startswith(_BLOCKS[group]) for group in wanted)}


def _moving_layers(regime: Regime, model: Model) -> set[str]:
    layers = {name for name, module in model.network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    stages = regime.stages()
    assert len({stage.bn_statistics for stage in stages}) == 1
    if stages[0].bn_statistics == "frozen":
        return set()
    if stages[0].bn_statistics == "moving-where-trained":
        declared = _declared(regime, model)
        return {name for name in layers if f"{name}.weight" in declared}
    return layers


@pytest.mark.parametrize("name", regimes.names())
def test_exactly_the_declared_part_moves(name: str, tmp_path: Path) -> None:
    regime = regimes.get(name)
    start: Checkpoint | None = parent(tmp_path) if regime.start == "parent" else None
    before = untrained(regime, start)
    kept = {key: value.clone() for key, value in tensors(before).items()}
    outcome = trained(regime, start)

    statistics = {
        f"{layer}.{buffer}"
        for layer in _moving_layers(regime, before)
        for buffer in ("running_mean", "running_var", "num_batches_tracked")
    }
    declared = _declared(regime, before)
    assert moved(before, outcome.last) - statistics == declared
    assert moved(before, outcome.last) - declared == statistics
    assert outcome.trained == declared
    assert outcome.trained_parameters == sum(tensors(before)[key].numel() for key in declared)
    assert all(bool(value.isfinite().all()) for value in tensors(outcome.last).values())
    assert not outcome.last.training
    # the start itself belongs to the caller
    assert all(torch.equal(kept[key], value) for key, value in tensors(before).items())


@pytest.mark.parametrize("name", regimes.names())
def test_a_regime_is_called_like_its_file_and_fits_a_table(name: str) -> None:
    regime = regimes.get(name)
    assert regime.name == name
    assert regime.summary
    assert all(value and "\n" not in value for value in regime.row().values())


def test_a_dual_regime_deploys_the_branch_it_names() -> None:
    from harness.models.norm_layers import dual_layers, use_branch
    from tests.training.tiny import digits

    for name, branch in (("bn-dual", "adversarial"), ("bn-dual-clean", "clean")):
        model = trained(regimes.get(name), None).last
        assert {layer.deployed for layer in dual_layers(model)} == {branch}
        x = digits().x[:8]
        with use_branch(model, branch):
            chosen = model(x)
        assert torch.equal(model(x), chosen)


def test_keep_early_resets_before_it_trains(tmp_path: Path) -> None:
    start = parent(tmp_path)
    regime = regimes.get("keep-early")
    slow = trained(regime, start, learning_rate=1e-9, weight_decay=0.0)
    # barely trained, the reset part is far from the parent, and its scales are those of a fresh network
    assert torch.allclose(slow.last.network.get_parameter("bn.weight"), torch.ones(64), atol=1e-4)
    assert not torch.allclose(start.model.network.get_parameter("bn.weight"), torch.ones(64), atol=1e-2)
    parted = slow.last.network.get_parameter("layer2.0.conv1.weight")
    assert (parted - start.model.network.get_parameter("layer2.0.conv1.weight")).abs().mean() > 0.01


def test_re_estimated_statistics_are_those_of_the_data(tmp_path: Path) -> None:
    from tests.training.tiny import digits, settings

    start = parent(tmp_path)
    # one batch of everything: the estimate is then the plain statistics of that batch
    outcome = trained(regimes.get("bn-stats-only"), start, batch_size=80, validation=0.0)
    model, captured = start.model, []
    first = model.network.get_submodule("layer1.0.bn1")
    handle = first.register_forward_pre_hook(lambda module, inputs: captured.append(inputs[0]))
    with torch.no_grad():
        model(digits().x)
    handle.remove()
    assert settings().threat is None
    mean = captured[0].mean(dim=(0, 2, 3))
    variance = captured[0].var(dim=(0, 2, 3), unbiased=True)
    layer = outcome.last.network.get_submodule("layer1.0.bn1")
    assert torch.allclose(layer.running_mean, mean, atol=1e-5)
    assert torch.allclose(layer.running_var, variance, rtol=1e-4)


def test_re_estimation_on_clean_and_on_adversarial_data_differs(tmp_path: Path) -> None:
    start = parent(tmp_path)
    clean = trained(regimes.get("bn-stats-only"), start).last
    adversarial = trained(regimes.get("bn-stats-only-adversarial"), start).last
    assert {name.rpartition(".")[2] for name in moved(clean, adversarial)} == {"running_mean", "running_var"}
