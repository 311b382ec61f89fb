"""A curve is made of ordinary evaluations, and FAB's distances are those of the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import harness
from harness import checkpoints, datasets, evaluation
from harness.errors import InvalidInput
from harness.results import store
from harness.suites import Step, Suite
from harness.threat import ThreatModel
from tests.support import linear_model

pytestmark = pytest.mark.usefixtures("unaudited")

FAB = Suite("own-fab", (Step("fab-t", "fab", {"targeted": True, "targets": 4, "steps": 20}),))
FGSM = Suite("own-fgsm", (Step("fgsm", "fgsm"),))


def samples(n: int = 12) -> tuple[Tensor, Tensor, torch.nn.Module]:
    model = linear_model(5, (1, 4, 4), dtype=torch.float32)
    x = 0.45 + 0.1 * torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    return x, model(x).argmax(dim=1), model


def nearest(model: torch.nn.Module, x: Tensor, order: float) -> Tensor:
    """The distance to the nearest boundary of a linear model, in closed form: its box is far away."""
    layer = model[1]  # type: ignore[index]
    logits = model(x)
    true = logits.argmax(dim=1)
    gaps = logits.gather(1, true[:, None]) - logits
    slopes = layer.weight[true][:, None] - layer.weight[None]
    distances = gaps / slopes.norm(p=order, dim=2).clamp(min=1e-12)
    return distances.scatter(1, true[:, None], torch.inf).amin(dim=1)


@pytest.mark.parametrize(("norm", "dual"), [("Linf", 1.0), ("L2", 2.0)])
def test_the_distances_of_a_linear_model(norm: str, dual: float) -> None:
    x, y, model = samples()
    y[0] = (y[0] + 1) % 5  # wrong without attack
    plan = evaluation.plan_model(model, x, y, threat=(norm, 0.001), suite=FAB, workers=1)
    found = evaluation.smallest_distances(plan)
    assert found is not None
    assert found[0] == 0
    wanted = nearest(model, x, dual).numpy()[1:]
    np.testing.assert_array_less(wanted * 0.999, found[1:])
    np.testing.assert_array_less(found[1:], wanted * 1.1)


def test_a_suite_that_seeks_no_nearest_example_has_no_distances() -> None:
    x, y, model = samples(3)
    for suite in (FGSM, "autoattack-reference"):
        plan = evaluation.plan_model(model, x, y, threat="Linf:0.1", suite=suite, workers=1)
        assert evaluation.smallest_distances(plan) is None


def test_a_curve_of_any_model() -> None:
    x, y, model = samples()
    wanted = nearest(model, x, 1.0).numpy()
    radii = [0.0, float(np.median(wanted)), float(wanted.max() * 1.3), float(wanted.min() / 2)]
    curve = harness.curve(model, x, y, eps=radii, norm="Linf", suite=FAB, workers=1)
    assert [point.robust for point in curve.points[:2]] == [12, 12]
    assert curve.points[-1].robust == 0
    assert 4 <= curve.points[2].robust <= 8
    assert curve.median_distance == pytest.approx(np.sort(wanted)[5], rel=0.1)
    assert harness.curve(model, x, y, eps=radii, norm="Linf", suite=FAB, workers=1, distances=False).distances is None


def test_each_radius_is_an_ordinary_result(tmp_path: Path) -> None:
    point, data = checkpoints.load("natural"), datasets.load("digits", limit=30)
    asked = {"suite": "fgsm", "workers": 1}
    plan = evaluation.plan_checkpoint(point, data, threat="Linf:0.15", **asked)
    before = evaluation.obtain(plan, tmp_path)
    curve = harness.curve(point, data, eps=["0.15", "0.05"], results=tmp_path, **asked)
    assert [one.eps for one in curve.points] == ["0", "0.05", "0.15"]
    assert curve.points[2].evaluation_id == before.result.evaluation_id
    stored = store.read_all(tmp_path).results
    assert len(stored) == 2
    assert all(result.adversarial is not None for _, result in stored)
    again = harness.curve(point, data, eps=["0.15", "0.05"], results=tmp_path, **asked)
    assert again.points == curve.points
    assert len(store.read_all(tmp_path).results) == 2


def test_radii_that_make_no_curve() -> None:
    x, y, model = samples(3)
    for eps, words in (([], "above 0"), ([0, "0"], "above 0"), (["8/255", 8 / 255], "are the same")):
        with pytest.raises(InvalidInput, match=words):
            harness.curve(model, x, y, eps=eps, norm="Linf", suite=FGSM)
    with pytest.raises(InvalidInput, match="no norm is known"):
        harness.curve(model, x, y, eps=["0.1"], suite=FGSM)
    assert [threat.eps for threat in evaluation.ascending([ThreatModel("Linf", e) for e in ("0.2", "0", "0.1")])] == [
        "0.1",
        "0.2",
    ]
