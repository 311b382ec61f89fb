"""Robust accuracy against the radius never rises, and its figures are what they say."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import harness
from harness.errors import InvalidInput
from harness.results import formats, store
from harness.results.curve import Curve, curve_of
from harness.results.curve_files import curve_picture, curve_table
from harness.results.record import Result, Verdicts
from tests.results.records import make_result, make_verdicts

Evaluated = tuple[Result, Verdicts]


def at(eps: str, *survivors: int, label: str = "bn_ft") -> Evaluated:
    """An evaluation of ten samples, all right without attack, of which these survive."""
    result = make_result(label, n=10, clean=10, robust=len(survivors), size=10, threat=f"Linf:{eps}", weights="w" * 64)
    verdicts = make_verdicts(result)
    robust = np.isin(verdicts.index, survivors)
    return result, replace(
        verdicts,
        robust=robust,
        broken_by=np.where(robust, -1, 0),
        adv_pred=np.where(robust, verdicts.y, (verdicts.y + 1) % 10),
    )


SMALL, MIDDLE, LARGE = at("0.1", 0, 1, 2, 3, 4, 5), at("0.2", 2, 3, 4, 9), at("0.4", 4, 5, 8, 9)


def test_what_is_broken_stays_broken() -> None:
    curve = curve_of([LARGE, SMALL, MIDDLE])
    assert [(point.eps, point.robust, point.alone) for point in curve.points] == [
        ("0", 10, 10),
        ("0.1", 6, 6),
        ("0.2", 3, 4),  # sample 9 was broken at 0.1
        ("0.4", 1, 4),  # sample 4 alone survives everywhere
    ]
    assert curve.interval(curve.points[1]) == (pytest.approx(0.3127, abs=1e-4), pytest.approx(0.8318, abs=1e-4))


def test_the_area_is_the_mean_accuracy_up_to_the_largest_radius() -> None:
    curve = curve_of([SMALL, MIDDLE, LARGE])
    assert curve.area == pytest.approx((0.1 * 0.8 + 0.1 * 0.45 + 0.2 * 0.2) / 0.4)


@pytest.mark.parametrize(
    ("distances", "median"),
    [
        ([0, 0, 1, 2, 3], 2),
        ([1, 2, 3, 4], 2),
        ([0, 1, 2, np.inf], 2),
        ([0, 1, np.inf, np.inf], None),
        ([0, 0], None),
    ],
)
def test_the_median_is_over_samples_that_are_right_without_attack(distances: list[float], median: float | None) -> None:
    curve = replace(curve_of([SMALL]), distances=np.array(distances, dtype=np.float64))
    assert curve.median_distance == median


def test_evaluations_that_make_no_curve() -> None:
    with pytest.raises(InvalidInput, match="above 0"):
        curve_of([])
    with pytest.raises(InvalidInput, match="above 0"):
        curve_of([at("0", *range(10))])
    with pytest.raises(InvalidInput, match="one evaluation a radius"):
        curve_of([SMALL, SMALL])
    for changed, what in (
        ({"suite": "pgd"}, "one suite"),
        ({"seed": 3}, "one seed"),
        ({"checkpoint": "other"}, "one model"),
        ({"dataset": SMALL[0].dataset.model_copy(update={"sha256": "e" * 64})}, "one set of samples"),
    ):
        with pytest.raises(InvalidInput, match=what):
            curve_of([SMALL, (LARGE[0].model_copy(update=changed), LARGE[1])])


def with_distances() -> Curve:
    distances = np.array([0.5, 0.05, 0.15, 0.25, np.inf, 0.1, 0.05, 0.05, 0.05, 0.0])
    return curve_of([SMALL, MIDDLE, LARGE], distances)


def test_the_table() -> None:
    rows = list(csv.DictReader(io.StringIO(curve_table(with_distances()))))
    assert [row["eps"] for row in rows] == ["0", "0.1", "0.2", "0.4"]
    assert [row["robust_acc"] for row in rows] == ["1.000000", "0.600000", "0.300000", "0.100000"]
    assert {row["median_distance"] for row in rows} == {"0.1"}
    assert rows[0]["evaluation_id"] == ""
    assert rows[1]["evaluation_id"] == SMALL[0].evaluation_id


def test_the_picture_is_the_same_for_the_same_curve() -> None:
    first, second = curve_picture(with_distances()), curve_picture(with_distances())
    assert first == second
    assert first.startswith(b"<?xml")
    hostile = replace(with_distances(), label="$\\frac{$<script>", suite="a_$b")
    assert b"<script>" not in curve_picture(hostile)


def saved(folder: Path, *evaluations: Evaluated) -> None:
    for result, verdicts in evaluations:
        store.save(result, verdicts, folder)


def test_a_board_draws_the_same_curve(tmp_path: Path) -> None:
    saved(tmp_path, SMALL, MIDDLE, LARGE)
    curve = curve_of([SMALL, MIDDLE, LARGE])
    for board in harness.leaderboard(tmp_path):
        (row,) = board.rows
        assert [(p.eps, p.accuracy.value) for p in row.curve] == [(p.eps, curve.accuracy(p)) for p in curve.points[1:]]
        text = formats.get("html").render(board)
        assert "Robust accuracy against eps" in text
        assert "60.0 % at 0.1, 30.0 % at 0.2, 10.0 % at 0.4" in text


def test_without_verdicts_a_board_draws_the_running_minimum() -> None:
    results = [SMALL[0], MIDDLE[0], LARGE[0].model_copy(update={"robust_acc": 0.5})]
    board = leaderboard_of(results)
    assert [point.accuracy.value for point in board.rows[0].curve] == [0.6, 0.4, 0.4]


def leaderboard_of(results: list[Result]) -> formats.Board:
    from harness.results import leaderboard

    return leaderboard.boards(results)[0]
