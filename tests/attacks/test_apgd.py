"""APGD: its schedule, its targets, what it claims, keeps and costs. Its iterates: `test_apgd_reference`."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from harness.attacks import Attack, Batch, State, build
from harness.attacks._apgd_rules import Momentum, Sparse
from harness.attacks.apgd import _schedule
from harness.audit.flags import Flag
from harness.audit.kinds import FEWER_TARGETS, LOSS_REPLACED
from harness.errors import InvalidInput, UnknownName
from harness.threat import ThreatModel, norms
from tests.attacks.networks import broken, network, samples
from tests.support import PlainOracle, drive

THREATS = {norm: ThreatModel(norm, eps) for norm, eps in {"Linf": "0.04", "L2": "0.25", "L1": "1.2"}.items()}
LARGER = {"loss": "ce", "larger_radii": True}


def run(attack: Attack, model: nn.Module, batch: Batch, steps: int | None = None) -> tuple[State, PlainOracle]:
    oracle = PlainOracle(model)
    state, _ = attack.start(batch, oracle, 0)
    for i in range(attack.steps if steps is None else steps):
        state, _ = attack.step(batch, state, oracle, i)
    return state, oracle


def test_checkpoints_are_those_of_the_paper() -> None:
    windows = Momentum(norms.get("Linf"), 0.75).windows(100)
    assert [at + 1 for at in windows] == [22, 41, 57, 70, 80, 87, 93, 99]
    assert list(windows.values()) == [22, 19, 16, 13, 10, 7, 6, 6]


def test_the_first_window_of_a_run_is_judged_leniently() -> None:
    """As the reference does: the first loss counts as a rise over 0, and no progress at all is forgiven once."""
    rule = Momentum(norms.get("Linf"), 0.75)
    x = torch.zeros(1, 3)
    state = {"point": x, "best_loss": torch.tensor([5.0])}
    rule.begin(state, x, 0.1, warm=False)
    # 3 is below the 5 of the start, so only three of the four steps were rises, and none a new best
    for loss in (3.0, 3.5, 4.0):
        assert rule.learn(state, x, 0.1, torch.tensor([loss]), 0) is None
    back = rule.learn(state, x, 0.1, torch.tensor([4.5]), 4)
    assert back is not None
    assert not back.any()
    assert float(state["step_size"]) == pytest.approx(0.2)
    # the second window is as good, but by now the best has stood still for two
    for loss in (4.6, 4.7, 4.8):
        rule.learn(state, x, 0.1, torch.tensor([loss]), 0)
    back = rule.learn(state, x, 0.1, torch.tensor([4.9]), 4)
    assert back is not None
    assert back.all()
    assert float(state["step_size"]) == pytest.approx(0.1)


def test_sparse_checkpoints_are_every_four_per_cent() -> None:
    assert set(Sparse(norms.get("L1"), 0.75).windows(100)) == set(range(3, 100, 4))
    assert set(Sparse(norms.get("L1"), 0.75).windows(40)) == set(range(40))


def test_larger_radii_take_30_30_and_40_per_cent() -> None:
    schedule = _schedule(Sparse(norms.get("L1"), 0.75), 2.0, 100, True)
    assert [now.radius for now in schedule] == [6.0] * 30 + [4.0] * 30 + [2.0] * 40
    assert [i for i, now in enumerate(schedule) if now.first] == [0, 30, 60]
    assert [i for i, now in enumerate(schedule) if now.last] == [29, 59, 99]


def test_targets_are_the_likeliest_other_classes_in_order() -> None:
    model = network()
    batch = samples(model, 9)
    attack = build("apgd", THREATS["Linf"], 6, loss="dlr-targeted", restarts=2, targets=3)
    assert attack.runs == 6
    others = batch.logits.argsort(dim=1, descending=True)[:, 1:]
    targets = [attack.start(batch, PlainOracle(model), number)[0]["target"] for number in range(attack.runs)]
    for number, target in enumerate(targets):
        assert torch.equal(target, others[:, number // 2])


@pytest.mark.parametrize(
    ("classes", "loss", "runs", "flags"),
    [
        (10, "dlr-targeted", 9, ()),
        (4, "dlr-targeted", 3, (FEWER_TARGETS(asked=9, used=3, classes=4),)),
        (
            3,
            "dlr-targeted",
            2,
            (FEWER_TARGETS(asked=9, used=2, classes=3), LOSS_REPLACED(needed=4, classes=3)),
        ),
        (2, "dlr", 1, (LOSS_REPLACED(needed=3, classes=2),)),
        (2, "ce", 1, ()),
    ],
)
def test_few_classes(classes: int, loss: str, runs: int, flags: tuple[Flag, ...]) -> None:
    attack = build("apgd", THREATS["Linf"], classes, loss=loss, steps=20)
    assert attack.runs == runs
    assert attack.flags == flags
    model = network(classes)
    assert broken(attack, model, samples(model)).any()


@pytest.mark.parametrize("larger_radii", [False, True])
@pytest.mark.parametrize("loss", ["ce", "dlr", "dlr-targeted"])
@pytest.mark.parametrize("norm", norms.names())
def test_claims_are_adversarial_examples(norm: str, loss: str, larger_radii: bool) -> None:
    model = network(dtype=torch.float32)
    batch = samples(model)
    threat = THREATS[norm]
    attack = build("apgd", threat, 6, loss=loss, steps=20, targets=2, larger_radii=larger_radii)
    claimed, points = drive(attack, model, batch)
    assert 0 < claimed.sum() < len(batch)
    assert (threat.distance(points, batch.x) <= threat.radius + threat.tolerance).all()
    assert points.min() >= 0
    assert points.max() <= 1
    assert (model(points).argmax(dim=1) != batch.y)[claimed].all()


def test_larger_radii_reach_points_outside_and_do_not_claim_them() -> None:
    model = network()
    batch = samples(model)
    threat = THREATS["L1"]
    attack = build("apgd", threat, 6, **LARGER)
    oracle = PlainOracle(model)
    state, proposal = attack.start(batch, oracle, 0)
    outside = 0
    for i in range(59):
        state, proposal = attack.step(batch, state, oracle, i)
        far = threat.distance(proposal.points, batch.x) > threat.radius
        outside += int((far & (model(proposal.points).argmax(dim=1) != batch.y)).sum())
        assert not (proposal.claimed & far).any()
    assert outside > 0


@pytest.mark.parametrize(
    ("parameters", "forward", "backward"),
    [({}, 22, 20), ({"eot": 3}, 61, 60), (LARGER, 24, 20)],
)
def test_what_a_run_costs(parameters: dict[str, object], forward: int, backward: int) -> None:
    model = network()
    batch = samples(model, 4)
    _, oracle = run(build("apgd", THREATS["L1"], 6, steps=20, **parameters), model, batch)
    assert (oracle.forward, oracle.backward) == (4 * forward, 4 * backward)


@pytest.mark.parametrize("norm", norms.names())
def test_the_state_is_small(norm: str) -> None:
    model = network()
    batch = samples(model, 3)
    state, _ = run(build("apgd", THREATS[norm], 6, loss="dlr-targeted"), model, batch, steps=30)
    assert all(len(value) == 3 for value in state.values())
    assert sum(value.shape == batch.x.shape for value in state.values()) <= 5
    assert all(value.dim() == 1 for value in state.values() if value.shape != batch.x.shape)


@pytest.mark.parametrize("parameters", [{"loss": "ce"}, {"loss": "dlr-targeted"}, LARGER])
@pytest.mark.parametrize("norm", norms.names())
def test_company_does_not_matter(norm: str, parameters: dict[str, object]) -> None:
    """A sample alone from the start, and one whose company leaves half-way, go the same way as in a batch."""
    model = network()
    batch = samples(model, 6)
    attack = build("apgd", THREATS[norm], 6, steps=30, **parameters)
    everyone, _ = run(attack, model, batch)

    chosen = torch.tensor([4, 1])
    few, _ = run(attack, model, batch.rows(chosen))
    assert torch.allclose(few["best"], everyone["best"][chosen], atol=1e-12)

    state, oracle = run(attack, model, batch, steps=13)
    state, rest = {name: value[chosen] for name, value in state.items()}, batch.rows(chosen)
    for i in range(13, 30):
        state, _ = attack.step(rest, state, oracle, i)
    assert torch.allclose(state["best"], everyone["best"][chosen], atol=1e-12)


class Noisy(nn.Module):
    """A network whose weights shake at every pass; its own generator, so that a test can repeat."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, x: Tensor) -> Tensor:
        noise = torch.randn(x.shape, generator=self.generator, dtype=x.dtype)
        logits: Tensor = self.model(x + 0.1 * noise)
        return logits


def test_averaged_gradients_shake_less() -> None:
    model = network()
    batch = samples(model, 8)
    (exact,) = (build("apgd", THREATS["L2"], 6).start(batch, PlainOracle(model), 0)[0]["grad"],)

    def error(eot: int) -> float:
        attack = build("apgd", THREATS["L2"], 6, eot=eot)
        return float((attack.start(batch, PlainOracle(Noisy(model)), 0)[0]["grad"] - exact).norm())

    assert error(25) < 0.5 * error(1)


@pytest.mark.parametrize("norm", norms.names())
def test_more_restarts_and_targets_break_no_less(norm: str) -> None:
    model = network()
    batch = samples(model)
    # a restart draws the same numbers whatever follows it, so these hold exactly
    restarts = [broken(build("apgd", THREATS[norm], 6, steps=5, restarts=k), model, batch) for k in (1, 3)]
    assert not (restarts[0] & ~restarts[1]).any()
    targets = [
        broken(build("apgd", THREATS[norm], 6, steps=5, loss="dlr-targeted", targets=k), model, batch) for k in (1, 4)
    ]
    assert not (targets[0] & ~targets[1]).any()


@pytest.mark.parametrize("norm", norms.names())
def test_more_steps_and_a_larger_eps_break_no_less(norm: str) -> None:
    model = network()
    batch = samples(model)

    def count(factor: float, steps: int) -> int:
        threat = ThreatModel(norm, repr(factor * THREATS[norm].radius))
        return int(broken(build("apgd", threat, 6, steps=steps), model, batch).sum())

    # no theorems: the schedule changes with the steps, and an ascent may miss at a larger radius; not here
    for counts in ([count(3, steps) for steps in (1, 3, 50)], [count(factor, 30) for factor in (0.5, 1, 2)]):
        assert counts == sorted(counts)
        assert counts[0] < counts[-1]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"steps": 0}, "APGD's steps must be a whole number of at least 1, got 0"),
        ({"targets": 0}, "APGD's targets must be a whole number of at least 1, got 0"),
        ({"eot": True}, "the attack apgd's eot must be a whole number, got True"),
        ({"rho": 0.0}, "APGD's rho must be above 0 and at most 1, got 0.0"),
        ({"larger_radii": True, "steps": 2}, "APGD with larger radii needs at least 3 steps, got 2"),
    ],
)
def test_refuses(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        build("apgd", THREATS["L1"], 10, **parameters)
    assert str(refusal.value) == message


def test_refuses_an_unknown_loss() -> None:
    with pytest.raises(UnknownName, match="unknown loss 'hinge': expected one of ce, dlr, dlr-targeted, margin"):
        build("apgd", THREATS["L1"], 10, loss="hinge")
