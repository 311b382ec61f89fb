"""Claims: what a study is to find out, written as an inequality.

::

    robust(bn-ft) > robust(bn-scratch)
    robust(bn-scratch) <= chance + 5
    robust(at-full) - robust(bn-ft) > 10
    clean(at-full) < clean(natural)
    robust(natural, suite="pgd-20", eps="0.05") < robust(no-bn, suite="pgd-20", eps="0.05")
    mean_robust(no-bn) > mean_robust(natural)
    robust(bn-optim) != robust(at-full)
    robust(bn-optim) == robust(at-full) +- 2
    params(bn-ft) < 0.2

Both sides are sums of numbers, ``chance`` (100 over the number of classes) and quantities of entries, all in
percent: ``robust`` and ``clean`` accuracy, ``mean_robust``, the robust accuracy averaged over the radii of the study's
curve, and ``params``, the trained share of the parameters. ``+-`` and a number at the end state the margin up to which
two sides count as equal.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn, cast, get_args

from harness.errors import InvalidInput
from harness.util.text import printable

__all__ = ["Claim", "Quantity", "Relation", "Term", "parse"]

Kind = Literal["robust", "mean_robust", "clean", "params"]
Relation = Literal[">", ">=", "<", "<=", "!=", "=="]

_KINDS = get_args(Kind)
_OPTIONS = {"robust": ("suite", "eps", "bn_stats"), "mean_robust": ("bn_stats",), "clean": ("bn_stats",), "params": ()}
_RELATION = re.compile(r">=|<=|!=|==|>|<")
_MARGIN = re.compile(r"\+-")
_NUMBER = re.compile(r"\d+(\.\d+)?|\.\d+")
_WORD = re.compile(r"[A-Za-z_]+")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_STRING = re.compile(r'"([^"]*)"|\'([^\']*)\'')
_SPACE = re.compile(r"\s*")


@dataclass(frozen=True)
class Quantity:
    """Something measured of an entry; an option that is None is the study's own."""

    kind: Kind
    label: str
    suite: str | None = None
    eps: str | None = None
    bn_stats: str | None = None


@dataclass(frozen=True)
class Term:
    """``factor`` times a quantity, times ``chance``, or times 1 (None)."""

    factor: float
    what: Quantity | Literal["chance"] | None


@dataclass(frozen=True)
class Claim:
    """An inequality, left side less right side against zero.

    Attributes:
        text: as it was written. about: whose it is.
        terms: of the left side, and of the right side with the sign turned.
        margin: points up to which both sides count as equal, of ``==`` and, where it is given, of ``!=``.
    """

    text: str
    about: str
    terms: tuple[Term, ...]
    relation: Relation
    margin: float | None = None

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """All quantities it speaks of."""
        return tuple(term.what for term in self.terms if isinstance(term.what, Quantity))

    @property
    def plain_pair(self) -> bool:
        """Whether it compares two accuracies with each other and with nothing else."""
        plain = ("robust", "clean")
        accuracies = [term for term in self.terms if isinstance(term.what, Quantity) and term.what.kind in plain]
        return len(self.terms) == 2 == len(accuracies) and sum(term.factor for term in self.terms) == 0


def parse(text: str, *, labels: Sequence[str], about: str = "") -> Claim:
    """A claim from its text.

    Args:
        labels: entries of the study.

    Raises:
        InvalidInput: it is not written as a claim (says where), or speaks of an entry that the study lacks.
    """
    reader = _Reader(text, labels)
    left = reader.sum()
    relation = cast(Relation, reader.take(_RELATION, "one of > >= < <= != =="))
    right = [Term(-term.factor, term.what) for term in reader.sum()]
    margin = reader.margin()
    reader.end()
    claim = Claim(text, about, (*left, *right), relation, margin)
    if not claim.quantities:
        raise InvalidInput(
            f"the claim {_quoted(text)} speaks of no entry: use robust(LABEL), clean(LABEL) or params(LABEL)"
        )
    if relation == "==" and margin is None:
        raise InvalidInput(
            f"the claim {_quoted(text)} says that two sides are equal, but not how nearly: add a margin in points, as "
            "in +- 2"
        )
    if margin is not None and (relation not in ("==", "!=") or margin <= 0):
        raise InvalidInput(f"the claim {_quoted(text)}: a margin is positive, and goes with == and != only")
    return claim


def _quoted(text: str) -> str:
    return repr(printable(text, longest=300))


class _Reader:
    """Reads a claim from left to right."""

    def __init__(self, text: str, labels: Sequence[str]) -> None:
        self.text, self.labels, self.at = text, labels, 0

    def fail(self, expected: str) -> NoReturn:
        rest = self.text[self.at :].strip()
        got = repr(rest[:20]) if rest else "its end"
        raise InvalidInput(f"the claim {_quoted(self.text)}: expected {expected} at character {self.at + 1}, got {got}")

    def skip(self) -> None:
        space = _SPACE.match(self.text, self.at)
        self.at = space.end() if space else self.at

    def found(self, pattern: re.Pattern[str] | str) -> re.Match[str] | None:
        self.skip()
        match = re.compile(re.escape(pattern) if isinstance(pattern, str) else pattern).match(self.text, self.at)
        if match:
            self.at = match.end()
        return match

    def take(self, pattern: re.Pattern[str] | str, expected: str) -> str:
        match = self.found(pattern)
        return match[0] if match else self.fail(expected)

    def end(self) -> None:
        self.skip()
        if self.at < len(self.text):
            self.fail("+, - or the end")

    def sum(self) -> list[Term]:
        terms = [self.term(-1.0 if self.found("-") else 1.0)]
        while sign := self.found(re.compile(r"\+(?!-)|-")):
            terms.append(self.term(1.0 if sign[0] == "+" else -1.0))
        return terms

    def margin(self) -> float | None:
        return float(self.take(_NUMBER, "a margin in points")) if self.found(_MARGIN) else None

    def term(self, factor: float) -> Term:
        if number := self.found(_NUMBER):
            if not math.isfinite(float(number[0])):
                self.fail("a number that is finite")
            return Term(factor * float(number[0]), None)
        self.skip()
        start = self.at
        word = self.found(_WORD)
        if word and word[0] == "chance":
            return Term(factor, "chance")
        if not word or word[0] not in _KINDS:
            self.at = start
            self.fail("a number, chance, robust(...), mean_robust(...), clean(...) or params(...)")
        return Term(factor, self.quantity(cast(Kind, word[0])))

    def quantity(self, kind: Kind) -> Quantity:
        self.take("(", "'('")
        self.skip()
        start = self.at
        label = self.take(_LABEL, "the label of an entry")
        if label not in self.labels:
            self.at = start
            raise InvalidInput(
                f"the claim {_quoted(self.text)} speaks of {label!r}, which the study lacks: it has "
                f"{', '.join(self.labels)}"
            )
        options: dict[str, str] = {}
        while self.found(","):
            self.skip()
            start = self.at
            known = [name for name in _OPTIONS[kind] if name not in options]
            expected = f"one of {', '.join(known)}" if known else "')'"
            option = self.take(_WORD, expected)
            if option not in known:
                self.at = start
                self.fail(expected)
            self.take("=", "'='")
            self.skip()
            value = self.take(_STRING, 'text in quotes, such as "pgd-20"')
            options[option] = value[1:-1]
        self.take(")", "',' or ')'")
        return Quantity(kind, label, **options)
