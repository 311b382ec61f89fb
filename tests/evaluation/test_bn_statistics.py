"""The same weights under other BN statistics: the right numbers, in a copy, and the result says which."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from harness import checkpoints, datasets, evaluation
from harness.batchnorm.statistics import BN_STATISTICS, BnStatistics
from harness.checkpoints import Checkpoint
from harness.datasets import Dataset
from harness.errors import InvalidInput, UnknownName
from harness.models import Model
from harness.models._selectors import bn_layers
from harness.results import leaderboard
from harness.threat import ThreatModel
from harness.threat.perturb import Crafting, craft
from tests.registry.material import registered, small
from tests.support import of_strong_suites

pytestmark = pytest.mark.usefixtures("unaudited")

THREAT = ThreatModel("Linf", "0.15")
OTHERS = [kind for kind in BN_STATISTICS if kind != "stored"]


def train(limit: int | None = 100) -> Dataset:
    return datasets.load("digits", split="train", limit=limit)


def unseen(limit: int = 24) -> Dataset:
    return datasets.load("digits", limit=limit)


def state(model: Model) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.network.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def natural() -> Checkpoint:
    return checkpoints.load("natural")


@pytest.mark.parametrize("kind", BN_STATISTICS)
def test_the_model_itself_stays_as_it_is(kind: str) -> None:
    model = natural().model
    before = state(model)
    changed = BnStatistics(kind, train(20)).applied(model, THREAT)
    assert changed is not model
    assert same(state(model), before)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module.training for module in changed.modules())
    assert {p.data_ptr() for p in model.parameters()}.isdisjoint(p.data_ptr() for p in changed.parameters())


@pytest.mark.parametrize("kind", ["clean", "adversarial"])
def test_nothing_but_the_statistics_is_other(kind: str) -> None:
    model = natural().model
    before, after = state(model), state(BnStatistics(kind, train()).applied(model, THREAT))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {
        f"{layer}.{buffer}"
        for layer in bn_layers(model.network)
        for buffer in ("running_mean", "running_var", "num_batches_tracked")
    }


def inputs_of_first_layer(model: Model, x: Tensor) -> Tensor:
    seen: list[Tensor] = []
    layer = next(iter(bn_layers(model.network).values()))
    handle = layer.register_forward_hook(lambda _, args, out: seen.append(args[0]))
    with torch.no_grad():
        model(x)
    handle.remove()
    return seen[0].double()


def test_clean_statistics_are_the_mean_and_variance_over_the_images() -> None:
    model, data = natural().model, train(100)
    layer = next(iter(bn_layers(BnStatistics("clean", data).applied(model, THREAT).network).values()))
    seen = inputs_of_first_layer(model, data.x).transpose(0, 1).flatten(1)
    torch.testing.assert_close(layer.running_mean.double(), seen.mean(1), rtol=1e-4, atol=1e-6)  # type: ignore[union-attr]
    torch.testing.assert_close(layer.running_var.double(), seen.var(1), rtol=1e-4, atol=1e-6)  # type: ignore[union-attr]


def test_adversarial_images_are_crafted_against_the_stored_statistics_under_the_threat_model() -> None:
    model, data = natural().model, train(100)
    layer = next(iter(bn_layers(BnStatistics("adversarial", data, 5).applied(model, THREAT).network).values()))
    draws = torch.Generator().manual_seed(5)
    order = torch.randperm(100, generator=draws)
    x, y = data.x[order], data.y[order]
    points = craft(
        model,
        x,
        raises=lambda logits: torch.nn.functional.cross_entropy(logits, y, reduction="sum"),
        crafting=Crafting.of("pgd", THREAT, steps=10),
        generator=draws,
    )
    with torch.no_grad():
        assert (model(x).argmax(1) == y).double().mean() > 0.95
        assert (model(points).argmax(1) == y).double().mean() < 0.4
    seen = inputs_of_first_layer(model, points).transpose(0, 1).flatten(1)
    torch.testing.assert_close(layer.running_mean.double(), seen.mean(1), rtol=1e-4, atol=1e-6)  # type: ignore[union-attr]
    clean = next(iter(bn_layers(BnStatistics("clean", data, 5).applied(model, THREAT).network).values()))
    assert not torch.allclose(layer.running_mean, clean.running_mean, rtol=1e-2)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["clean", "adversarial"])
def test_a_seed_gives_the_same_statistics_again(kind: str) -> None:
    model, data = natural().model, train(300)

    def of(seed: int) -> dict[str, Tensor]:
        torch.rand(3)  # what others draw does not matter
        return state(BnStatistics(kind, data, seed).applied(model, THREAT))

    assert same(of(0), of(0))
    assert not same(of(0), of(1))


def test_estimating_anew_mends_statistics_that_were_spoilt() -> None:
    model, data = natural().model, datasets.load("digits")
    for layer in bn_layers(model.network).values():
        layer.running_mean += 2  # type: ignore[operator]

    def accuracy(of: Model) -> float:
        with torch.no_grad():
            return float((of(data.x).argmax(1) == data.y).double().mean())

    assert accuracy(model) < 0.5
    assert accuracy(BnStatistics("clean", train(None)).applied(model, THREAT)) > 0.95
    assert accuracy(BnStatistics("batch").applied(model, THREAT)) > 0.95


def test_batch_statistics_are_those_of_training_mode_and_leave_no_trace() -> None:
    model, x = natural().model, unseen(16).x
    changed = BnStatistics("batch").applied(model, THREAT)
    training = copy.deepcopy(model).train()
    before = state(changed)
    with torch.no_grad():
        torch.testing.assert_close(changed(x), training(x))
        assert not torch.allclose(changed(x)[:8], changed(x[:8]), atol=1e-2)
    assert same(state(changed), before)


@pytest.mark.parametrize("norm_layer", ["group", "none"])
@pytest.mark.parametrize("kind", BN_STATISTICS)
def test_a_model_without_bn_layers(kind: str, norm_layer: str) -> None:
    model = small(norm_layer=norm_layer)
    statistics = BnStatistics(kind, train(20))
    if kind == "stored":
        assert same(state(statistics.applied(model, THREAT)), state(model))
        return
    with pytest.raises(InvalidInput, match=f"norm layer '{norm_layer}' has none"):
        statistics.applied(model, THREAT)


@pytest.mark.parametrize("norm_layer", ["dual", "batch-no-affine"])
def test_every_kind_of_bn_layer_can_have_other_statistics(norm_layer: str) -> None:
    model, x = small(norm_layer=norm_layer), unseen().x
    with torch.no_grad():
        outputs = [BnStatistics(kind, train(60)).applied(model, THREAT)(x) for kind in BN_STATISTICS]
    for i, one in enumerate(outputs):
        assert torch.isfinite(one).all()
        assert not any(torch.allclose(one, other, atol=1e-5) for other in outputs[:i])


def test_what_is_asked_wrongly() -> None:
    with pytest.raises(UnknownName, match="did you mean 'adversarial'"):
        BnStatistics("adversarail")
    with pytest.raises(InvalidInput, match="training images, at least two: got none"):
        BnStatistics("clean")
    with pytest.raises(InvalidInput, match="at least two: got 1"):
        BnStatistics("adversarial", train(1))
    other = replace(train(20), x=torch.rand(20, 3, 8, 8))
    with pytest.raises(InvalidInput, match=r"shape \[3, 8, 8\] and 10 classes.*\[1, 8, 8\] and knows 10: name others"):
        BnStatistics("clean", other).applied(natural().model, THREAT)


def evaluate(point: Checkpoint, kind: str, data: Dataset | None = None, **settings: object) -> evaluation.Evaluation:
    options = {"workers": 1, "device": "cpu"} | settings
    return evaluation.evaluate_checkpoint(
        point, unseen(), threat=THREAT, suite="fgsm", bn_stats=kind, bn_data=data, **options
    )


@pytest.mark.parametrize("kind", BN_STATISTICS)
def test_the_result_says_which_statistics_were_used(kind: str) -> None:
    point, data = natural(), train()
    before = state(point.model)
    result = evaluate(point, kind, data).result
    assert same(state(point.model), before)
    assert (result.checkpoint, result.model.bn_stats) == ("natural", kind)
    assert result.model.sha256 == point.manifest.weights_sha256
    facts = result.model.bn_stats_facts
    if kind in ("clean", "adversarial"):
        assert (facts["dataset"], facts["split"], facts["n"]) == ("digits", "train", 100)
        assert (facts["sha256"], facts["seed"]) == (data.sha256, 0)
        assert ("threat" in facts) == (kind == "adversarial")
    else:
        assert facts == ({"batch_size": "auto", "workers": 1} if kind == "batch" else {})
    assert result.label == ("natural" if kind == "stored" else f"natural [bn-stats: {kind}]")
    assert ("bn-stats-batch" in {flag.code for flag in result.flags}) == (kind == "batch")
    assert ("batch-dependent" in {flag.code for flag in result.flags}) == (kind == "batch")
    identity = evaluation.evaluation_id(point, unseen(), THREAT, "fgsm", bn_stats=kind, bn_data=data)
    assert result.evaluation_id == (
        identity
        if kind != "batch"
        else evaluation.evaluation_id(point, unseen(), THREAT, "fgsm", bn_stats=kind, workers=1)
    )


def test_what_is_evaluated_are_the_images_under_those_statistics() -> None:
    point, data = natural(), train()
    for layer in bn_layers(point.model.network).values():
        layer.running_mean += 2  # type: ignore[operator]
    spoilt, mended = (evaluate(point, kind, data).verdicts.clean_pred for kind in ("stored", "clean"))
    with torch.no_grad():
        expected = BnStatistics("clean", data).applied(point.model, THREAT)(unseen().x).argmax(1)
    assert mended.tolist() == expected.tolist() != spoilt.tolist()


def test_the_identity_knows_all_that_the_statistics_depend_on() -> None:
    point, images = natural(), unseen()

    def identity(kind: str, data: Dataset | None = None, threat: ThreatModel = THREAT, **settings: object) -> str:
        return evaluation.evaluation_id(point, images, threat, "clean", bn_stats=kind, bn_data=data, **settings)

    stored = evaluation.evaluation_id(point, images, THREAT, "clean")
    assert identity("stored", train()) == stored
    different = [
        stored,
        identity("clean", train()),
        identity("clean", train(90)),
        identity("clean", train(), seed=1),
        identity("adversarial", train()),
        identity("adversarial", train(), ThreatModel("Linf", "0.1")),
        identity("batch"),
        identity("batch", batch_size=8),
        identity("batch", workers=2),
    ]
    assert len(set(different)) == len(different)
    assert identity("stored", batch_size=8, workers=2) == stored
    assert identity("clean", train(), batch_size=8, workers=2) == different[1]


@pytest.mark.audited
def test_images_that_the_statistics_have_seen_are_a_flag() -> None:
    flags = of_strong_suites(evaluate(natural(), "clean", unseen(10)).result.flags)
    assert [(flag.code, flag.figures) for flag in flags] == [("bn-stats-seen", {"kind": "clean", "seen": 10, "of": 24})]
    assert of_strong_suites(evaluate(natural(), "clean", train()).result.flags) == []


def test_every_kind_is_a_row_of_its_own() -> None:
    results = [evaluate(natural(), kind, train()).result for kind in BN_STATISTICS]
    (board,) = leaderboard.boards(results)
    assert sorted(row.checkpoint for row in board.rows) == sorted(result.label for result in results)
    flagged = {row.checkpoint for row in board.rows if "bn-stats-batch" in {flag.code for flag in row.flags}}
    assert flagged == {"natural [bn-stats: batch]"}


@pytest.mark.parametrize("kind", OTHERS)
def test_evaluating_a_model_without_bn_layers(kind: str, tmp_path: Path) -> None:
    point = checkpoints.load(registered(tmp_path, "plain", small(norm_layer="group")))
    with pytest.raises(InvalidInput, match="BN layers that keep running statistics"):
        evaluate(point, kind, train(20))
    with pytest.raises(InvalidInput, match="BN layers that keep running statistics"):
        evaluation.evaluation_id(point, unseen(), THREAT, "fgsm", bn_stats=kind, bn_data=train(20))


def test_progress_is_told() -> None:
    heard = []
    evaluation.evaluate_checkpoint(
        natural(),
        unseen(),
        threat=THREAT,
        suite="clean",
        bn_stats="clean",
        bn_data=train(300),
        progress=heard.append,
        workers=1,
    )
    assert [tick.step for tick in heard] == ["clean BN statistics"] * 2
    assert 0 < heard[0].done < heard[1].done <= 1
