"""FAB's costs, claims, targets and restarts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from harness.attacks import Attack, Batch, build
from harness.attacks._base import Loss
from harness.audit.kinds import FEWER_TARGETS
from harness.errors import InvalidInput
from harness.threat import ThreatModel
from tests.attacks.test_fab_reference import CLASSES, THREATS, samples, smooth_network
from tests.support import PlainOracle, batch_of, linear_model

STEPS = 30


class SampleOracle(PlainOracle):
    """Counts the passes of each sample: ``forwards [n]``, ``backwards [n]``."""

    def __init__(self, model: nn.Module, n: int) -> None:
        super().__init__(model)
        self.forwards = torch.zeros(n, dtype=torch.long)
        self.backwards = torch.zeros(n, dtype=torch.long)

    def logits(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        self.forwards[rows] += 1
        return super().logits(x, rows)

    def gradient(self, x: Tensor, loss: Loss, rows: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        self.forwards[rows] += 1
        self.backwards[rows] += 1
        return super().gradient(x, loss, rows)


def walk(
    attack: Attack, batch: Batch, model: nn.Module, run: int = 0, *, micro_batch: int = 100
) -> tuple[Tensor, Tensor, SampleOracle]:
    """All points that were checked ``[steps, n, ...]``, who crossed at each ``[steps, n]``, and the passes."""
    oracle = SampleOracle(model, len(batch))
    oracle.micro_batch = micro_batch
    state, _ = attack.start(batch, oracle, run)
    points = []
    for i in range(attack.steps):
        state, proposal = attack.step(batch, state, oracle, i)
        points.append(proposal.points)
    path = torch.stack(points)
    crossed = torch.stack([model(each).argmax(dim=1) != batch.y for each in path])
    return path, crossed, oracle


class Unbeatable(nn.Module):
    """Class 0 leads everywhere, by a little less where the image is bright."""

    def forward(self, x: Tensor) -> Tensor:
        bright = x.flatten(1).mean(dim=1).sigmoid()
        return torch.stack([torch.ones_like(bright), bright, 0.5 * bright], dim=1)


def test_a_sample_that_never_crosses_costs_one_pass_an_iteration() -> None:
    model = Unbeatable()
    x = torch.rand(3, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    batch = batch_of(model, x, torch.zeros(3, dtype=torch.long))
    attack = build("fab", ThreatModel("L2", "0.5"), 3, targeted=True, steps=STEPS)
    _, crossed, oracle = walk(attack, batch, model)
    assert not crossed.any()
    # one gradient an iteration, at the point that the last one checked; the last point needs only a check
    assert oracle.backwards.tolist() == [STEPS] * 3
    assert oracle.forwards.tolist() == [STEPS + 1] * 3


@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.norm)
def test_with_perfect_guesses_no_pass_is_wasted(threat: ThreatModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every iteration needs one gradient; a crossing costs one forward pass more, the check itself."""
    model = smooth_network()
    batch = samples(model)
    attack = build("fab", threat, CLASSES, targeted=True, steps=STEPS)
    _, crossed, _ = walk(attack, batch, model)
    answers = iter(crossed)
    monkeypatch.setattr("harness.attacks.fab.guess", lambda state: next(answers))
    _, _, oracle = walk(attack, batch, model)
    assert oracle.backwards.tolist() == [STEPS] * len(batch)
    assert oracle.forwards.tolist() == (STEPS + 1 + crossed[:-1].sum(dim=0)).tolist()


def test_guesses_save_most_of_what_can_be_saved() -> None:
    """Fewer mistakes than with either answer always given, although these samples oscillate."""
    model = smooth_network()
    batch = samples(model)
    attack = build("fab", ThreatModel("L1", "0.1"), CLASSES, targeted=True, steps=100)
    _, crossed, oracle = walk(attack, batch, model)
    # a gradient at a crossing is a mistake, and so is a check that has to be repeated with a gradient
    wasted = int(oracle.backwards.sum()) - crossed.numel()
    repeated = int(oracle.forwards.sum()) - wasted - crossed.numel() - len(batch) - int(crossed[:-1].sum())
    assert wasted + repeated < 0.5 * min(int(crossed.sum()), int((~crossed).sum()))


@pytest.mark.parametrize("targeted", [True, False], ids=["targeted", "untargeted"])
@pytest.mark.parametrize("answer", [True, False], ids=["all-cross", "none-cross"])
@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.norm)
def test_guesses_decide_nothing(
    threat: ThreatModel, answer: bool, targeted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = smooth_network()
    batch = samples(model)
    attack = build("fab", threat, CLASSES, targeted=targeted, steps=STEPS)
    expected, *_ = walk(attack, batch, model)
    monkeypatch.setattr("harness.attacks.fab.guess", lambda state: torch.full_like(state["fresh"], answer))
    path, *_ = walk(attack, batch, model)
    torch.testing.assert_close(path, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.norm)
def test_gradients_of_all_classes_are_asked_in_pieces(threat: ThreatModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model = smooth_network()
    batch = samples(model)
    attack = build("fab", threat, CLASSES, targeted=False, steps=STEPS)
    sizes: list[int] = []
    asked = PlainOracle.gradients

    def counted(self: PlainOracle, x: Tensor, *rest: object) -> tuple[Tensor, Tensor, Tensor]:
        sizes.append(len(x))
        return asked(self, x, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(PlainOracle, "gradients", counted)
    paths = []
    for micro_batch in (100, 3):
        sizes.clear()
        paths.append(walk(attack, batch, model, micro_batch=micro_batch)[0])
        assert max(sizes) == (3 if micro_batch == 3 else len(batch))
    torch.testing.assert_close(paths[1], paths[0], rtol=0, atol=1e-9)


@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.norm)
def test_samples_may_leave(threat: ThreatModel) -> None:
    """Those that stay walk on as if nobody had left."""
    model = smooth_network()
    batch = samples(model)
    attack = build("fab", threat, CLASSES, targeted=True, steps=STEPS)
    expected, *_ = walk(attack, batch, model)
    oracle = PlainOracle(model)
    stay = torch.tensor([4, 1])
    state, _ = attack.start(batch, oracle, 0)
    for i in range(STEPS):
        state, proposal = attack.step(batch, state, oracle, i)
        if i == 10:
            batch, state = batch.rows(stay), {name: value[stay] for name, value in state.items()}
    torch.testing.assert_close(proposal.points, expected[-1, stay], rtol=0, atol=1e-9)


@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.norm)
def test_claims_are_misclassified_and_within_eps(threat: ThreatModel) -> None:
    model = smooth_network()
    batch = samples(model)
    loose = ThreatModel(threat.norm, str(200 * threat.radius))
    attack = build("fab", loose, CLASSES, targeted=True, steps=STEPS)
    oracle = PlainOracle(model)
    state, proposal = attack.start(batch, oracle, 0)
    assert not proposal.claimed.any()
    claims = 0
    for i in range(STEPS):
        state, proposal = attack.step(batch, state, oracle, i)
        wrong = model(proposal.points).argmax(dim=1) != batch.y
        near = loose.distance(proposal.points, batch.x) <= loose.radius
        assert proposal.claimed.equal(wrong & near)
        assert bool(((proposal.points >= 0) & (proposal.points <= 1)).all())
        claims += int(proposal.claimed.sum())
    assert 0 < claims < STEPS * len(batch)


@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.norm)
def test_later_restarts_begin_half_of_eps_away(threat: ThreatModel) -> None:
    model = smooth_network()
    batch = samples(model)
    batch = Batch(batch.x * 0.5 + 0.25, batch.y, batch.logits, batch.draws)
    attack = build("fab", threat, CLASSES, targeted=True, targets=2, restarts=3)
    starts = []
    for run in range(attack.runs):
        at = Batch(batch.x, batch.y, batch.logits, batch.draws.at(run))
        starts.append(attack.start(at, PlainOracle(model), run)[0]["x"])
    distances = torch.stack([threat.distance(start, batch.x) for start in starts])
    half = torch.full((len(batch),), 0.5 * threat.radius, dtype=torch.float64)
    for run, distance in enumerate(distances):
        # the runs of a target stand together; the first of them begins at the clean image
        torch.testing.assert_close(distance, half * (run % 3 > 0), rtol=1e-9, atol=0)
    assert not starts[1].equal(starts[2])
    assert not starts[1].equal(starts[4])


def test_targets_are_the_likeliest_other_classes() -> None:
    model = smooth_network()
    batch = samples(model)
    attack = build("fab", THREATS[0], CLASSES, targeted=True, restarts=2)
    aims = [attack.start(batch, PlainOracle(model), run)[0]["target"] for run in range(attack.runs)]
    order = batch.logits.argsort(dim=1, descending=True)[:, 1:]
    expected = [order[:, run // 2] for run in range(attack.runs)]
    assert torch.stack(aims).equal(torch.stack(expected))


def test_few_classes_mean_few_targets_and_a_note() -> None:
    attack = build("fab", THREATS[0], 3, targeted=True)
    assert attack.runs == 2
    assert attack.flags == (FEWER_TARGETS(asked=9, used=2, classes=3),)
    assert build("fab", THREATS[0], 3, targeted=False).flags == ()
    assert build("fab", THREATS[0], 10, targeted=True).flags == ()


@pytest.mark.parametrize("targeted", [True, False], ids=["targeted", "untargeted"])
@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.norm)
def test_two_classes_suffice(threat: ThreatModel, targeted: bool) -> None:
    model = linear_model(2, (3, 4, 4))
    x = torch.rand(4, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    batch = batch_of(model, x, model(x).argmax(dim=1))
    attack = build("fab", threat, 2, targeted=targeted, steps=STEPS)
    path, crossed, _ = walk(attack, batch, model)
    assert bool(crossed.any(dim=0).all())
    assert bool(path.isfinite().all())


@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.norm)
def test_a_flat_model_is_left_alone(threat: ThreatModel) -> None:
    """No gradient anywhere: float32 stays finite, nothing is claimed."""
    model = linear_model(3, (3, 4, 4), dtype=torch.float32)
    model[1].weight.zero_()
    x = torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    batch = batch_of(model, x, model(x).argmax(dim=1))
    for targeted in (True, False):
        path, crossed, _ = walk(build("fab", threat, 3, targeted=targeted, steps=5), batch, model)
        torch.testing.assert_close(path, x.expand_as(path))
        assert not crossed.any()


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"restarts": 0}, {"targets": 0}, {"alpha_max": 1.5}, {"eta": 0.9}, {"beta": -0.1}]
)
def test_parameters_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(wrong))):
        build("fab", THREATS[0], 10, **wrong)


def test_one_class_cannot_be_left() -> None:
    with pytest.raises(InvalidInput, match="2 classes"):
        build("fab", THREATS[0], 1)
