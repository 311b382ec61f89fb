"""The loop: repeatable, resumable, and each of its settings does what it says."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harness import models, regimes
from harness.models import Model, Normalization
from harness.regimes._base import Awp, PartOptimizer, Phase, Regime
from harness.threat.perturb import Crafting, begin, craft
from harness.training import Tick, TrainingOutcome, measure, optimizers, train, write_log
from harness.training.awp import perturbed
from harness.training.batches import crop_flip, generator, split
from harness.training.objectives import OBJECTIVES, Passes
from harness.training.plan import plan
from harness.training.schedules import SCHEDULES
from tests.training.tiny import ARCHITECTURE, digits, moved, parent, settings, tensors, trained


def _regime(**fields: Any) -> Regime:
    return Regime(**{"name": "mine", "summary": "a test", "loss": "adversarial"} | fields)


def _equal(a: Model, b: Model) -> bool:
    return not moved(a, b)


def test_the_same_seed_gives_the_same_bits_and_another_gives_others() -> None:
    regime = _regime()
    state = torch.get_rng_state()
    first, again, other = (trained(regime, None, epochs=2, seed=seed) for seed in (3, 3, 4))
    assert _equal(first.last, again.last)
    assert not _equal(first.last, other.last)
    assert torch.equal(state, torch.get_rng_state())
    assert [row.loss for row in first.log] == [row.loss for row in again.log]


class _Killed(Exception):
    pass


_RESUMABLE = {
    "plain": _regime(),
    "own optimiser": _regime(optimizers=(PartOptimizer(part=("bn-gamma",), kind="adam", learning_rate=0.01),)),
    "phases": _regime(phases=(Phase(trained=("bn-gamma", "bn-beta")), Phase(share=2, reset=("head",)))),
    "re-estimated between": _regime(phases=(Phase(bn_statistics="re-estimated-clean"), Phase())),
}


@pytest.mark.parametrize("kind", _RESUMABLE)
@pytest.mark.parametrize("epochs_before", [1, 2])
def test_a_killed_run_ends_like_an_uninterrupted_one(kind: str, epochs_before: int, tmp_path: Path) -> None:
    numbers = settings(epochs=4, weight_averaging=0.9)

    def run(progress: Any = None, state_dir: Path | None = None) -> TrainingOutcome:
        return train(
            _RESUMABLE[kind],
            dataset=digits(),
            settings=numbers,
            architecture=ARCHITECTURE,
            progress=progress,
            state_dir=state_dir,
        )

    def kill(tick: Tick) -> None:
        # in the middle of the epoch after
        if tick.done > epochs_before / 4 + 0.1:
            raise _Killed

    with pytest.raises(_Killed):
        run(kill, tmp_path / "state")
    ticks: list[Tick] = []
    resumed = run(ticks.append, tmp_path / "state")
    assert min(tick.done for tick in ticks if tick.row is None) > epochs_before / 4
    whole = run()
    assert _equal(resumed.last, whole.last)
    assert _equal(resumed.best, whole.best)
    assert [(row.epoch, row.loss) for row in resumed.log] == [(row.epoch, row.loss) for row in whole.log]
    # it stays until the outcome is registered: asked again, the finished run is handed back without training
    again: list[Tick] = []
    assert _equal(run(again.append, tmp_path / "state").last, whole.last)
    assert not any(tick.row for tick in again)
    assert resumed.state is not None
    resumed.state.remove()
    assert not (tmp_path / "state").exists()


def test_a_restored_optimiser_keeps_what_it_has_gathered_and_the_rates_of_the_settings() -> None:
    weight = torch.nn.Parameter(torch.ones(3))

    def built() -> torch.optim.Optimizer:
        return torch.optim.SGD([{"params": [weight], "initial_lr": 0.1, "schedule": "cosine"}], lr=0.1, momentum=0.9)

    before = built()
    weight.grad = torch.ones(3)
    before.step()
    state = before.state_dict()
    # as a version wrote it that knew of no schedules
    del state["param_groups"][0]["schedule"]
    state["param_groups"][0]["initial_lr"] = 7.0
    after = built()
    optimizers.restore([after], [state])
    (group,) = after.param_groups
    assert (group["initial_lr"], group["schedule"]) == (0.1, "cosine")
    assert torch.equal(after.state[weight]["momentum_buffer"], torch.ones(3))


def test_another_run_does_not_take_up_a_foreign_state(tmp_path: Path) -> None:
    def kill(tick: Tick) -> None:
        if tick.row is not None:
            raise _Killed

    for seed in (1, 2):
        with pytest.raises(_Killed):
            train(
                _regime(),
                dataset=digits(),
                settings=settings(seed=seed),
                architecture=ARCHITECTURE,
                progress=kill,
                state_dir=tmp_path,
            )
    assert len(list(tmp_path.glob("training-*.pt"))) == 2


def test_crafting_in_train_mode_moves_the_statistics_more_often(tmp_path: Path) -> None:
    def batches_seen(regime: Regime) -> int:
        outcome = trained(regime, None, epochs=1, steps=3)
        return int(outcome.last.network.get_buffer("bn.num_batches_tracked"))

    rounds = 64 // 24
    assert batches_seen(regimes.get("at-full")) == rounds
    assert batches_seen(regimes.get("at-full-train-mode")) == rounds * (1 + 3)


def test_frozen_statistics_are_used_as_well_as_kept(tmp_path: Path) -> None:
    start = parent(tmp_path)
    frozen, moving = (
        trained(_regime(start="parent", trained=("head",), bn_statistics=how), start, epochs=1)
        for how in ("frozen", "moving")
    )
    assert moved(frozen.last, start.model) == {"linear.weight", "linear.bias"}
    assert "linear.weight" in moved(frozen.last, moving.last)


def test_weight_decay_does_not_reach_what_is_not_trained(tmp_path: Path) -> None:
    start = parent(tmp_path)
    regime = _regime(start="parent", trained=("head",), bn_statistics="frozen")
    outcome = trained(regime, start, epochs=1, weight_decay=0.5)
    assert moved(outcome.last, start.model) == {"linear.weight", "linear.bias"}


def test_a_part_with_its_own_optimiser_follows_that_one() -> None:
    still = _regime(optimizers=(PartOptimizer(part=("bn-gamma",), learning_rate=1e-12, weight_decay=0.0),))
    outcome = trained(still, None, epochs=1)
    gammas = [p for name, p in outcome.last.network.named_parameters() if ".bn" in f".{name}" and "weight" in name]
    assert gammas
    assert all(torch.allclose(gamma, torch.ones_like(gamma), atol=1e-6) for gamma in gammas)
    assert not torch.allclose(outcome.last.network.get_parameter("bn.bias"), torch.zeros(64), atol=1e-6)


def test_phases_share_out_the_epochs_and_start_their_schedule_anew() -> None:
    regime = _regime(phases=(Phase(share=1, trained=("head",)), Phase(share=3)))
    outcome = trained(regime, None, epochs=8, steps=1)
    assert [row.phase for row in outcome.log] == [1, 1, 2, 2, 2, 2, 2, 2]
    rates = [row.learning_rate or 0.0 for row in outcome.log]
    assert rates[1] < rates[0]
    assert rates[1] < rates[2]
    assert outcome.best_epoch > 2  # of the last phase


def test_a_phase_can_reset_what_the_one_before_it_trained() -> None:
    regime = _regime(phases=(Phase(), Phase(trained=("head",), reset=("groups::-1",), bn_statistics="frozen")))
    outcome = trained(regime, None, epochs=2)
    fresh = trained(_regime(trained=("head",), bn_statistics="frozen"), None, epochs=1)
    assert {name.split(".")[0] for name in moved(outcome.last, fresh.last)} == {"linear"}


def test_best_is_the_epoch_that_did_best_under_attack_on_validation_data() -> None:
    outcome = trained(_regime(), None, epochs=5)
    scores = [(row.validation_robust_acc or 0.0, row.validation_clean_acc or 0.0) for row in outcome.log]
    assert outcome.best_epoch == scores.index(max(scores)) + 1
    assert _equal(outcome.best, outcome.last) == (outcome.best_epoch == 5)


def test_nothing_kept_aside_means_that_the_last_is_the_best() -> None:
    outcome = trained(_regime(), None, epochs=2, validation=0.0)
    assert outcome.best_epoch == 2
    assert _equal(outcome.best, outcome.last)
    assert outcome.log[-1].validation_robust_acc is None
    assert outcome.facts["train_size"] == len(digits())


def test_validation_is_that_of_an_attack_on_every_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though only images that are right without attack are attacked: each has the start that it has among all."""
    begun: list[Tensor] = []

    def noted(*args: Any, start: Tensor | None = None, **more: Any) -> Tensor:
        assert start is not None
        begun.append(start)
        return craft(*args, start=start, **more)

    monkeypatch.setattr(measure, "craft", noted)
    monkeypatch.setattr(measure, "_BATCH", 16)
    kept = settings(epochs=4, validation=0.5, attack="fgsm")
    outcome = train(_regime(), dataset=digits(), settings=kept, architecture=ARCHITECTURE)
    _, held = split(digits().y, kept.validation, kept.seed)
    crafting = Crafting.of("pgd", digits().threat(), steps=10)
    starts = generator(kept.seed, "validation", 0, held.device)
    expected, clean, robust = [], 0, 0
    for part in held.split(16):
        x, y = digits().x[part], digits().y[part]
        start = begin(x, crafting, starts)
        raises = OBJECTIVES["adversarial"].raises(y, None)
        points = craft(outcome.last, x, raises=raises, crafting=crafting, generator=starts, start=start)
        right, withstands = (outcome.last(images).argmax(dim=1) == y for images in (x, points))
        expected += [start[right]] if right.any() else []
        clean, robust = clean + int(right.sum()), robust + int((right & withstands).sum())
    assert 0 < robust < clean < len(held), "all three kinds of images are needed here"
    last = outcome.log[-1]
    assert (last.validation_clean_acc, last.validation_robust_acc) == (clean / len(held), robust / len(held))
    assert all(torch.equal(a, b) for a, b in zip(begun[-len(expected) :], expected, strict=True))


def test_validation_data_are_a_share_of_every_class() -> None:
    y = torch.tensor([0] * 20 + [1] * 10)
    kept, held = split(y, 0.2, seed=0)
    assert y[held].tolist() == [0] * 4 + [1] * 2
    assert sorted(kept.tolist() + held.tolist()) == list(range(30))


def test_weight_averaging_hands_back_the_average() -> None:
    plain = trained(_regime(), None, epochs=2)
    averaged = trained(_regime(), None, epochs=2, weight_averaging=0.99)
    start = {name: value.clone() for name, value in tensors(trained(_regime(), None, learning_rate=1e-12).last).items()}
    name = "conv1.weight"
    far = (tensors(plain.last)[name] - start[name]).norm()
    near = (tensors(averaged.last)[name] - start[name]).norm()
    assert 0 < near < 0.5 * far


def test_every_schedule_begins_and_ends_where_it_should() -> None:
    for name, schedule in SCHEDULES.items():
        values = [schedule(i / 100) for i in range(100)]
        assert all(0 <= value <= 1 for value in values)
        assert max(values) == pytest.approx(1)
        assert values[-1] < 0.02 or name == "constant"
    assert [SCHEDULES["step"](done) for done in (0.0, 0.49, 0.5, 0.75)] == [1.0, 1.0, 0.1, 0.01]
    assert SCHEDULES["one-cycle"](0.3) == pytest.approx(1)
    assert SCHEDULES["cosine"](0.5) == pytest.approx(0.5)


def test_crop_flip_shifts_by_at_most_four_and_mirrors() -> None:
    x = torch.zeros(64, 1, 16, 16)
    x[:, :, 8, 5] = 1
    out = crop_flip(x, torch.Generator().manual_seed(0))
    places = {tuple(place[2:].tolist()) for place in out.nonzero()}
    rows, columns = {row for row, _ in places}, {column for _, column in places}
    assert out.sum() == 64
    assert rows <= set(range(4, 13))
    assert columns <= set(range(1, 10)) | set(range(6, 15))
    assert min(columns) < 5 < 10 < max(columns)


def test_trades_is_its_formula() -> None:
    torch.manual_seed(0)
    clean, attacked, y = torch.randn(6, 4), torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    passes = Passes(clean=lambda x: clean, adversarial=lambda x: attacked)
    loss, logits = OBJECTIVES["trades"].loss(passes, y, y, y, _regime(loss="trades", trades_beta=3.0), 0.0)
    p, q = clean.softmax(1), attacked.softmax(1)
    divergence = (p * (p / q).log()).sum(1).mean()
    assert loss.item() == pytest.approx((F.cross_entropy(clean, y) + 3 * divergence).item(), rel=1e-5)
    assert logits is attacked
    raises = OBJECTIVES["trades"].raises(y, clean)
    assert raises(attacked).item() == pytest.approx(6 * divergence.item(), rel=1e-5)
    assert raises(clean).item() == pytest.approx(0, abs=1e-5)


def test_mixed_weighs_the_two_losses_and_smoothing_is_applied() -> None:
    torch.manual_seed(0)
    clean, attacked, y = torch.randn(6, 4), torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    passes = Passes(clean=lambda x: clean, adversarial=lambda x: attacked)
    loss, _ = OBJECTIVES["mixed"].loss(passes, y, y, y, _regime(loss="mixed", adversarial_weight=0.25), 0.1)
    parts = [F.cross_entropy(logits, y, label_smoothing=0.1) for logits in (clean, attacked)]
    assert loss.item() == pytest.approx((0.75 * parts[0] + 0.25 * parts[1]).item(), rel=1e-6)


@pytest.mark.parametrize("loss", ["mixed", "trades"])
def test_losses_with_a_clean_part_train(loss: str) -> None:
    outcome = trained(_regime(loss=loss), None, epochs=4)
    assert (outcome.log[-1].loss or math.inf) < (outcome.log[0].loss or 0.0)


@pytest.mark.parametrize("attack", ["pgd", "fgsm", "r-fgsm"])
def test_every_crafting_trains(attack: str) -> None:
    outcome = trained(_regime(), None, attack=attack, epochs=4)
    assert (outcome.log[-1].loss or math.inf) < (outcome.log[0].loss or 0.0)
    assert outcome.facts["attack"] == attack


def test_awp_moves_each_weight_by_gamma_of_its_norm_and_puts_it_back_exactly() -> None:
    weight = torch.nn.Parameter(torch.randn(4, 3))
    before = weight.detach().clone()
    grad = torch.randn(4, 3)
    with perturbed([weight], [grad], 0.1):
        step = weight.detach() - before
        assert step.norm().item() == pytest.approx(0.1 * before.norm().item(), rel=1e-4)
        assert F.cosine_similarity(step.flatten(), grad.flatten(), dim=0).item() == pytest.approx(1, abs=1e-5)
    assert torch.equal(weight.detach(), before)


def test_awp_counts_no_batch_twice() -> None:
    outcome = trained(_regime(awp=Awp(gamma=0.05, part=("group:block3",))), None, epochs=1)
    assert int(outcome.last.network.get_buffer("bn.num_batches_tracked")) == 64 // 24
    assert not _equal(outcome.last, trained(_regime(), None, epochs=1).last)


def test_progress_runs_from_none_to_all() -> None:
    ticks: list[Tick] = []
    train(_regime(), dataset=digits(), settings=settings(), architecture=ARCHITECTURE, progress=ticks.append)
    done = [tick.done for tick in ticks]
    assert done == sorted(done)
    assert done[-1] == 1.0
    assert [tick.row.epoch for tick in ticks if tick.row is not None] == [1, 2, 3]


def test_the_log_is_one_line_an_epoch(tmp_path: Path) -> None:
    outcome = trained(_regime(), None)
    lines = write_log(tmp_path / "log.csv", outcome.log).read_text().splitlines()
    assert lines[0].startswith("epoch,phase,learning_rate,loss,train_acc,validation_clean_acc,validation_robust_acc")
    assert [line.split(",")[0] for line in lines[1:]] == ["1", "2", "3"]


def test_bfloat16_passes_move_float32_weights() -> None:
    low, full = (trained(_regime(), None, epochs=1, precision=precision) for precision in ("bf16", "fp32"))
    assert {value.dtype for name, value in tensors(low.last).items() if "num_batches" not in name} == {torch.float32}
    assert not _equal(low.last, full.last)
    assert low.facts["precision"] == "bf16"
    far = (tensors(low.last)["conv1.weight"] - tensors(full.last)["conv1.weight"]).abs().max()
    assert float(far) < 0.05


def test_another_normalization_of_the_parent_is_another_run(tmp_path: Path) -> None:
    start = parent(tmp_path)
    renormalised = models.build(
        ARCHITECTURE, classes=10, shape=start.model.shape, normalization=Normalization((0.3,), (0.5,))
    )
    renormalised.network.load_state_dict(start.model.network.state_dict())
    other = dataclasses.replace(start, model=renormalised)
    prints = [
        plan(
            regimes.get("bn-ft"),
            settings(),
            digits(),
            architecture=None,
            parent=point,
            device=torch.device("cpu"),
        ).fingerprint
        for point in (start, other, start)
    ]
    assert prints[0] == prints[2] != prints[1]
