"""What changed since the parent is told to the last bit, and a manifest that says otherwise is contradicted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from harness import checkpoints, regimes
from harness.checkpoints import Checkpoint, lineage
from harness.checkpoints.lineage import Difference, Lineage
from harness.errors import CheckpointError
from harness.models import Model, Normalization
from harness.models._selectors import bn_layers, select
from tests.registry.material import registered, small
from tests.registry.test_import import bring_shared
from tests.support import SHARED

BN = ("bn-gamma", "bn-beta")


def flip(tensor: Tensor, position: int = 0) -> None:
    """Flip the lowest bit of one number."""
    with torch.no_grad():
        tensor.view(-1).view(torch.int32)[position] ^= 1


def nudge(model: Model, names: Iterable[str]) -> None:
    state = model.network.state_dict()
    for name in names:
        state[name] += 1 if name.endswith("num_batches_tracked") else 0.01


def statistics(model: Model) -> list[str]:
    kinds = ("running_mean", "running_var", "num_batches_tracked")
    return [f"{layer}.{kind}" for layer in bn_layers(model.network) for kind in kinds]


def counts(change: Difference) -> dict[str, int]:
    return {part.name: len(part.changed) for part in change.parts if part.changed}


def test_equal_models_differ_in_nothing() -> None:
    change = lineage.difference(small(), small())
    assert change.nothing
    assert change.changed_share == 0
    assert counts(change) == {}


@pytest.mark.parametrize("name", [n for n, t in small().network.state_dict().items() if t.is_floating_point()])
def test_one_flipped_bit_in_any_tensor_is_seen(name: str) -> None:
    model = small()
    flip(model.network.state_dict()[name], -1)
    change = lineage.difference(model, small())
    (part,) = [part for part in change.parts if part.changed]
    assert part.changed == (name,)
    assert part.changed_values == 1
    assert not change.nothing


def test_the_sign_of_zero_counts() -> None:
    model = small()
    beta = model.network.state_dict()[next(n for n in select(model, ("bn-beta",)))]
    assert (beta == 0).all()
    with torch.no_grad():
        beta[0] = -0.0
    (part,) = [part for part in lineage.difference(model, small()).parts if part.changed]
    assert (part.name, part.changed_values, part.movement) == ("bn-beta", 1, 0.0)


def test_parts_cover_every_tensor_once() -> None:
    for norm_layer in ("batch", "group", "dual", "none", "batch-no-affine"):
        model = small(norm_layer=norm_layer)
        change = lineage.difference(model, model)
        assert sum(part.tensors for part in change.parts) == len(model.network.state_dict()) + len(("mean", "std"))
        assert change.parameters == sum(p.numel() for p in model.parameters())


def test_shares_and_movements_are_exact() -> None:
    model, parent = small(), small()
    state = model.network.state_dict()
    gammas = sorted(select(model, ("bn-gamma",)))
    with torch.no_grad():
        state[gammas[0]].mul_(1.5)
    change = lineage.difference(model, parent)
    size = state[gammas[0]].numel()
    (part,) = [part for part in change.parts if part.changed]
    whole = sum(parent.network.state_dict()[g].square().sum().item() for g in gammas)
    assert part.movement == pytest.approx((0.25 * size / whole) ** 0.5)
    assert change.changed_parameters == size
    assert change.changed_share == size / sum(p.numel() for p in model.parameters())


def test_the_normalization_is_a_part_of_its_own() -> None:
    plain, unit = small(normalization=None), small(normalization=Normalization((0.0,), (1.0,)))
    assert all(part.name != "normalization" for part in lineage.difference(plain, plain).parts)
    assert lineage.difference(plain, unit).nothing
    change = lineage.difference(small(normalization=Normalization((0.3,), (0.5,))), small())
    (part,) = [part for part in change.parts if part.changed]
    assert (part.name, part.changed, part.changed_values) == ("normalization", ("normalization.std",), 1)
    assert not change.nothing
    assert (change.changed, change.changed_parameters) == (frozenset(), 0)
    assert counts(lineage.difference(plain, small())) == {"normalization": 2}
    coloured = small()
    coloured.normalization = Normalization((0.3, 0.3), (0.4, 0.4))
    with pytest.raises(CheckpointError, match=r"normalization\.mean"):
        lineage.difference(coloured, small())


def test_other_architectures_cannot_be_compared() -> None:
    with pytest.raises(CheckpointError, match=r"missing .* unexpected"):
        lineage.difference(small(), small(architecture="resnet20"))


def family(
    folder: Path, change: Callable[[Model], None], *, regime: str | None = "bn-ft", **facts: object
) -> tuple[Checkpoint, Checkpoint]:
    mother = checkpoints.load(registered(folder, "mother", regime="natural"))
    model = small()
    change(model)
    path = registered(folder, "child", model, regime=regime, **({"parent": mother.as_parent()} | facts))
    return checkpoints.load(path), mother


def verdict(folder: Path, change: Callable[[Model], None], **facts: object) -> Lineage:
    return lineage.verify_claim(*family(folder, change, **facts))


def train_bn(model: Model) -> None:
    nudge(model, [*select(model, BN), *statistics(model)])


def test_a_true_claim_is_consistent(tmp_path: Path) -> None:
    told = verdict(tmp_path, train_bn)
    assert (told.status, told.checkpoint, told.parent, told.regime) == ("consistent", "child", "mother", "bn-ft")
    assert told.difference is not None
    assert counts(told.difference).keys() == {"bn-gamma", "bn-beta", "bn-mean", "bn-var", "bn-batches"}
    assert "bn-ft" in told.regimes
    assert "\n" not in told.reason


def test_a_changed_convolution_contradicts_bn_ft(tmp_path: Path) -> None:
    def cheat(model: Model) -> None:
        train_bn(model)
        flip(model.network.state_dict()["conv1.weight"])

    told = verdict(tmp_path, cheat)
    assert told.status == "contradicted"
    assert "claims bn-ft, but 1 of " in told.reason
    assert "convolutions changed (conv1.weight)" in told.reason
    assert "bn-ft" not in told.regimes


def test_a_changed_head_contradicts_bn_ft_and_fits_bn_head_ft(tmp_path: Path) -> None:
    told = verdict(tmp_path, lambda model: nudge(model, select(model, (*BN, "head"))))
    assert told.status == "contradicted"
    assert "head changed" in told.reason
    assert "bn-head-ft" in told.regimes
    assert "bn-ft" not in told.regimes


@pytest.mark.parametrize("name", [n for n in regimes.names() if regimes.get(n).start == "parent"])
def test_every_regime_with_a_parent_is_recognised(name: str, tmp_path: Path) -> None:
    regime = regimes.get(name)
    touched = [(*stage.trained, *stage.reset) for stage in regime.stages()]

    def train(model: Model) -> None:
        nudge(model, frozenset().union(*(select(model, part) for part in touched)))

    told = verdict(tmp_path, train, regime=name)
    assert told.status == "consistent", told.reason
    assert name in told.regimes
    untouched = sorted(dict(small().network.named_parameters()).keys() - told.difference.changed)  # type: ignore[union-attr]

    def overdo(model: Model) -> None:
        train(model)
        nudge(model, untouched[:1])

    if untouched:
        told = verdict(tmp_path / "again", overdo, regime=name)
        assert told.status == "contradicted"
        assert untouched[0] in told.reason


@pytest.mark.parametrize("name", [n for n in regimes.names() if regimes.get(n).start == "parent"])
def test_no_regime_changes_the_normalization(name: str, tmp_path: Path) -> None:
    mother = checkpoints.load(registered(tmp_path, "mother", regime="natural"))
    model = small(normalization=Normalization((0.2,), (0.4,)))
    path = registered(tmp_path, "child", model, regime=name, parent=mother.as_parent())
    told = lineage.verify_claim(checkpoints.load(path), mother)
    assert told.status == "contradicted"
    assert "normalised otherwise (normalization.mean changed)" in told.reason
    assert told.regimes == ()


def test_more_parameters_than_declared(tmp_path: Path) -> None:
    told = verdict(tmp_path, train_bn, trained_parameters=3)
    assert told.status == "contradicted"
    assert "3 are declared as trained" in told.reason


def test_parents_that_cannot_be_had(tmp_path: Path) -> None:
    child, mother = family(tmp_path, train_bn)
    assert lineage.verify_claim(child, None).status == "unknown-parent"
    assert "'mother' was not found" in lineage.verify_claim(child, None).reason
    assert lineage.verify_claim(child, None).unverified
    stranger = checkpoints.load(registered(tmp_path, "stranger", small(7)))
    told = lineage.verify_claim(child, stranger)
    assert told.status == "unknown-parent"
    assert "does not have the weights of the parent 'mother'" in told.reason
    assert told.difference is not None
    orphan, _ = family(tmp_path / "orphan", train_bn, parent=None)
    assert lineage.verify_claim(orphan, None).status == "unknown-parent"
    assert lineage.verify_claim(orphan, None).unverified
    assert lineage.verify_claim(child, mother).status == "consistent"
    assert not lineage.verify_claim(child, mother).unverified
    grouped = checkpoints.load(registered(tmp_path, "grouped", small(norm_layer="group"), regime="bn-ft"))
    assert lineage.verify_claim(grouped, None).status == "contradicted"


def test_parents_are_found_by_name_and_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    child, mother = family(tmp_path / "one", train_bn)
    found = lineage.parent_of(child)
    assert found is not None
    assert found.path == mother.path
    assert lineage.parent_of(mother) is None
    mother.path.unlink()
    assert lineage.parent_of(child) is None
    registered(tmp_path / "two", "mother", small(3))
    assert lineage.parent_of(child, checkpoint_dir=tmp_path / "two") is None
    registered(tmp_path / "checkpoints", "mother", small(0))
    found = lineage.parent_of(child, checkpoint_dir=tmp_path / "two")
    assert found is not None
    assert found.path.parent.resolve() == tmp_path / "checkpoints"


def test_claims_that_cannot_be_checked(tmp_path: Path) -> None:
    child, mother = family(tmp_path / "a", train_bn, regime="own-idea")
    told = lineage.verify_claim(child, mother)
    assert (told.status, told.unverified) == ("unknown-regime", True)
    assert "the manifest does not define it" in told.reason
    child, mother = family(tmp_path / "b", train_bn, regime=None)
    told = lineage.verify_claim(child, mother)
    assert (told.status, "bn-ft" in told.regimes) == ("unknown-regime", True)
    assert lineage.verify_claim(mother, None).status == "root"
    alone = checkpoints.load(registered(tmp_path, "alone", small(2)))
    assert lineage.verify_claim(alone, None).status == "root"


OWN = {"start": "parent", "trained": ["bn-gamma"]}


def test_a_regime_of_one_s_own_is_checked_by_the_definition_in_the_manifest(tmp_path: Path) -> None:
    def gamma_only(model: Model) -> None:
        nudge(model, [*select(model, ("bn-gamma",)), *statistics(model)])

    told = verdict(tmp_path / "a", gamma_only, regime="own-idea", definition=OWN)
    assert (told.status, told.unverified) == ("consistent", False)
    told = verdict(tmp_path / "b", train_bn, regime="own-idea", definition=OWN)
    assert told.status == "contradicted"
    assert "claims own-idea, but" in told.reason
    told = verdict(tmp_path / "c", train_bn, regime="own-idea", definition=OWN | {"traned": ["all"]})
    assert (told.status, told.unverified) == ("unknown-regime", True)
    assert "traned" in told.reason
    # a known name means what the package says, whatever else a manifest claims
    assert verdict(tmp_path / "d", train_bn, regime="bn-head-scratch", definition=OWN).status != "consistent"


def test_a_start_at_random_is_repeated_from_its_seed(tmp_path: Path) -> None:
    model = small(5)
    train_bn(model)
    path = registered(tmp_path, "scratch", model, regime="bn-scratch", training={"seed": 5})
    told = lineage.verify_claim(checkpoints.load(path), None)
    assert (told.status, told.parent, told.unverified) == ("consistent", None, False)
    flip(model.network.state_dict()["conv1.weight"])
    path = registered(tmp_path, "other", model, regime="bn-scratch", training={"seed": 5})
    told = lineage.verify_claim(checkpoints.load(path), None)
    assert told.status == "root"
    assert "could not be repeated" in told.reason
    assert told.unverified
    path = registered(tmp_path, "unknown", model, regime="bn-scratch")
    assert "does not say from which seed" in lineage.verify_claim(checkpoints.load(path), None).reason


def test_bn_report_is_exact() -> None:
    model = small()
    name, layer = next(iter(bn_layers(model.network).items()))
    channels = layer.num_features
    with torch.no_grad():
        layer.weight.copy_(torch.arange(channels) / 10)
        layer.running_var.fill_(2)  # type: ignore[union-attr]
        layer.num_batches_tracked.fill_(7)  # type: ignore[union-attr]
    rows = lineage.bn_report(model)
    assert [row.name for row in rows] == list(bn_layers(model.network))
    row = rows[0]
    assert (row.name, row.channels, row.batches, row.statistics) == (name, channels, 7, "stored")
    assert row.gamma is not None
    values = [i / 10 for i in range(channels)]
    mean = sum(values) / channels
    assert row.gamma.mean == pytest.approx(mean)
    assert row.gamma.std == pytest.approx((sum((v - mean) ** 2 for v in values) / channels) ** 0.5)
    assert (row.gamma.min, row.gamma.max) == (0, pytest.approx(values[-1]))
    assert row.gamma.near_zero == 1 / channels
    assert row.running_var is not None
    assert (row.running_var.mean, row.running_var.std) == (2, 0)
    layer.train()
    assert lineage.bn_report(model)[0].statistics == "batch"


def test_layers_without_gamma_and_networks_without_bn() -> None:
    rows = lineage.bn_report(small(norm_layer="batch-no-affine"))
    assert rows
    assert all(row.gamma is None and row.beta is None and row.running_mean is not None for row in rows)
    assert lineage.bn_report(small(norm_layer="none")) == ()


@pytest.mark.skipif(not (SHARED / "models").is_dir(), reason="no shared models")
def test_published_weights_kept_what_their_authors_say(tmp_path: Path) -> None:
    """Trained adversarially, then all but the first layers reset and trained naturally: those first layers
    are still there bit for bit, while their running statistics moved."""
    parent = checkpoints.load(bring_shared("resnet32_at_all.pt", tmp_path))
    for name, kept in [
        ("resnet32_at_then_nt_init_block1.pt", ("init_conv", "block1")),
        ("resnet32_at_then_nt_init_block3.pt", ("init_conv", "block1", "block2", "block3")),
    ]:
        child = checkpoints.load(bring_shared(name, tmp_path))
        change = lineage.difference(child.model, parent.model)
        everything = {n for n, _ in child.model.network.named_parameters()}
        assert change.changed == {n for n in everything if not n.startswith(kept)}
        assert change.moved_layers == bn_layers(child.model.network).keys()
