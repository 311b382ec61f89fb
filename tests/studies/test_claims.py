"""What can be claimed, and where an error in it is shown."""

from __future__ import annotations

import pytest

from harness.errors import InvalidInput
from harness.studies.claims import Quantity, Term, parse

LABELS = ("natural", "bn-ft", "at.full_2")


@pytest.mark.parametrize(
    ("text", "relation", "terms"),
    [
        (
            "robust(bn-ft) > robust(natural)",
            ">",
            [Term(1, Quantity("robust", "bn-ft")), Term(-1, Quantity("robust", "natural"))],
        ),
        (
            "robust(bn-ft)<=chance + 5",
            "<=",
            [Term(1, Quantity("robust", "bn-ft")), Term(-1, "chance"), Term(-5, None)],
        ),
        (
            "clean(at.full_2) - clean(natural) < -2.5",
            "<",
            [Term(1, Quantity("clean", "at.full_2")), Term(-1, Quantity("clean", "natural")), Term(2.5, None)],
        ),
        (
            """robust( natural , suite="pgd-20", eps = '8/255' , bn_stats="batch") != 3""",
            "!=",
            [Term(1, Quantity("robust", "natural", "pgd-20", "8/255", "batch")), Term(-3, None)],
        ),
        ("- params(bn-ft) >= -0.2", ">=", [Term(-1, Quantity("params", "bn-ft")), Term(0.2, None)]),
    ],
)
def test_read(text: str, relation: str, terms: list[Term]) -> None:
    claim = parse(text, labels=LABELS)
    assert (claim.relation, list(claim.terms)) == (relation, terms)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("robust(bn-ft > 5", ["',' or ')' at character 14", "'> 5'"]),
        ("robust(bn-ft)", ["one of > >= < <= !=", "its end"]),
        ("robust(bn-ft) > ", ["a number, chance, robust(...)", "its end"]),
        ("robust(bn-ft) > 5 5", ["+, - or the end at character 19"]),
        ("robust(bn-ft) = 5", ["one of > >= < <= != == at character 15"]),
        ("robustness(bn-ft) > 5", ["robust(...)", "at character 1,"]),
        ("robust(bn-fit) > 5", ["'bn-fit', which the study lacks", "natural, bn-ft"]),
        ("robust(bn-ft, siute='pgd') > 5", ["one of suite, eps, bn_stats at character 15", "siute="]),
        ("robust(bn-ft, eps='1', eps='2') > 5", ["one of suite, bn_stats at character 24"]),
        ("robust(bn-ft, eps=8/255) > 5", ["text in quotes", "at character 19"]),
        ("clean(bn-ft, suite='pgd') > 5", ["one of bn_stats"]),
        ("params(bn-ft, eps='1') > 5", ["expected ')' at character 15"]),
        ("chance > 5", ["speaks of no entry"]),
        ("robust(bn-ft) == 5", ["not how nearly", "+- 2"]),
        ("robust(bn-ft) == 5 +- 0", ["a margin is positive"]),
        ("robust(bn-ft) > 5 +- 1", ["goes with == and != only"]),
        ("robust(bn-ft) == 5 +- x", ["a margin in points at character 23"]),
        ("mean_robust(bn-ft, eps='1') > 5", ["one of bn_stats"]),
        ("__import__('os') > 5", ["a number, chance, robust(...)"]),
        ("", ["its end"]),
    ],
)
def test_refused(text: str, words: list[str]) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(text, labels=LABELS)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)
