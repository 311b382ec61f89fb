"""Radii that count after the normalisation: converted, never taken for pixel units, and the result says so."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch

import harness
from harness import checkpoints, datasets, evaluation, models
from harness.errors import InvalidInput
from harness.models import Normalization
from harness.threat import ThreatModel
from tests.registry.material import registered, small
from tests.support import linear_model

CIFAR = (0.2471, 0.2435, 0.2616)
GALLOWAY = (0.2023, 0.1994, 0.2010)


def test_the_trap_in_its_own_numbers() -> None:
    """Eps 0.03 after dividing by about 0.2 is about 1.5/255, not 7.65/255."""
    threat = ThreatModel.parse("Linf:0.03@normalized", std=GALLOWAY)
    assert threat.radius * 255 == pytest.approx(1.54, abs=0.01)
    assert ThreatModel.parse("Linf:0.03").radius * 255 == pytest.approx(7.65)


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
@pytest.mark.parametrize("eps", ["0.03", "8/255", "2"])
def test_the_mean_deviation_converts(norm: str, eps: str) -> None:
    threat = ThreatModel.parse(f"{norm}:{eps}@normalized", std=CIFAR)
    assert threat.norm == norm
    assert threat.radius == pytest.approx(float(Fraction(eps)) * sum(CIFAR) / 3, rel=1e-5)
    assert threat.radius == float(threat.eps)


def test_the_note_says_what_was_done() -> None:
    note = ThreatModel.parse("Linf:0.03@normalized", std=CIFAR).note
    for figure in ("eps 0.03", "Linf 0.007522", "0.007305 to 0.007848", "normalised units", "pixel units", "the mean"):
        assert figure in note
    exact = ThreatModel.parse("L2:0.5@normalized", std=(0.4,))
    assert (exact.eps, "exactly" in exact.note, "mean" in exact.note) == ("0.2", True, False)
    assert "exactly" in ThreatModel.parse("L2:0.5@normalized", std=(0.4, 0.4, 0.4)).note


def test_with_equal_deviations_the_ball_is_the_same() -> None:
    threat = ThreatModel.parse("Linf:0.25@normalized", std=(0.4, 0.4, 0.4))
    normalize = models.build(
        "lenet5", classes=2, shape=(3, 16, 16), normalization=Normalization((0.1,) * 3, (0.4,) * 3)
    )
    x = torch.full((1, 3, 16, 16), 0.5)
    corner = threat.project(x + torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).sign(), x)
    moved = normalize.normalize(corner) - normalize.normalize(x)
    torch.testing.assert_close(moved.abs(), torch.full_like(moved, 0.25))


def test_pixel_units_carry_no_note() -> None:
    assert ThreatModel.parse("Linf:8/255", std=CIFAR).note == ""
    threat = ThreatModel.parse("Linf:0.25@normalized", std=(0.4,))
    assert threat == ThreatModel("Linf", "0.1")
    assert str(threat) == "Linf:0.1"
    assert ThreatModel.parse(threat) is threat


@pytest.mark.parametrize(
    ("text", "std", "words"),
    [
        ("Linf:0.03@normalized", None, "no known normalisation"),
        ("Linf:0.03@normalised", CIFAR, "@normalized"),
        ("Linf:0.03@", CIFAR, "@normalized"),
        ("Linf:-1@normalized", CIFAR, "0 or more"),
        ("Linf:@normalized", CIFAR, "0 or more"),
    ],
)
def test_what_cannot_be_converted(text: str, std: tuple[float, ...] | None, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        ThreatModel.parse(text, std=std)


def test_a_checkpoint_is_evaluated_in_pixel_units_with_a_flag(tmp_path: Path) -> None:
    point = checkpoints.load(registered(tmp_path, "own", small()))  # its deviation is 0.4
    data = datasets.load("digits", limit=10)
    done = evaluation.evaluate_checkpoint(point, data, threat="Linf:0.25@normalized", suite="fgsm", workers=1)
    assert (done.result.threat.eps, done.result.threat.radius) == ("0.1", 0.1)
    assert any(str(flag).startswith("eps 0.25 was given in normalised units; Linf 0.1 ") for flag in done.result.flags)
    assert float((done.points - data.x).abs().max()) == pytest.approx(0.1)
    # the same attack, but its record says that the radius was converted
    plain = evaluation.evaluate_checkpoint(point, data, threat="Linf:0.1", suite="fgsm", workers=1).result
    assert done.result.evaluation_id == plain.evaluation_id
    assert done.result.record_id != plain.record_id


def test_a_checkpoint_without_normalisation(tmp_path: Path) -> None:
    model = models.build("digits-resnet", classes=10, shape=(1, 8, 8), seed=0).eval()
    point = checkpoints.load(registered(tmp_path, "bare", model))
    with pytest.raises(InvalidInput, match="no known normalisation"):
        evaluation.evaluate_checkpoint(
            point, datasets.load("digits", limit=4), threat="Linf:0.25@normalized", suite="fgsm"
        )


def test_models_in_python() -> None:
    data = datasets.load("digits", limit=6)
    result = harness.evaluate(small(), data.x, data.y, threat="Linf:0.25@normalized", suite="fgsm", workers=1)
    assert result.threat.eps == "0.1"
    assert result.flags[0].text.startswith("eps 0.25 was given in normalised units")
    x = torch.rand(4, 1, 4, 4, dtype=torch.float64)
    with pytest.raises(InvalidInput, match="no known normalisation"):
        harness.evaluate(
            linear_model(3, (1, 4, 4)), x, torch.tensor([0, 1, 2, 0]), threat="Linf:0.25@normalized", suite="fgsm"
        )
