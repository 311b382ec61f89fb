"""PGD and FGSM: where they start, how they step, what they cost, and that more is never less."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from harness.attacks import build
from harness.attacks import pgd as pgd_module
from harness.attacks._cycles import fingerprints
from harness.audit.kinds import LOSS_REPLACED
from harness.errors import InvalidInput, UnknownName
from harness.evaluation import Evaluation, examine
from harness.suites import Step, Suite
from harness.threat import ThreatModel, norms
from harness.threat.rng import Draws, sample_keys
from tests.attacks.networks import broken, network, samples
from tests.support import PlainOracle, drive

# radii at which some samples of the network fall and some stand
THREATS = {norm: ThreatModel(norm, eps) for norm, eps in {"Linf": "0.04", "L2": "0.25", "L1": "1.2"}.items()}


@pytest.mark.parametrize("norm", norms.names())
def test_random_starts_fill_the_ball_evenly(norm: str) -> None:
    x = 0.4 + 0.2 * torch.rand(2000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    delta = norms.get(norm).inside(x, 0.1, Draws(sample_keys(x), 0, "start"), 0) - x
    size = norms.get(norm).size(delta)
    assert size.max() <= 0.1 + 1e-12
    # the volume within half the radius is an eighth in three dimensions
    assert float((size < 0.05).double().mean()) == pytest.approx(1 / 8, abs=0.025)
    assert float((delta > 0).double().mean()) == pytest.approx(0.5, abs=0.025)
    assert delta.mean(dim=0).abs().max() < 0.004


@pytest.mark.parametrize("norm", norms.names())
def test_random_starts_are_images(norm: str) -> None:
    x = torch.zeros(20, 3, 4, 4, dtype=torch.float64)
    start = norms.get(norm).inside(x, 2.0, Draws(sample_keys(x), 0, "start"), 0)
    assert start.min() >= 0
    assert start.max() <= 1


@pytest.mark.parametrize("norm", norms.names())
def test_a_step_gains_what_the_dual_norm_says(norm: str) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.full((5, 3, 4, 4), 0.5, dtype=torch.float64)
    grad = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    moved = norms.get(norm).climb(x, grad, 0.1) - x
    assert torch.allclose(norms.get(norm).size(moved), torch.full((5,), 0.1, dtype=torch.float64))
    assert torch.allclose((moved * grad).flatten(1).sum(1), 0.1 * norms.get(norm).dual_size(grad))


def test_an_l1_step_passes_over_values_without_room() -> None:
    x = torch.tensor([[1.0, 0.9, 0.5, 0.0]], dtype=torch.float64)
    grad = torch.tensor([[4.0, 3.0, -2.0, -5.0]], dtype=torch.float64)
    moved = norms.get("L1").climb(x, grad, 0.4)
    assert torch.allclose(moved, torch.tensor([[1.0, 1.0, 0.2, 0.0]], dtype=torch.float64))


def test_an_l1_step_of_a_large_image_is_spread() -> None:
    x = torch.full((1, 3, 20, 20), 0.5, dtype=torch.float64)
    grad = torch.rand(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    moved = norms.get("L1").climb(x, grad, 0.6) - x
    assert int((moved != 0).sum()) == 12
    assert float(moved.max()) == pytest.approx(0.05)


def test_fgsm_is_one_signed_step_of_eps() -> None:
    model = network()
    batch = samples(model)
    claimed, points = drive(build("fgsm", THREATS["Linf"], 6), model, batch)
    x = batch.x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(torch.nn.functional.cross_entropy(model(x), batch.y, reduction="sum"), x)
    expected = (batch.x + 0.04 * grad.sign()).clamp(0, 1)
    assert 0 < claimed.sum() < len(batch)
    assert torch.allclose(points[claimed], expected[claimed], atol=1e-12)
    assert torch.equal(claimed, model(expected).argmax(dim=1) != batch.y)


@pytest.mark.parametrize("norm", norms.names())
@pytest.mark.parametrize("name", ["pgd", "fgsm"])
def test_claims_are_adversarial_examples(name: str, norm: str) -> None:
    model = network(dtype=torch.float32)
    batch = samples(model)
    parameters = {"steps": 20, "restarts": 2} if name == "pgd" else {"random_start": True}
    claimed, points = drive(build(name, THREATS[norm], 6, **parameters), model, batch)
    assert 0 < claimed.sum() < len(batch)
    threat = THREATS[norm]
    assert (threat.distance(points, batch.x) <= threat.radius + threat.tolerance).all()
    assert points.min() >= 0
    assert points.max() <= 1
    assert (model(points).argmax(dim=1) != batch.y)[claimed].all()


def test_a_run_costs_one_forward_pass_more_than_its_steps() -> None:
    model = network()
    batch = samples(model, 5)
    attack = build("pgd", THREATS["Linf"], 6, steps=7, restarts=1)
    oracle = PlainOracle(model)
    state, _ = attack.start(batch, oracle, 0)
    for i in range(attack.steps):
        state, _ = attack.step(batch, state, oracle, i)
    assert (oracle.forward, oracle.backward) == (5 * 8, 5 * 7)


@pytest.mark.parametrize("norm", norms.names())
def test_more_restarts_break_no_less(norm: str) -> None:
    model = network()
    batch = samples(model)
    # a restart draws the same numbers whatever follows it, so this holds exactly
    found = [broken(build("pgd", THREATS[norm], 6, steps=4, restarts=k), model, batch) for k in (1, 2, 4)]
    for fewer, more in pairwise(found):
        assert not (fewer & ~more).any()


@pytest.mark.parametrize("norm", norms.names())
def test_more_steps_of_one_size_break_no_less(norm: str) -> None:
    model = network()
    batch = samples(model)
    threat = THREATS[norm]
    # the first steps of a longer run are the shorter run, so this holds exactly
    attacks = [build("pgd", threat, 6, steps=k, restarts=1, step_size=threat.radius / 5) for k in (1, 3, 12)]
    found = [broken(attack, model, batch) for attack in attacks]
    for fewer, more in pairwise(found):
        assert not (fewer & ~more).any()
    assert found[-1].sum() > found[0].sum()


@pytest.mark.parametrize("norm", norms.names())
def test_a_larger_eps_breaks_no_less(norm: str) -> None:
    model = network()
    batch = samples(model)
    # no theorem: an ascent may miss at a larger radius what it found at a smaller one; it does not here
    radii = [THREATS[norm].radius * factor for factor in (0.5, 1.0, 2.0)]
    counts = [int(broken(build("pgd", ThreatModel(norm, repr(r)), 6, steps=20), model, batch).sum()) for r in radii]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


def test_two_classes_raise_the_margin_for_dlr_and_say_so() -> None:
    attack = build("pgd", THREATS["Linf"], 2, loss="dlr", steps=10)
    assert attack.flags == (LOSS_REPLACED(needed=3, classes=2),)
    model = network(2)
    assert broken(attack, model, samples(model)).any()
    assert build("pgd", THREATS["Linf"], 3, loss="dlr").flags == ()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"steps": 0}, "PGD's steps must be a whole number of at least 1, got 0"),
        ({"restarts": 1.5}, "the attack pgd's restarts must be a whole number, got 1.5"),
        ({"step_size": 0.0}, "PGD's step_size must be positive and finite, got 0.0"),
        ({"step_size": float("nan")}, "the attack pgd's step_size must be a finite number or none, got nan"),
        ({"random_start": False}, "PGD without random starts repeats itself: set restarts to 1, got 5"),
    ],
)
def test_refuses(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        build("pgd", THREATS["Linf"], 10, **parameters)
    assert str(refusal.value) == message


def test_refuses_an_unknown_loss_and_a_single_class() -> None:
    with pytest.raises(UnknownName, match=r"unknown loss 'dlr-target': expected one of ce, dlr, margin"):
        build("pgd", THREATS["Linf"], 10, loss="dlr-target")
    with pytest.raises(InvalidInput, match="at least 2 classes, got 1"):
        build("fgsm", THREATS["Linf"], 1)


def test_fingerprints_tell_points_apart() -> None:
    x = torch.rand(50, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    marks = {*fingerprints(x, x).tolist()}
    changed = x.clone()
    changed[:, 0, 0, 0] = torch.nextafter(changed[:, 0, 0, 0], torch.tensor(2.0))
    marks |= {*fingerprints(changed, x).tolist(), *fingerprints(x, changed).tolist()}
    marks |= {*fingerprints(x.flip(3), x).tolist(), *fingerprints(-x, x).tolist(), *fingerprints(x, -x).tolist()}
    # two signs at once
    signs = x.clone()
    signs[:, 1, :2, 2] *= -1
    marks |= {*fingerprints(signs, x).tolist(), *fingerprints(signs, signs).tolist()}
    assert len(marks) == 8 * 50
    assert fingerprints(x[3:5], x[3:5]).tolist() == fingerprints(x, x)[3:5].tolist()


@pytest.mark.parametrize("norm", norms.names())
def test_a_run_that_repeats_itself_ends_and_no_verdict_changes(norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network().float()
    batch = samples(model)
    threat = THREATS[norm]
    suite = Suite("coarse", (Step("pgd", "pgd", {"steps": 60, "restarts": 2, "step_size": threat.radius}),))

    def done() -> Evaluation:
        return examine(model, batch.x.float(), batch.y, threat=threat, suite=suite, workers=1, deterministic=True)

    short = done()
    monkeypatch.setattr(pgd_module, "occurs", lambda seen, marks: torch.zeros(len(marks), dtype=torch.bool))
    long = done()
    assert short.result.steps[0].forward < (1 if norm == "Linf" else 1.01) * long.result.steps[0].forward
    assert short.result.steps[0].after == long.result.steps[0].after > 0
    for name in ("robust", "broken_by", "adv_pred"):
        assert np.array_equal(getattr(short.verdicts, name), getattr(long.verdicts, name)), name
    assert torch.equal(short.points, long.points)
