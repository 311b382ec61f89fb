"""Linear CKA against its definition, and what it must and must not be invariant to."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from harness.errors import InvalidInput
from harness.representations import linear_cka, represent


def noise(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_definition(x: Tensor, y: Tensor) -> float:
    """HSIC with the centring matrix written out, as in the paper."""
    n = len(x)
    centring = torch.eye(n, dtype=torch.float64) - 1 / n
    k, l = (centring @ (z.double() @ z.double().T) @ centring for z in (x, y))  # noqa: E741
    return float((k * l).sum() / ((k * k).sum().sqrt() * (l * l).sum().sqrt()))


def rotation(d: int) -> Tensor:
    return torch.linalg.qr(noise(d, d, 9))[0]


# fewer features than samples, more, and as many: each way of computing it meets each other
WIDTHS = [3, 40, 41, 300, 5000]


@pytest.mark.parametrize("first", WIDTHS)
@pytest.mark.parametrize("second", WIDTHS)
def test_it_is_the_definition(first: int, second: int) -> None:
    x, y = noise(40, first, 1), noise(40, second, 2) + 3
    assert linear_cka(x, y) == pytest.approx(by_definition(x, y), rel=1e-9)
    assert linear_cka(x, y) == pytest.approx(linear_cka(y, x), rel=1e-12)


@pytest.mark.parametrize("d", WIDTHS)
def test_a_representation_and_itself(d: int) -> None:
    x = noise(40, d)
    assert linear_cka(x, x) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("d", [3, 40, 300])
def test_rotation_scale_shift_and_order_of_features_do_not_matter(d: int) -> None:
    x, y = noise(40, d, 1), noise(40, 17, 2)
    for other in (x @ rotation(d), 7.5 * x, -x, x + noise(1, d, 5), x[:, torch.randperm(d)]):
        assert linear_cka(x, other) == pytest.approx(1, abs=1e-9)
        assert linear_cka(other, y) == pytest.approx(linear_cka(x, y), rel=1e-9)


def test_a_general_linear_map_matters() -> None:
    x = noise(40, 10)
    stretched = x * torch.tensor([30.0] + [1.0] * 9)
    assert linear_cka(x, stretched) < 0.7


def test_samples_belong_together() -> None:
    x = noise(200, 5)
    assert linear_cka(x, x.flip(0)) < 0.1


def test_unrelated_representations() -> None:
    assert linear_cka(noise(2000, 3, 1), noise(2000, 3, 2)) < 0.01


def test_everything_behind_the_first_dimension_is_a_feature() -> None:
    x = noise(30, 24)
    assert linear_cka(x.reshape(30, 2, 3, 4), x) == pytest.approx(1)


def test_float32_features_are_compared_in_double() -> None:
    x = noise(50, 200).float() + 1000  # a mean that would swallow the rest
    assert represent(x).content.dtype == torch.float64
    assert linear_cka(x, x.double()) == pytest.approx(1, abs=1e-12)


def test_what_is_kept_is_the_smaller() -> None:
    assert represent(noise(40, 300)).content.shape == (40, 40)
    assert represent(noise(40, 3)).content.shape == (40, 3)


def test_of_a_constant_representation_nothing_can_be_said() -> None:
    for d in (3, 300):
        assert math.isnan(linear_cka(torch.ones(40, d), noise(40, 5)))
        assert math.isnan(linear_cka(noise(40, 5), torch.ones(40, d)))


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (torch.rand(4, 3), torch.rand(5, 3), "same samples, got 4 and 5"),
        (torch.rand(1, 3), torch.rand(1, 3), "at least two samples"),
        (torch.rand(4), torch.rand(4), r"got shape \[4\]"),
        (torch.full((4, 3), math.nan), torch.rand(4, 3), "NaN"),
    ],
)
def test_what_cannot_be_compared(x: Tensor, y: Tensor, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        linear_cka(x, y)


def debiased_by_definition(x: Tensor, y: Tensor) -> float:
    """Song et al. 2012, equation 5: products without their diagonals, of features that nobody centred."""
    n = len(x)
    ones = torch.ones(n, dtype=torch.float64)

    def hsic(a: Tensor, b: Tensor) -> Tensor:
        k, l = ((z.double() @ z.double().T).fill_diagonal_(0) for z in (a, b))  # noqa: E741
        mean = (ones @ k @ ones) * (ones @ l @ ones) / ((n - 1) * (n - 2))
        return (torch.trace(k @ l) + mean - 2 / (n - 2) * (ones @ k @ l @ ones)) / (n * (n - 3))

    return float(hsic(x, y) / (hsic(x, x) * hsic(y, y)).sqrt())


@pytest.mark.parametrize("first", WIDTHS)
@pytest.mark.parametrize("second", WIDTHS)
def test_debiased_is_its_definition(first: int, second: int) -> None:
    x = noise(40, first, 1) + 2
    y = noise(40, second, 2) + x[:, :1]
    assert linear_cka(x, y, debiased=True) == pytest.approx(debiased_by_definition(x, y), rel=1e-7)


def test_debiased_does_not_find_likeness_where_there_is_none() -> None:
    x, y = noise(50, 5000, 1), noise(50, 5000, 2)
    assert linear_cka(x, y) > 0.9
    assert abs(linear_cka(x, y, debiased=True)) < 0.05
    assert linear_cka(x, 3 - 2 * x, debiased=True) == pytest.approx(1)


def test_debiased_needs_four_samples() -> None:
    with pytest.raises(InvalidInput, match="at least 4"):
        linear_cka(noise(3, 5), noise(3, 5), debiased=True)
