"""What holds for every input: radii, norms, suites and results, on values that nobody chose."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import suites
from harness.errors import HarnessError, ResultError
from harness.results import store
from harness.threat import ThreatModel, norms
from harness.threat.rng import Draws, sample_keys
from tests.results.records import make_result, make_verdicts

SHAPE = (2, 3, 4)
SEEDS = st.integers(0, 2**31)
RADII = st.floats(1e-4, 3.0)
TEXTS = st.text(max_size=30) | st.from_regex(r"[0-9./eE+-]{1,12}", fullmatch=True)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FEW = settings(max_examples=40, deadline=None)


def images(seed: int, n: int = 6) -> torch.Tensor:
    """Values of [0, 1], of which many lie at its ends."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(n, *SHAPE, generator=generator, dtype=torch.float64) * 1.6 - 0.3).clamp(0, 1)


@pytest.mark.parametrize("name", norms.names())
@given(seed=SEEDS, eps=RADII, far=st.floats(0.01, 5))
@FEW
def test_a_projection_is_inside_and_moves_nothing_that_is(name: str, seed: int, eps: float, far: float) -> None:
    norm, x = norms.get(name), images(seed)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed + 1), dtype=x.dtype)
    threat = ThreatModel(name, repr(eps))
    points = threat.project(x + far * noise, x)
    assert bool((norm.size(points - x) <= eps + norm.tolerance(eps) + 1e-9).all())
    assert float(points.min()) >= 0
    assert float(points.max()) <= 1
    torch.testing.assert_close(threat.project(points, x), points, rtol=0, atol=1e-9)
    torch.testing.assert_close(threat.project(x, x), x, rtol=0, atol=0)


@pytest.mark.parametrize("name", norms.names())
@given(seed=SEEDS, eps=RADII)
@FEW
def test_random_points_and_steps_stay_lawful(name: str, seed: int, eps: float) -> None:
    norm, x = norms.get(name), images(seed)
    draws = Draws(sample_keys(x), seed, "properties")
    inside = norm.inside(x, eps, draws, 0)
    assert bool((norm.size(inside - x) <= eps * (1 + 1e-9)).all())
    assert float(inside.min()) >= 0
    assert float(inside.max()) <= 1
    grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)
    # no step of a length gains more than the dual norm says
    step = norm.climb(x, grad, eps) - x
    gained = (step * grad).flatten(1).sum(1)
    assert bool((gained <= eps * norm.dual_size(grad) * (1 + 1e-9) + 1e-12).all())
    assert bool((norm.size(step) <= eps * (1 + 1e-9)).all())


@pytest.mark.parametrize("name", norms.names())
@given(seed=SEEDS, factor=st.floats(0, 50))
@FEW
def test_sizes_are_norms(name: str, seed: int, factor: float) -> None:
    norm = norms.get(name)
    a, b = images(seed) - 0.5, images(seed + 1) - 0.5
    torch.testing.assert_close(norm.size(factor * a), factor * norm.size(a), rtol=1e-9, atol=1e-12)
    assert bool((norm.size(a + b) <= norm.size(a) + norm.size(b) + 1e-9).all())
    # Hölder's inequality
    assert bool(((a * b).flatten(1).sum(1).abs() <= norm.size(a) * norm.dual_size(b) + 1e-9).all())


@given(TEXTS)
@settings(max_examples=300, deadline=None)
def test_an_eps_is_a_number_or_one_sentence(text: str) -> None:
    said = ""
    try:
        radius = ThreatModel("Linf", text).radius
    except HarnessError as error:
        said = str(error)
    if said:
        assert "\n" not in said
        return
    assert math.isfinite(radius)
    assert radius >= 0
    number, _, below = text.replace(" ", "").partition("/")
    assert radius == pytest.approx(float(Fraction(number) / Fraction(below or 1)))


@given(st.integers(0, 255), st.integers(1, 255))
@FEW
def test_fractions_come_back(above: int, below: int) -> None:
    threat = ThreatModel.parse(f"L2:{above}/{below}")
    assert threat.radius == above / below
    assert ThreatModel.parse(f"{threat.norm}:{threat.eps}") == threat


STEPS = st.lists(
    st.fixed_dictionaries(
        {"name": st.text(max_size=8), "attack": st.sampled_from(["pgd", "fgsm", "square", "", "nothing"])},
        optional={"steps": st.integers(-2, 5), "loss": st.sampled_from(["ce", "dlr", "x"]), "restarts": VALUES},
    ),
    max_size=3,
)


@given(steps=STEPS)
@settings(max_examples=80, deadline=None)
def test_a_suite_is_read_or_one_sentence(tmp_path_factory: pytest.TempPathFactory, steps: list[dict[str, Any]]) -> None:
    path = tmp_path_factory.mktemp("suite") / "own.toml"
    lines = [f"[[step]]\n{''.join(f'{k} = {json.dumps(v)}' + chr(10) for k, v in step.items())}" for step in steps]
    path.write_text("\n".join(lines), encoding="utf-8")
    said = ""
    try:
        suite = suites.get(str(path), ThreatModel("Linf", "0.1"))
    except HarnessError as error:
        said = str(error)
    if said:
        assert "\n" not in said
        return
    assert [step.name for step in suite.steps] == [step["name"] for step in steps]


FIELDS = sorted(make_result().model_dump())


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    result = make_result()
    return store.save(result, make_verdicts(result), tmp_path_factory.mktemp("results"))


@given(field=st.sampled_from(FIELDS), value=VALUES)
@settings(max_examples=150, deadline=None)
def test_a_result_with_another_field_is_refused(stored: Path, field: str, value: Any) -> None:
    content = json.loads(stored.read_text(encoding="utf-8"))
    if content[field] == value and type(content[field]) is type(value):
        return
    content[field] = value
    path = stored.with_name("changed.json")
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ResultError) as told:
        store.read(path)
    assert "\n" not in str(told.value)


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_bytes_that_are_no_result_are_refused(stored: Path, content: bytes) -> None:
    path = stored.with_name("bytes.json")
    path.write_bytes(content)
    with pytest.raises(ResultError):
        store.read(path)


def test_a_stored_result_is_read(stored: Path) -> None:
    """Or the tests above would say nothing."""
    assert store.read(stored).checkpoint == "bn_ft"
    assert np.array_equal(store.read_verdicts(stored).index, np.arange(100))
