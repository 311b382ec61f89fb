"""Flags: reasons to doubt a figure, as records that programs can count and people can read.

A kind of flag is defined once, with its code, severity, meaning and wording; a check raises it with the figures that
it found. A check outside this package defines kinds of its own with `define`, next to the check.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from string import Formatter
from typing import Annotated, Literal, get_args

from pydantic import Field, StrictFloat, StrictInt, StringConstraints

from harness.errors import InvalidInput
from harness.util.validation import Record

__all__ = ["Figure", "Flag", "FlagKind", "Severity", "define", "kinds", "unique"]

Severity = Literal["note", "warn", "refuse"]
"""A fact worth knowing; a reason to doubt the figure; a reason not to give one at all."""

Figure = StrictInt | StrictFloat | Annotated[str, StringConstraints(strict=True, max_length=200)]
"""A number or a short text."""

_SPOKEN: dict[Severity, str] = {"note": "note", "warn": "warning", "refuse": "refused"}
_CODE = r"^[a-z0-9]+(-[a-z0-9]+)*$"
_KINDS: dict[str, FlagKind] = {}
_LONGEST, _MOST_FIGURES = 2000, 20


class Flag(Record):
    """One reason to doubt one result.

    Attributes:
        code: which kind it is; the same for the same doubt, whichever step or check raised it.
        severity: how much it weighs.
        text: one sentence for people.
        figures: what was found, such as the step, a number of samples, or a limit.
    """

    code: str = Field(pattern=_CODE, max_length=60, strict=True)
    severity: Severity
    text: str = Field(min_length=1, max_length=_LONGEST, strict=True)
    figures: dict[str, Figure] = Field(default_factory=dict, max_length=_MOST_FIGURES)

    @property
    def doubtful(self) -> bool:
        """Whether it casts doubt on the result, and is no mere note."""
        return self.severity != "note"

    @property
    def meaning(self) -> str | None:
        """One line on its kind, without figures; None where the kind is not known here."""
        kind = _KINDS.get(self.code)
        return None if kind is None else kind.meaning

    @property
    def line(self) -> str:
        """What is printed of it: ``warning: `` or ``note: ``, the sentence, and the code, which the docs explain."""
        return f"{_SPOKEN[self.severity]}: {self.text} (flag {self.code})"

    def of_step(self, step: str) -> Flag:
        """The same flag, said of one step of a suite."""
        return self._of(step, {"step": step})

    def of_suite(self, suite: str) -> Flag:
        """The same flag, said of one of several suites."""
        return self._of(suite, {"suite": suite})

    def _of(self, whom: str, figures: dict[str, Figure]) -> Flag:
        text = f"{whom}: {self.text}"[:_LONGEST]
        # a flag in a stranger's file may have as many figures as one can have
        kept = dict([*{**figures, **self.figures}.items()][:_MOST_FIGURES])
        return Flag(code=self.code, severity=self.severity, text=text, figures=kept)

    def __contains__(self, words: str) -> bool:
        """Whether its sentence holds ``words``."""
        return words in self.text

    def __str__(self) -> str:
        return self.text

    def __hash__(self) -> int:
        return hash((self.code, self.text))


@dataclass(frozen=True)
class FlagKind:
    """A doubt that checks may raise.

    Attributes:
        code: lower-case words joined by hyphens.
        severity: of its flags.
        meaning: one line for the list of all kinds.
        text: the sentence of its flags. Figures that it names in braces are filled in; others are appended.
    """

    code: str
    severity: Severity
    meaning: str
    text: str

    def __post_init__(self) -> None:
        if not re.fullmatch(_CODE, self.code):
            raise InvalidInput(f"the code of a flag is lower-case words joined by hyphens, got {self.code!r}")
        if self.severity not in get_args(Severity):
            raise InvalidInput(
                f"the severity of a flag is one of {', '.join(get_args(Severity))}, got {self.severity!r}"
            )

    def __call__(self, **figures: Figure) -> Flag:
        """A flag of this kind, in its own words.

        Raises:
            InvalidInput: a figure that the wording names is missing.
        """
        named = [name for _, name, _, _ in Formatter().parse(self.text) if name]
        missing = [name for name in named if name not in figures]
        if missing:
            raise InvalidInput(f"a flag {self.code!r} needs the figures {', '.join(named)}; {missing[0]!r} is missing")
        added = [f"{name.replace('_', ' ')} {value}" for name, value in figures.items() if name not in named]
        text = self.text.format(**figures) + (f" ({', '.join(added)})" if added else "")
        return self.saying(text, **figures)

    def saying(self, text: str, **figures: Figure) -> Flag:
        """A flag of this kind in the words of whoever found it; what is too long for a record is cut."""
        short = {name: value[:200] if isinstance(value, str) else value for name, value in figures.items()}
        return Flag(code=self.code, severity=self.severity, text=text[:_LONGEST], figures=short)


def define(code: str, severity: Severity, meaning: str, text: str) -> FlagKind:
    """Register a kind of flag; see `FlagKind`.

    Raises:
        InvalidInput: the code is taken by another kind, or is no code.
    """
    kind = FlagKind(code, severity, meaning, text)
    known = _KINDS.setdefault(code, kind)
    if known != kind:  # a file of one's own may be loaded twice, and then defines the same again
        raise InvalidInput(f"the flag code {code!r} is defined already ({known.meaning}); choose another")
    return known


def kinds() -> tuple[FlagKind, ...]:
    """All kinds that are defined, by code."""
    return tuple(_KINDS[code] for code in sorted(_KINDS))


def unique(flags: Iterable[Flag]) -> list[Flag]:
    """Each flag once, in the order of first appearance."""
    return list(dict.fromkeys(flags))
