"""Leaderboards: a pure, explicit, conservative function of results."""

from __future__ import annotations

import csv
import io
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import suites
from harness.audit import kinds
from harness.errors import InvalidInput
from harness.results import formats, leaderboard, measures
from harness.results.formats import Board, Cell
from harness.results.stats import wilson
from harness.results.store import Survivors
from harness.threat import ThreatModel
from harness.util.text import printable
from tests.results.records import make_result

STANDARD = {"digits": (ThreatModel("Linf", "0.15"),), "cifar10": (ThreatModel("Linf", "8/255"),)}


def only(*results: object) -> Board:
    (board,) = leaderboard.boards(results, STANDARD)  # type: ignore[arg-type]
    return board


def order(board: Board) -> list[tuple[int, str]]:
    return [(row.rank, row.checkpoint) for row in board.rows]


def cells(board: Board) -> dict[str, dict[str, Cell]]:
    return {row.checkpoint: board.cells(row) for row in board.rows}


def labels(board: Board) -> list[str]:
    return [measure.label for measure in board.measures]


def test_columns() -> None:
    board = only(make_result(), make_result(suite="pgd"), make_result(suite="fgsm"))
    head = "rank, group, checkpoint, regime, parent, architecture, parameters, trained_share"
    tail = "n, tied_with, ranked_by, tie_test, flags"
    suites = ("clean", "pgd", "autoattack", "fgsm", "best_known")
    accuracies = [f"{name}_acc{part}" for name in suites for part in ("", "_low", "_high")]
    assert list(board.cells(board.rows[0])) == [*head.split(", "), *accuracies, *tail.split(", ")]


@pytest.mark.parametrize("suite", [name for name in suites.names() if name not in ("clean", "autoattack-reference")])
def test_every_suite_of_the_package_is_a_known_measure(suite: str) -> None:
    measure = measures.measure_of(suite)
    assert measure.name == suite
    assert measure.strength is not None
    board = only(make_result(suite=suite, robust=40))
    assert labels(board) == [measure.label]
    assert cells(board)["bn_ft"][f"{suite}_acc"] == 0.4
    assert board.rows[0].ranked_by == suite
    for name in formats.names():
        assert "40" in formats.get(name).render(board)


def test_a_suite_of_ones_own_is_a_column_of_its_name() -> None:
    board = only(make_result(suite="my-suite", robust=31), make_result("other", suite="pgd", robust=44))
    assert labels(board) == ["PGD", "my-suite"]
    assert cells(board)["bn_ft"]["my-suite_acc"] == 0.31
    assert cells(board)["bn_ft"]["pgd_acc"] is None
    assert [row.ranked_by for row in board.rows] == ["pgd", "my-suite"]
    assert "| my-suite |" in formats.get("markdown").render(board)
    assert "my-suite_acc,my-suite_acc_low," in formats.get("csv").render(board)


@pytest.mark.parametrize("name", ["clean", "PGD", "AutoAttack", "Clean"])
def test_no_suite_of_ones_own_passes_for_another(name: str) -> None:
    mine = make_result(suite="pgd").model_copy(update={"suite": name})
    board = only(mine, make_result(suite="autoattack", robust=30))
    assert labels(board) == ["AutoAttack", f"{name} (own suite)"]
    assert (cells(board)["bn_ft"]["clean_acc"], board.rows[0].ranked_by) == (0.98, "autoattack")


def test_pgd_and_autoattack_come_first() -> None:
    names = ["z-suite", "fgsm", "square", "a-suite", "pgd-20", "autoattack", "autoattack-plus", "pgd", "clean"]
    board = only(*(make_result(suite=name, robust=40) for name in names))
    wanted = ["PGD", "AutoAttack", "AutoAttack+", "PGD-20", "Square", "FGSM", "a-suite", "z-suite"]
    assert labels(board) == wanted
    assert board.ranked_by.startswith("AutoAttack, then PGD, then AutoAttack+")
    assert board.ranked_by.endswith("then clean accuracy")


def test_the_strongest_standard_measure_ranks() -> None:
    board = only(
        make_result("a", suite="fgsm", robust=95),
        make_result("b", suite="pgd", robust=50),
        make_result("c", suite="my-suite", robust=90),
        make_result("d", suite="pgd-20", robust=60),
        make_result("e", suite="clean"),
        make_result("f", suite="autoattack", robust=2),
    )
    assert order(board) == [(1, "f"), (2, "b"), (3, "d"), (4, "a"), (5, "c"), (6, "e")]
    assert [row.ranked_by for row in board.rows] == ["autoattack", "pgd", "pgd-20", "fgsm", "my-suite", None]


def test_a_board_without_a_standard_measure_says_so() -> None:
    board = only(make_result(suite="fgsm"), make_result("other", suite="square"))
    said = "Square, then FGSM, then clean accuracy (no result is of a standard suite, pgd or autoattack)"
    assert board.ranked_by == said
    assert board.ranked_by in formats.get("markdown").render(board)
    assert only(make_result(suite="clean")).ranked_by == "clean accuracy"


def test_ranked_by_autoattack_then_pgd_then_clean() -> None:
    board = only(
        make_result("a", robust=40),
        make_result("b", robust=50),
        make_result("c", robust=40),
        make_result("c", robust=45, suite="pgd"),
        make_result("d", robust=40, clean=99),
        make_result("e", robust=90, suite="pgd"),
        make_result("f", robust=95, suite="clean", clean=95),
    )
    assert order(board) == [(1, "b"), (2, "c"), (3, "d"), (4, "a"), (5, "e"), (6, "f")]


def test_ties_share_a_rank() -> None:
    board = only(make_result("b"), make_result("a"), make_result("c", robust=39))
    assert order(board) == [(1, "a"), (1, "b"), (3, "c")]


def test_a_row_in_full() -> None:
    board = only(make_result(robust=40), make_result(suite="pgd", robust=44, flags=("weak",)))
    (row,) = board.rows
    shown = board.cells(row)
    assert shown["regime"] == "bn-ft"
    assert shown["parent"] == "natural"
    assert shown["trained_share"] == pytest.approx(448 / 77_754)
    assert shown["clean_acc"] == 0.98
    assert shown["pgd_acc"] == 0.44
    assert (shown["autoattack_acc_low"], shown["autoattack_acc_high"]) == wilson(40, 100)
    assert (shown["ranked_by"], shown["flags"]) == ("autoattack", "PGD: weak")


def test_a_flag_says_which_suite_it_is_of_unless_all_carry_it() -> None:
    both = only(make_result(robust=40, flags=("old",)), make_result(suite="pgd", robust=44, flags=("old", "weak")))
    assert [flag.text for flag in both.rows[0].flags] == ["PGD: weak", "old"]
    alone = only(make_result(suite="pgd", robust=44, flags=("weak",)))
    assert [flag.text for flag in alone.rows[0].flags] == ["weak"]


def test_a_flag_with_as_many_figures_as_one_can_have_is_ranked() -> None:
    full = make_result(suite="pgd", robust=44, flags=("weak",))
    (flag,) = full.flags
    full = full.model_copy(update={"flags": [flag.model_copy(update={"figures": {f"f{i}": i for i in range(20)}})]})
    (shown,) = only(make_result(robust=40), full).rows[0].flags
    assert (shown.text, shown.figures["suite"], len(shown.figures)) == ("PGD: weak", "PGD", 20)


def test_of_several_results_the_lowest_counts() -> None:
    (row,) = only(make_result(robust=42, seed=0), make_result(robust=38, seed=1), make_result(robust=40, seed=2)).rows
    assert row.robust["autoattack"].value == 0.38


def test_the_reference_only_stands_in() -> None:
    (row,) = only(make_result(robust=42, suite="autoattack-reference")).rows
    assert row.robust["autoattack"].value == 0.42
    assert row.flags == (kinds.STANDS_IN(measure="AutoAttack", suite="autoattack-reference"),)
    (row,) = only(make_result(robust=41, suite="autoattack-reference"), make_result(robust=42)).rows
    assert row.robust["autoattack"].value == 0.42
    assert row.flags == ()


def known(*broken: int, n: int = 100) -> Survivors:
    return Survivors(np.arange(n), ~np.isin(np.arange(n), broken))


def test_the_best_known_figure_pools_what_any_result_of_a_model_has_broken() -> None:
    weights = "5" * 64
    theirs = make_result("theirs", weights=weights, suite="square", robust=97)
    results = {
        "autoattack": (make_result(weights=weights, robust=98), known(3, 4)),
        "pgd": (make_result(weights=weights, suite="pgd", robust=98), known(4, 5)),
        "square": (theirs, known(6, 7, 8)),
        "other weights": (make_result("other", robust=90), known(*range(10))),
    }
    by_result = {result.model_dump_json(): standing for result, standing in results.values()}
    (board,) = leaderboard.boards(
        (result for result, _ in results.values()), survivors=lambda result: by_result[result.model_dump_json()]
    )
    best = {row.checkpoint: row.best_known and row.best_known.value for row in board.rows}
    assert best == {"bn_ft": 0.94, "theirs": 0.94, "other": 0.9}
    assert cells(board)["bn_ft"]["best_known_acc"] == 0.94
    assert cells(board)["bn_ft"]["autoattack_acc"] == 0.98
    assert board.shows_best_known
    assert "best known" in formats.get("markdown").render(board)
    assert "Best known" in formats.get("latex").render(board)
    assert "Best known" in formats.get("html").render(board)


def test_without_a_second_result_there_is_no_column_of_the_best_known_figure() -> None:
    result = make_result(robust=98)
    (board,) = leaderboard.boards([result], survivors=lambda result: known(3, 4))
    assert not board.shows_best_known
    assert "est known" not in "".join(formats.get(name).render(board) for name in ("markdown", "latex", "html"))
    assert only(result).rows[0].best_known is None


def test_contradictions_are_flagged() -> None:
    (row,) = only(make_result(robust=42), make_result(robust=40, suite="pgd", clean=97)).rows
    assert list(map(str, row.flags)) == ["PGD below AutoAttack", "clean accuracy differs between suites"]
    assert row.clean.value == 0.97


@pytest.mark.parametrize(
    ("suite", "flagged"),
    [("pgd", True), ("fgsm", True), ("square", True), ("my-suite", True), ("autoattack-plus", False)],
)
def test_a_lower_figure_than_the_ranking_one_is_flagged_unless_it_should_be_lower(suite: str, flagged: bool) -> None:
    (row,) = only(make_result(robust=42), make_result(robust=41, suite=suite)).rows
    assert [flag.code for flag in row.flags] == ["ranked-not-lowest"] * flagged
    (row,) = only(make_result(robust=42), make_result(robust=42, suite=suite)).rows
    assert row.flags == ()


def test_results_of_a_clean_suite_count_for_clean_accuracy_alone() -> None:
    board = only(make_result(robust=42), make_result(suite="clean", robust=97, clean=97))
    assert labels(board) == ["AutoAttack"]
    assert [flag.code for flag in board.rows[0].flags] == ["clean-differs"]
    assert board.rows[0].clean.value == 0.97


def test_the_same_model_under_two_names_is_two_rows() -> None:
    board = only(make_result("a", weights="w" * 64), make_result("b", weights="w" * 64))
    assert order(board) == [(1, "a"), (1, "b")]


@pytest.mark.parametrize(
    "other",
    [
        {"architecture": "digits-cnn"},
        {"arguments": {"activation": "gelu"}},
        {"source_sha256": "5" * 64},
        {"norm_layer": "group"},
        {"normalization": {"mean": [0.5], "std": [0.5]}},
        {"bn_stats_facts": {"n": 100}},
    ],
    ids=lambda other: next(iter(other)),
)
def test_another_network_of_the_same_weights_is_another_row_with_a_best_known_figure_of_its_own(
    other: dict[str, Any],
) -> None:
    results = [make_result("a", weights="2" * 64), make_result("a", weights="2" * 64, robust=3, **other)]
    standing = {result.model_dump_json(): known(*range(60 * place, 100)) for place, result in enumerate(results)}
    (board,) = leaderboard.boards(results, survivors=lambda result: standing[result.model_dump_json()])
    assert [rank for rank, _ in order(board)] == [1, 2]
    assert [row.best_known and row.best_known.value for row in board.rows] == [0.0, 0.6]
    assert len({row.checkpoint for row in board.rows}) == 2
    assert all(re.fullmatch(r"a \([0-9a-f]{8}\)", row.checkpoint) for row in board.rows)
    assert not any("22222222" in row.checkpoint for row in board.rows), "equal weights tell nothing apart"


def test_where_a_user_s_file_lies_makes_no_other_network() -> None:
    here, there = (
        make_result(architecture=f"{folder}/net.py:net", source_sha256="5" * 64, seed=seed)
        for seed, folder in enumerate(("here", "there"))
    )
    assert len(only(here, there).rows) == 1


def test_of_the_records_of_one_run_the_last_counts() -> None:
    earlier = make_result(flags=("the parent was not found",))
    later = earlier.model_copy(update={"flags": [], "record_id": "f" * 64, "recorded": "2025-01-02T00:00:00+00:00"})
    for results in ([earlier, later], [later, earlier]):
        (row,) = only(*results).rows
        assert row.flags == ()
    # a run of its own does not take the place of another, as the lowest figure counts
    again = later.model_copy(update={"started": "2025-01-02T00:00:00+00:00"})
    (row,) = only(earlier, again).rows
    assert list(map(str, row.flags)) == ["the parent was not found"]


def test_other_weights_under_the_same_name_show_their_hash() -> None:
    board = only(make_result("a", weights="1" * 64), make_result("a", weights="2" * 64, robust=3), make_result("b"))
    assert order(board) == [(1, "a (11111111)"), (1, "b"), (3, "a (22222222)")]


def test_partial_runs_are_ranked_apart() -> None:
    full, small, tiny = (
        make_result("a", robust=40),
        make_result("b", robust=45, clean=50, n=50, data="e" * 64),
        make_result("c", robust=10, clean=10, n=10, data="f" * 64),
    )
    boards = leaderboard.boards([tiny, small, full], STANDARD)
    assert [(board.name, board.partial) for board in boards] == [("digits-Linf", False), ("digits-Linf-partial", True)]
    assert order(boards[0]) == [(1, "a")]
    # each set of samples has ranks of its own
    assert order(boards[1]) == [(1, "b"), (1, "c")]
    assert "partial runs" in formats.get("markdown").render(boards[1])


def test_names_of_boards() -> None:
    results = [
        make_result(threat="Linf:0.15"),
        make_result(threat="Linf:0.3"),
        make_result(threat="L2:0.5"),
        make_result(dataset="cifar10", threat="Linf:8/255"),
        make_result("x", dataset="cifar10", threat=f"Linf:{8 / 255!r}"),
        make_result(dataset="cifar10", threat="Linf:0.031"),
        make_result(dataset="../my data", threat="Linf:4/255"),
    ]
    boards = leaderboard.boards(results, STANDARD)
    assert [board.name for board in boards] == [
        "cifar10-Linf",
        "cifar10-Linf-0.031",
        "digits-L2-0.5",
        "digits-Linf",
        "digits-Linf-0.3",
        "my-data-Linf-4-255",
    ]
    assert boards[0].eps == "8/255"
    assert len(boards[0].rows) == 2


def test_other_images_under_the_same_name_are_another_board() -> None:
    boards = leaderboard.boards([make_result("a"), make_result("b", data="e" * 64)], STANDARD)
    assert len({board.name for board in boards}) == 2
    assert all(board.name.startswith("digits-Linf-") for board in boards)


def many() -> list[object]:
    return [
        make_result(name, suite=suite, robust=robust + shift, n=n, clean=n, seed=seed)
        for name, robust in (("a", 10), ("b", 10), ("c", 3))
        for suite, shift in (("pgd", 5), ("autoattack", 0))
        for n in (100, 20)
        for seed in (0, 1)
    ]


def test_same_results_same_bytes(tmp_path: Path) -> None:
    written = []
    for attempt in range(3):
        results = many()
        random.Random(attempt).shuffle(results)
        folder = tmp_path / str(attempt)
        for board in leaderboard.boards(results, STANDARD):  # type: ignore[arg-type]
            leaderboard.write(board, folder)
        written.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert written[0] == written[1] == written[2]
    assert {"digits-Linf.csv", "digits-Linf.md", "digits-Linf-partial.csv"} <= set(written[0])


HOSTILE = [
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-2",
    "@SUM(A1)",
    " =1+1",
    "\t=1",
    "<script>alert(1)</script>",
    "a | b | c",
    "a\n| 1 | b |",
    "[x](javascript:alert(1))",
    "`code`",
    '"quoted", comma',
    "back\\slash|",
    "line\rover",
    "\x1b[31mred\x1b[0m",
    "evil\u202egnp.exe",
    "zero\u200bwidth\x00",
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("field", ["checkpoint", "regime", "parent", "architecture", "flag", "suite"])
def test_csv_runs_nothing(text: str, field: str) -> None:
    fields = {"flags": (text,)} if field == "flag" else {field: text}
    board = only(make_result(weights="w" * 64, **fields))  # type: ignore[arg-type]
    lines = list(csv.reader(io.StringIO(formats.get("csv").render(board))))
    shown = printable(text)
    assert len(lines) == 2
    assert len(lines[0]) == len(lines[1]) == len(board.cells(board.rows[0]))
    for cell in lines[0] + lines[1]:
        assert not cell.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    if field == "suite":
        assert {f"{shown}_acc", f"'{shown}_acc"} & set(lines[0])
    else:
        cell = lines[1][lines[0].index("flags" if field == "flag" else field)]
        assert cell in (shown, f"'{shown}")


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("field", ["checkpoint", "regime", "parent", "architecture", "flag", "dataset", "suite"])
def test_markdown_keeps_its_cells(text: str, field: str) -> None:
    fields = {"flags": (text,)} if field == "flag" else {field: text}
    board = only(make_result(weights="w" * 64, **fields))  # type: ignore[arg-type]
    rendered = formats.get("markdown").render(board)
    table = [line for line in rendered.splitlines() if line.startswith("|")]
    assert len(table) == 3
    for line in table:
        # what ends a cell: a pipe behind an even number of backslashes
        ends = [i for i, c in enumerate(line) if c == "|" and (i - len(line[:i].rstrip("\\"))) % 2 == 0]
        assert len(ends) == 14
    assert not set(rendered) & set("\r\x1b\x00\u202e\u200b")
    assert "<" not in rendered
    assert "](" not in rendered.replace("\\](", "")


@pytest.mark.parametrize("name", formats.names())
def test_every_format_shows_every_row(name: str) -> None:
    form = formats.get(name)
    (full, _) = leaderboard.boards(many(), STANDARD)  # type: ignore[arg-type]
    text = form.render(full)
    assert form.suffix.startswith(".")
    assert text.endswith("\n")
    assert all(row.checkpoint in text for row in full.rows)
    assert text == form.render(full)


@pytest.mark.parametrize("suffix", ["", "csv", ".", "/../evil", "./x", ".a/b", ".tar..gz"])
def test_no_format_writes_elsewhere(suffix: str) -> None:
    with pytest.raises(InvalidInput, match="suffix of a format"):
        formats.Format(suffix, lambda board: "")


def test_csv_leaves_the_unknown_empty() -> None:
    board = only(
        make_result("a", suite="pgd", regime=None, trained_parameters=None), make_result("b", suite="autoattack")
    )
    (_, row) = csv.DictReader(io.StringIO(formats.get("csv").render(board)))
    assert row["regime"] == row["trained_share"] == row["autoattack_acc"] == row["autoattack_acc_low"] == ""
    assert row["pgd_acc"] == "0.400000"


def test_seeds_are_shown_with_their_spread() -> None:
    results = [make_result(seed=seed, robust=robust) for seed, robust in enumerate((44, 40, 42))]
    (board,) = leaderboard.boards(results)
    (row,) = board.rows
    assert row.robust["autoattack"].value == 0.40
    assert [str(flag) for flag in row.flags] == ["AutoAttack with 3 seeds: mean 42.0 %, from 40.0 % to 44.0 %"]
    assert leaderboard.boards(results[:1])[0].rows[0].flags == ()


def test_the_best_known_figure_is_never_above_one_of_its_row() -> None:
    weights = "5" * 64
    results = [
        (make_result(weights=weights, robust=90, source_sha256="b" * 64), known(*range(10))),
        (make_result(weights=weights, suite="pgd", robust=97, source_sha256="a" * 64), known(1, 2, 3)),
    ]
    by_result = {result.model_dump_json(): standing for result, standing in results}
    (board,) = leaderboard.boards(
        (result for result, _ in results), survivors=lambda result: by_result[result.model_dump_json()]
    )
    for row in board.rows:
        assert row.best_known is not None
        assert row.best_known.value <= min(accuracy.value for accuracy in row.robust.values())
