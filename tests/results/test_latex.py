"""LaTeX tables: whole, escaped, and with ties marked."""

from __future__ import annotations

import re

import pytest

from harness.audit import kinds
from harness.results import formats, leaderboard
from harness.results.formats import Board
from harness.results.formats._tex import escaped
from harness.results.record import Result
from harness.results.store import LeftOut
from tests.results.records import make_result
from tests.results.test_leaderboard import HOSTILE


def table(*results: Result, **more: object) -> str:
    (board,) = leaderboard.boards(results, **more)  # type: ignore[arg-type]
    return formats.get("latex").render(board)


def body(text: str) -> list[str]:
    return text.partition(r"\midrule")[2].partition(r"\bottomrule")[0].strip().splitlines()


def test_a_table() -> None:
    text = table(
        make_result("a_1", robust=80),
        make_result("a_1", robust=82, suite="pgd"),
        make_result("b", robust=78, regime=None),
        make_result("c", robust=5),
    )
    assert r"\begin{tabular}{rllrrrl}" in text
    assert r"Rank & Model & Regime & Clean & AutoAttack & PGD & Tied with \\" in text
    assert [line.strip() for line in body(text)] == [
        r"1 & a\_1 & bn-ft & 98.0 {\scriptsize(93.0--99.4)} & 80.0 {\scriptsize(71.1--86.7)} "
        r"& 82.0 {\scriptsize(73.3--88.3)} & 2 \\",
        r"2 & b &  & 98.0 {\scriptsize(93.0--99.4)} & 78.0 {\scriptsize(68.9--85.0)} & -- & 1 \\",
        r"\addlinespace",
        r"3 & c & bn-ft & 98.0 {\scriptsize(93.0--99.4)} & 5.0 {\scriptsize(2.2--11.2)} & -- &  \\",
    ]


@pytest.mark.parametrize("text", [*HOSTILE, r"\input{/etc/passwd}", "50% & more", "$x^2$", "a~b#c{d}"])
@pytest.mark.parametrize("field", ["checkpoint", "regime", "suite", "dataset", "flags"])
def test_every_sign_is_text(text: str, field: str) -> None:
    given = (text,) if field == "flags" else text
    rendered = table(make_result(weights="w" * 64, **{field: given}))  # type: ignore[arg-type]
    (line,) = body(rendered)
    assert escaped(text) in rendered
    assert len(re.findall(r"(?<!\\)&", line)) == 5
    own = {"textbackslash", "textasciitilde", "textasciicircum", "scriptsize", "begin", "end", "centering", "caption"}
    own |= {"toprule", "midrule", "bottomrule", "usepackage", "textless", "textgreater", "textbar"}
    own |= {"textsuperscript", "footnotesize", "raggedright", "par"} if field == "flags" else set()
    assert all(sign <= "\xff" for sign in rendered)
    assert set(re.findall(r"\\([a-z]+)", rendered)) <= own
    for drawn in rendered.splitlines()[1:]:
        bare = re.sub(r"\\[{}&%$#_\\]", "", drawn)
        assert bare.count("{") == bare.count("}")
        assert not set("%$#") & set(bare)


def test_sets_of_images_are_separated_and_left_out_files_named() -> None:
    sets = [make_result(f"m{i}", n=50, clean=50, data=str(i) * 64) for i in range(2)]
    text = table(*sets, left_out=[LeftOut("x.json", "x.json\nwas changed")])
    assert [line.strip() for line in body(text)].count(r"\midrule") == 1
    assert r"% left out: x.json\nwas changed" in text


def test_reasons_to_doubt_are_notes_below_the_table() -> None:
    text = table(
        make_result("a", robust=80, flags=("too weak, by 50 %", "odd")),
        make_result("b", robust=70, flags=("odd",)),
        make_result("c", robust=60, flags=(kinds.SHORT_PGD_GAINS(samples=3, of=16),)),
        make_result("d", robust=50, flags=(kinds.SHORT_PGD_GAINS(samples=5, of=16),)),
        make_result("e", robust=40),
        make_result("e", robust=45, suite="pgd", flags=(kinds.SHORT_PGD_GAINS(samples=5, of=16),)),
    )
    names = [line.split(" & ")[1] for line in body(text) if "&" in line]
    assert [name.partition("}")[0] for name in names] == [
        r"a\textsuperscript{a,b",
        r"b\textsuperscript{a",
        r"c\textsuperscript{c",
        r"d\textsuperscript{c",
        r"e\textsuperscript{d",
    ]
    below = text.partition(r"\end{tabular}")[2]
    meaning = kinds.SHORT_PGD_GAINS.meaning
    for line in ("a: odd", r"b: too weak, by 50 \%", f"c: {meaning}", f"d: PGD: {meaning}"):
        assert f"{{\\footnotesize\\raggedright {line}\\par}}" in below
    assert "Letters: reasons to doubt a row, below the table." in text
    assert "Letters" not in table(make_result())


def test_a_mere_note_is_no_reason_to_doubt() -> None:
    assert kinds.LOGITS_RESCALED.severity == "note"
    assert "footnotesize" not in table(make_result(flags=(kinds.LOGITS_RESCALED(factor=2.0),)))


def test_the_letters_of_many_notes() -> None:
    text = table(make_result(flags=tuple(f"doubt {i}" for i in range(28))))
    assert [line.split(":")[0].split()[-1] for line in text.splitlines() if "footnotesize" in line][-4:] == [
        "y",
        "z",
        "aa",
        "ab",
    ]


def test_a_board_of_clean_accuracy_alone() -> None:
    board: Board
    (board,) = leaderboard.boards([make_result(suite="clean")])
    assert r"\begin{tabular}{rllrl}" in formats.get("latex").render(board)
