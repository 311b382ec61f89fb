"""Square Attack spends at most one pass a query, stays in its ball, and treats every sample alone."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import Tensor, nn

from harness.attacks import Attack, Batch, Proposal, State, build
from harness.attacks.square import _BLOCK
from harness.errors import InvalidInput, UnknownName
from harness.threat import ThreatModel
from tests.support import PlainOracle, batch_of, drive, linear_model

THREATS = [ThreatModel("Linf", "0.1"), ThreatModel("L2", "0.8"), ThreatModel("L1", "6")]
# two blocks of draws, and a little
QUERIES = 2 * _BLOCK + 20

per_norm = pytest.mark.parametrize("threat", THREATS, ids=str)


class Network(nn.Module):
    """A fixed network; ``lead`` is added to the logit of class 0."""

    def __init__(self, channels: int, dtype: torch.dtype, lead: float) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(11)
        self.kernel = torch.randn(6, channels, 3, 3, generator=generator, dtype=torch.float64).to(dtype)
        self.head = torch.randn(3, 6 * 16, generator=generator, dtype=torch.float64).to(dtype) / 3
        self.lead = torch.tensor([lead, 0, 0], dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        features = torch.tanh(nn.functional.conv2d(x, self.kernel))
        return nn.functional.adaptive_avg_pool2d(features, 4).flatten(1) @ self.head.T + self.lead


def images(n: int, shape: tuple[int, int, int] = (3, 12, 11), dtype: torch.dtype = torch.float64) -> Tensor:
    """Images with many pixels on the edges of the box, each its own function of its place in the list."""
    rows = [torch.rand(shape, generator=torch.Generator().manual_seed(k), dtype=torch.float64) for k in range(n)]
    return ((torch.stack(rows) - 0.5) * 1.4 + 0.5).clamp(0, 1).to(dtype)


def attacked(x: Tensor, lead: float = 30.0) -> tuple[nn.Module, Batch]:
    model = Network(x.shape[1], x.dtype, lead)
    return model, batch_of(model, x, torch.zeros(len(x), dtype=torch.int64))


def queried(attack: Attack, model: nn.Module, batch: Batch, run: int = 0) -> Tensor:
    """All points that are tried: ``[queries + 1, n, ...]``."""
    oracle = PlainOracle(model)
    at = Batch(batch.x, batch.y, batch.logits, batch.draws.at(run))
    state, proposal = attack.start(at, oracle, run)
    tried = [proposal.points.clone()]
    for i in range(attack.steps):
        state, proposal = attack.step(at, state, oracle, i)
        tried.append(proposal.points.clone())
    return torch.stack(tried)


class Listener(PlainOracle):
    """Keeps the points of the last pass, and whose they were."""

    def logits(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        self.asked = x.clone()
        self.rows = torch.arange(len(x)) if rows is None else rows
        return super().logits(x, rows)


@per_norm
def test_one_forward_pass_a_query_and_none_for_a_point_already_known(threat: ThreatModel) -> None:
    model, batch = attacked(images(3))
    oracle = Listener(model)
    attack = build("square", threat, 3, queries=60)
    state, _ = attack.start(batch, oracle, 0)
    assert (oracle.forward, oracle.backward) == (3, 0)
    for i in range(attack.steps):
        best, spent = state["best"].clone(), oracle.forward
        state, proposal = attack.step(batch, state, oracle, i)
        fresh = (proposal.points.flatten(1) != best).any(dim=1).nonzero().squeeze(1)
        assert (oracle.forward - spent, oracle.backward) == (len(fresh), 0)
        if len(fresh):
            assert torch.equal(oracle.rows, fresh)
            assert torch.equal(oracle.asked, proposal.points[fresh])


@per_norm
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(3, 12, 11), (1, 8, 8), (1, 4, 4), (2, 3, 7)], ids=str)
def test_every_query_lies_in_the_threat_model(
    threat: ThreatModel, dtype: torch.dtype, shape: tuple[int, int, int]
) -> None:
    x = images(4, shape, dtype)
    model, batch = attacked(x)
    points = queried(build("square", threat, 3, queries=QUERIES), model, batch)
    assert points.dtype == dtype
    assert points.isfinite().all()
    assert points.min() >= 0
    assert points.max() <= 1
    eps = threat.radius
    if threat.norm == "Linf":
        assert (points >= x - eps).all()
        assert (points <= x + eps).all()
    rounding = 1e-6 if dtype == torch.float32 else 1e-14
    distances = torch.stack([threat.distance(each, x) for each in points])
    assert (distances <= eps * (1 + rounding)).all()
    # the ball is used: perturbations are not merely small (the box may keep l2 points from the sphere)
    assert (distances.amax(dim=0) > 0.6 * eps).all()


@per_norm
def test_a_sample_s_queries_do_not_depend_on_its_company(threat: ThreatModel) -> None:
    x = images(9)
    attack = build("square", threat, 3, queries=QUERIES)
    model, batch = attacked(x)
    together = queried(attack, model, batch)
    order = torch.tensor([5, 2, 8, 0])
    assert torch.equal(queried(attack, model, batch.rows(order)), together[:, order])
    for alone in (0, 7):
        only = torch.tensor([alone])
        assert torch.equal(queried(attack, model, batch.rows(only)), together[:, only])


@per_norm
def test_samples_and_runs_have_their_own_draws(threat: ThreatModel) -> None:
    model, batch = attacked(images(2))
    attack = build("square", threat, 3, queries=30, restarts=2)
    assert (attack.runs, attack.steps) == (2, 30)
    first, second = (queried(attack, model, batch, run) for run in range(2))
    moved = first - batch.x
    assert (moved[:, 0].sign() != moved[:, 1].sign()).flatten(1).any(dim=1).all()
    assert (first != second).flatten(2).any(dim=2).all()


@per_norm
def test_the_best_loss_never_gets_worse(threat: ThreatModel) -> None:
    model, batch = attacked(images(4))
    oracle = PlainOracle(model)
    attack = build("square", threat, 3, queries=QUERIES)
    state, _ = attack.start(batch, oracle, 0)
    begun = best = state["loss"].clone()
    for i in range(attack.steps):
        state, _ = attack.step(batch, state, oracle, i)
        assert (state["loss"] >= best).all()
        best = state["loss"].clone()
        logits = model(state["best"].view_as(batch.x))
        torch.testing.assert_close(logits[:, 1:].amax(dim=1) - logits[:, 0], best)
    assert (best > begun).all()


@per_norm
@pytest.mark.parametrize("leave_before", [1, _BLOCK - 1, _BLOCK, _BLOCK + 7])
def test_leaving_samples_and_a_restored_state_change_nothing_for_the_rest(
    threat: ThreatModel, leave_before: int
) -> None:
    model, batch = attacked(images(5))
    attack = build("square", threat, 3, queries=_BLOCK + 12)
    undisturbed = queried(attack, model, batch)
    oracle = PlainOracle(model)
    state: State
    state, proposal = attack.start(batch, oracle, 0)
    tried = [proposal.points.clone()]
    staying = torch.tensor([4, 1, 2])
    for i in range(attack.steps):
        if i == leave_before:
            batch = batch.rows(staying)
            assert all(len(each) == 5 for each in state.values())
            state = {name: each[staying] for name, each in state.items()}
            attack, state = pickle.loads(pickle.dumps((attack, state)))
        state, proposal = attack.step(batch, state, oracle, i)
        tried.append(proposal.points.clone())
    for query, points in enumerate(tried):
        expected = undisturbed[query] if query <= leave_before else undisturbed[query, staying]
        assert torch.equal(points, expected)


@per_norm
def test_claims_are_misclassified_points_and_all_of_them_are_claimed(threat: ThreatModel) -> None:
    model, batch = attacked(images(6), lead=2.0)
    batch = batch.rows(batch.logits.argmax(dim=1) == batch.y)
    attack = build("square", threat, 3, queries=QUERIES)
    oracle = PlainOracle(model)

    def check(proposal: Proposal, known: Tensor) -> int:
        fooling = model(proposal.points).argmax(dim=1) != batch.y
        assert torch.equal(proposal.claimed, fooling & (proposal.points.flatten(1) != known).any(dim=1))
        return int(proposal.claimed.sum())

    state, proposal = attack.start(batch, oracle, 0)
    claims = check(proposal, batch.x.flatten(1))
    for i in range(attack.steps):
        best = state["best"].clone()
        state, proposal = attack.step(batch, state, oracle, i)
        claims += check(proposal, best)
    assert claims > 0


@per_norm
def test_a_tie_that_the_model_still_gets_right_is_no_claim(threat: ThreatModel) -> None:
    class Tied(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros(len(x), 3, dtype=x.dtype)

    batch = batch_of(Tied(), images(2), torch.tensor([0, 1]))
    claimed, _ = drive(build("square", threat, 3, queries=5), Tied(), batch)
    assert claimed.tolist() == [False, True]


@per_norm
@pytest.mark.parametrize("loss", ["margin", "ce"])
def test_fools_a_linear_model_well_beyond_its_radius(threat: ThreatModel, loss: str) -> None:
    model = linear_model(2, (1, 10, 10), seed=4)
    x = images(3, (1, 10, 10)) * 0.2 + 0.4
    logits = model(x)
    batch = batch_of(model, x, logits.argmax(dim=1))
    weight = model[1].weight
    radii = (logits[:, 0] - logits[:, 1]).abs() / threat.geometry.dual_size((weight[0] - weight[1])[None])
    reach = ThreatModel(threat.norm, str(6 * radii.max().item()))
    short = ThreatModel(threat.norm, str(0.99 * radii.min().item()))
    assert drive(build("square", reach, 2, queries=1500, loss=loss), model, batch)[0].all()
    assert not drive(build("square", short, 2, queries=300, loss=loss), model, batch)[0].any()


@pytest.mark.parametrize(
    ("parameters", "error", "says"),
    [
        ({"queries": 0}, InvalidInput, "queries must be a whole number of at least 1, got 0"),
        ({"restarts": -1}, InvalidInput, "restarts must be a whole number of at least 1, got -1"),
        ({"p_init": 0.0}, InvalidInput, "p_init above 0 and at most 1, got 0.0"),
        ({"p_init": 1.5}, InvalidInput, "p_init above 0 and at most 1, got 1.5"),
        ({"loss": "dlr"}, UnknownName, "expected one of ce, margin"),
    ],
)
def test_parameters_out_of_range_are_refused(parameters: dict[str, object], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        build("square", THREATS[0], 3, **parameters)


@per_norm
def test_inputs_that_are_no_images_are_refused(threat: ThreatModel) -> None:
    attack = build("square", threat, 3)
    assert attack.unfit((3, 8, 8)) is None
    assert "[n, C, H, W], got inputs of shape [n, 10]" in str(attack.unfit((10,)))


@per_norm
@pytest.mark.parametrize("micro_batch", [8, 12, 64])
def test_candidates_tried_ahead_change_no_search(threat: ThreatModel, micro_batch: int) -> None:
    model, batch = attacked(images(3), lead=6.0)
    attack = build("square", threat, 3, queries=QUERIES)
    alone, together = PlainOracle(model), PlainOracle(model, micro_batch)
    expected, _ = attack.start(batch, alone, 0)
    for i in range(attack.steps):
        expected, _ = attack.step(batch, expected, alone, i)
    state, _ = attack.start(batch, together, 0)
    rounds = 0
    while float(attack.done(state).min()) < 1:
        assert rounds < attack.steps
        state, _ = attack.step(batch, state, together, rounds)
        rounds += 1
    for name in ("best", "loss", "fooled"):
        assert torch.equal(state[name], expected[name]), name
    assert rounds < attack.steps / 1.5
    assert alone.forward <= together.forward < 1.5 * alone.forward


@per_norm
def test_what_is_claimed_ahead_is_what_one_query_after_the_other_claims(threat: ThreatModel) -> None:
    model, batch = attacked(images(5), lead=2.0)
    attack = build("square", threat, 3, queries=60)
    claims = []
    for micro_batch in (1, 40):
        oracle = PlainOracle(model, micro_batch)
        state, proposal = attack.start(batch, oracle, 0)
        seen: list[list[Tensor]] = [[] for _ in range(5)]
        for i in range(attack.steps):
            if float(attack.done(state).min()) == 1:
                break
            state, proposal = attack.step(batch, state, oracle, i)
            for row in proposal.claimed.nonzero().squeeze(1).tolist():
                seen[row].append(proposal.points[row])
        claims.append(seen)
    assert any(claims[0]), "the case must be one"
    for one, other in zip(*claims, strict=True):
        assert len(one) == len(other)
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
