"""Does a verdict depend on how long was trained? Some entries of a study at half, once and twice their budget.

A derived study holds each varied entry three times and each claim about them three times, so that it is trained, judged
and reported like any other, and shares every network that the study itself has.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from harness.errors import InvalidInput, UnknownName
from harness.studies.judging import Judgement
from harness.studies.planning import Plan
from harness.studies.spec import ClaimText, Entry, Study
from harness.training import Settings

__all__ = ["BUDGETS", "Row", "derive", "rows"]

BUDGETS = (0.5, 1.0, 2.0)
"""Shares of an entry's epochs, and so of its steps and passes."""


@dataclass(frozen=True)
class Row:
    """One claim, judged at each of `BUDGETS`."""

    claim: str
    judgements: tuple[Judgement, ...]

    @property
    def moves(self) -> bool:
        """Whether the verdict is not the same everywhere."""
        return len({judgement.verdict for judgement in self.judgements}) > 1


def derive(plan: Plan, varied: Sequence[str]) -> Study:
    """The study in which the entries ``varied`` have each of the budgets, with the claims that speak of them.

    Raises:
        UnknownName: a label that the study lacks.
        InvalidInput: an entry that is not trained, or no claim that speaks of one of them.
    """
    study, labels = plan.study, [member.label for member in plan.members]
    for label in varied:
        if label not in labels:
            raise UnknownName("entry of the study", label, labels)
        if plan.member(label).regime is None:
            raise InvalidInput(f"the entry {label!r} is a checkpoint that is there already: name one that is trained")
    claims = [
        ClaimText(text=_renamed(claim.text, varied, share), about=claim.about)
        for claim in plan.claims
        if any(quantity.label in varied for quantity in claim.quantities)
        for share in BUDGETS
    ]
    if not claims:
        raise InvalidInput(f"no claim of the study {study.name} speaks of {', '.join(varied)}: name other entries")
    entries = [
        member.entry.model_copy(update={"label": member.label, "parent": member.parent}) for member in plan.members
    ]
    more = [
        _scaled(plan, entry, share) for entry in entries if entry.label in varied for share in BUDGETS if share != 1
    ]
    return study.model_copy(
        update={
            "title": f"{study.title or study.name}: sensitivity to the budget of {', '.join(varied)}",
            "regimes": (),
            "entry": (*entries, *more),
            "claim": tuple(claims),
        }
    )


def rows(judgements: Sequence[Judgement], plan: Plan, varied: Sequence[str]) -> list[Row]:
    """The judgements of a derived study, claim by claim of the study that it was derived from."""
    about = [claim for claim in plan.claims if any(quantity.label in varied for quantity in claim.quantities)]
    size = len(BUDGETS)
    return [Row(claim.text, tuple(judgements[i * size : (i + 1) * size])) for i, claim in enumerate(about)]


def _scaled(plan: Plan, entry: Entry, share: float) -> Entry:
    settings = plan.member(str(entry.label)).settings or Settings()
    epochs = max(1, round(settings.epochs * share))
    return entry.model_copy(
        update={"label": _label(str(entry.label), share), "training": entry.training | {"epochs": epochs}}
    )


def _label(label: str, share: float) -> str:
    return label if share == 1 else f"{label}-x{share:g}"


def _renamed(text: str, varied: Sequence[str], share: float) -> str:
    """A claim about the same entries at another budget."""
    for label in varied:
        text = re.sub(rf"(\(\s*){re.escape(label)}(?=\s*[,)])", rf"\g<1>{_label(label, share)}", text)
    return text
