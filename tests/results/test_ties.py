"""Rows that cannot be told apart: the same answer as comparing every two of them by hand."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import binomtest, fisher_exact

from harness.results import leaderboard
from harness.results.formats import Board
from harness.results.record import Result
from harness.results.stats import holm, mcnemar_p, unpaired_p
from harness.results.store import Survivors
from harness.results.ties import Tie, runs, ties
from tests.results.records import make_result


def survivors(robust: np.ndarray) -> Survivors:
    return Survivors(np.arange(len(robust)), robust.astype(bool))


def nested(count: int, n: int = 200, *, fresh: int = 0) -> Survivors:
    """The first ``count`` samples, except that ``fresh`` of them are replaced by the last ones."""
    robust = np.arange(n) < count - fresh
    robust[n - fresh :] = fresh > 0
    return survivors(robust)


def test_every_pair_as_by_hand() -> None:
    generator = np.random.default_rng(0)
    tables = sorted((generator.random(120) < share for share in (0.8, 0.75, 0.5, 0.45, 0.2)), key=lambda t: -t.sum())
    found = ties([int(t.sum()) for t in tables], 120, [survivors(t) for t in tables])
    pairs = list(combinations(range(5), 2))
    p_values = []
    for a, b in pairs:
        first, second = int((tables[a] & ~tables[b]).sum()), int((tables[b] & ~tables[a]).sum())
        p_values.append(binomtest(first, first + second, 0.5).pvalue)
    together = {pair for pair, p in zip(pairs, holm(p_values), strict=True) if p >= 0.05}
    assert {(a, b) for a in range(5) for b in found[a].rows if a < b} == together
    assert 0 < len(together) < len(pairs)
    assert all(tie.paired for tie in found)


def test_a_paired_test_sees_what_counts_do_not() -> None:
    tables = [nested(100), nested(88)]
    assert [tie.group for tie in ties([100, 88], 200, tables)] == [0, 1]
    assert ties([100, 88], 200, [None, None]) == [Tie(0, (1,), False), Tie(0, (0,), False)]
    assert [tie.paired for tie in ties([100, 88], 200, [tables[0], None])] == [True, False]


def test_verdicts_of_other_samples_are_not_paired() -> None:
    other = Survivors(np.arange(200) + 1, nested(88).robust)
    assert [tie.paired for tie in ties([100, 88], 200, [nested(100), other])] == [True, False]


def test_a_group_is_what_cannot_be_told_apart_from_its_first() -> None:
    # each differs from the next by chance alone, the first and the last do not
    tables = [nested(count, fresh=30) if i % 2 else nested(count) for i, count in enumerate((130, 120, 110, 60))]
    found = ties([130, 120, 110, 60], 200, tables)
    assert [tie.group for tie in found] == [0, 0, 1, 2]
    assert found[1].rows == (0, 2)


def test_equal_rows_are_never_told_apart() -> None:
    assert ties([7, 7], 10, [None, None])[0].rows == (1,)
    assert ties([7, 7], 10, [nested(7, 10), nested(7, 10, fresh=3)])[0].rows == (1,)
    assert ties([0], 10, [None]) == [Tie(0, (), False)]


def test_p_values_by_another_way() -> None:
    for first, second in ((0, 0), (3, 3), (0, 9), (2, 11), (40, 41)):
        total = first + second
        expected = binomtest(first, total, 0.5).pvalue if total else 1.0
        assert float(mcnemar_p(first, second)) == pytest.approx(expected)
    for a, b in ((50, 60), (10, 30), (90, 97), (0, 0), (100, 100)):
        fisher = fisher_exact([[a, 100 - a], [b, 100 - b]]).pvalue
        assert float(unpaired_p(a, b, 100)) == pytest.approx(fisher, abs=0.02)


@pytest.mark.parametrize(
    ("numbers", "words"), [((), ""), ((2,), "2"), ((2, 3), "2 to 3"), ((1, 2, 2, 3, 5), "1 to 3, 5"), ((1, 9), "1, 9")]
)
def test_runs(numbers: tuple[int, ...], words: str) -> None:
    assert runs(numbers) == words


def only(*results: Result, known: dict[str, Survivors] | None = None) -> Board:
    (board,) = leaderboard.boards(results, survivors=lambda result: (known or {}).get(result.checkpoint))
    return board


def test_on_a_board() -> None:
    counts = {"a": 100, "b": 88, "c": 20}
    results = [make_result(name, robust=count, clean=190, n=200, size=200) for name, count in counts.items()]
    board = only(*results, known={name: nested(count) for name, count in counts.items()})
    assert [(row.group, row.tied_with) for row in board.rows] == [(1, ()), (2, ()), (3, ())]
    assert "exact McNemar test on the common samples, Holm" in board.told_apart_by
    counted = only(*results)
    assert [(row.group, row.tied_with) for row in counted.rows] == [(1, (2,)), (1, (1,)), (2, ())]
    assert "unpaired" in counted.told_apart_by
    assert counted.cells(counted.rows[0])["tie_test"] == "unpaired"
    mixed = only(*results, known={"a": nested(100)})
    assert "McNemar" in mixed.told_apart_by
    assert "unpaired" in mixed.told_apart_by


def test_rows_ranked_by_other_suites_are_not_compared() -> None:
    rows = only(make_result("a", robust=40), make_result("b", suite="pgd", robust=40), make_result("c", suite="clean"))
    assert [(row.group, row.tied_with) for row in rows.rows] == [(1, ()), (2, ()), (3, ())]


def test_rows_of_equal_rank_name_it() -> None:
    rows = only(make_result("a"), make_result("b"), make_result("c", robust=39)).rows
    assert [(row.rank, row.tied_with) for row in rows] == [(1, (1, 3)), (1, (1, 3)), (3, (1,))]
