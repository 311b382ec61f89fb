"""Hyper-parameters chosen alike for every entry: each combination is trained once, and validation decides.

A regime that needs another learning rate than the one it was given looks worse than it is. So a study may list rates
and weight decays; every entry is trained with all combinations, each for the study's whole budget, and keeps the best.
What decides is accuracy on the validation split, under PGD for regimes that train adversarially; test images play no
part. The seed of these trainings is none of the study's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, product
from pathlib import Path
from typing import Any

from pydantic import Field

from harness.errors import InvalidInput, ResultError, UnknownName
from harness.studies.measurements import Network, collect
from harness.studies.planning import Member, Plan, plan
from harness.studies.runner import Summary, run
from harness.studies.spec import Entry, Search, Study
from harness.training import Settings
from harness.util.files import write_atomically
from harness.util.reading import parse_json, read_bounded
from harness.util.text import counted
from harness.util.validation import Record, validate

__all__ = ["NAME", "Choice", "Trial", "applied", "choose", "read", "search"]

NAME = "search.json"
_MOST_BYTES = 1 << 22


class Trial(Record):
    """One combination, and the accuracies on the validation split of the network that it trained.

    Attributes:
        network: name of its checkpoint, which carries a hash of all that decides the training.
    """

    learning_rate: float
    weight_decay: float
    clean: float | None
    robust: float | None
    network: str


class Choice(Record):
    """The combinations of an entry, and the position of the best."""

    trials: tuple[Trial, ...] = Field(min_length=1)
    chosen: int

    @property
    def training(self) -> dict[str, float]:
        """What the entry is trained with."""
        best = self.trials[self.chosen]
        return {"learning_rate": best.learning_rate, "weight_decay": best.weight_decay}


class _Searched(Record):
    search: Search
    choices: dict[str, Choice]
    study: str = ""  # a quick variant searches with fewer epochs


def search(study: Study, output: Path, *, where: Mapping[str, Any], **how: Any) -> list[Summary]:
    """Train all combinations that are missing and note the best in the study's folder. Parents come first, so that an
    entry is searched from the parent that the study will use.

    Args:
        where: further arguments of `harness.studies.plan`. how: of `harness.studies.run`.

    Raises:
        InvalidInput: the study lists no combinations, keeps no validation split, or a training failed.
        UnknownName: it names an entry that it lacks.
    """
    if study.search is None:
        raise InvalidInput(f"the study {study.name} has no [search]: add lists of learning_rate or weight_decay to it")
    where = {**where, "seeds": None}
    choices: dict[str, Choice] = {}
    summaries = []
    for labels in _levels(plan(study, **where), study.search):
        widened, trials = _with_trials(study, labels, choices, where)
        planned = plan(widened, **where)
        summary = run(planned, output=output, only=chain(*trials.values()), evaluate=False, **how)
        summaries.append(summary)
        if summary.failures:
            failed = counted(len(summary.failures), "training")
            raise InvalidInput(
                f"{failed} of the search failed ({'; '.join(summary.failures.values())}): "
                "take their combinations out of [search]"
            )
        networks = collect(planned, output).networks
        for label, named in trials.items():
            found = [networks[trial][study.search.seed] for trial in named]
            choices[label] = choose(planned.member(named[0]), found, keep=study.keep)
    noted = _Searched(search=study.search, choices=choices, study=study.name)
    write_atomically(output / NAME, (json.dumps(noted.model_dump(mode="json"), indent=2) + "\n").encode())
    return summaries


def choose(member: Member, networks: Sequence[Network], *, keep: str) -> Choice:
    """The best of the networks of one entry; of equals the first.

    Raises:
        InvalidInput: nothing was measured on a validation split.
    """
    adversarial = member.regime is not None and member.regime.stages()[-1].loss != "natural"
    trials, scores = [], []
    for network in networks:
        ends = [_accuracies(row) for row in network.log if "validation_clean_acc" in row]
        if not ends:
            raise InvalidInput(
                f"a search is decided on the validation split, and the training of {network.manifest.name} keeps none: "
                "set validation above 0"
            )
        ranked = [(robust, clean) if adversarial else (clean, robust) for clean, robust in ends]
        best = max(range(len(ends)), key=ranked.__getitem__) if keep == "best" else len(ends) - 1
        facts = network.manifest.training
        trials.append(
            Trial(
                learning_rate=facts["learning_rate"],
                weight_decay=facts["weight_decay"],
                clean=ends[best][0],
                robust=ends[best][1],
                network=network.manifest.name,
            )
        )
        scores.append(ranked[best])
    return Choice(trials=tuple(trials), chosen=max(range(len(scores)), key=scores.__getitem__))


def read(study: Study, output: Path) -> Mapping[str, Choice]:
    """What was chosen for each entry; empty for a study that searches nothing.

    Raises:
        InvalidInput: nothing was searched yet, or by other lists than the study's.
        ResultError: the file is damaged.
    """
    if study.search is None:
        return {}
    path = output / NAME
    if not path.exists():
        raise InvalidInput(
            f"the study {study.name} chooses its learning rates and weight decays by a search: run "
            "'harness study search FILE' first"
        )
    try:
        found = validate(_Searched, parse_json(read_bounded(path, _MOST_BYTES)), f"the search {path}")
    except (OSError, ValueError, InvalidInput) as error:
        raise ResultError(
            f"{path} cannot be read ({error}): delete it and search again, no training is lost"
        ) from error
    if found.search != study.search or found.study not in ("", study.name):
        raise InvalidInput(
            f"{path} was made from another [search] than the study's, or by another variant of it: run 'harness study "
            "search FILE' again"
        )
    return found.choices


def applied(study: Study, choices: Mapping[str, Choice]) -> Study:
    """The study with every entry at what was chosen for it."""
    entries = [
        entry.model_copy(update={"training": entry.training | choices[label].training}) if label in choices else entry
        for label, entry in _labelled(study)
    ]
    return study.model_copy(update={"regimes": (), "entry": tuple(entries)})


def _labelled(study: Study) -> Iterator[tuple[str, Entry]]:
    for entry in study.entries():
        named = Path(entry.label or entry.regime or entry.checkpoint or "").name
        yield entry.label or named.removesuffix(".toml"), entry


def _levels(planned: Plan, wanted: Search) -> list[tuple[str, ...]]:
    """The entries to be searched, parents before those who start from them."""
    labels = [member.label for member in planned.members if member.regime is not None]
    for label in wanted.entries:
        if label not in labels:
            raise UnknownName("trained entry of the study", label, labels)
    chosen = [label for label in labels if not wanted.entries or label in wanted.entries]
    depths: dict[str, int] = {}
    for label in planned.order:
        parent = planned.member(label).parent
        depths[label] = 0 if parent is None else depths[parent] + (parent in chosen)
    return [tuple(label for label in chosen if depths[label] == depth) for depth in sorted({depths[c] for c in chosen})]


def _with_trials(
    study: Study, labels: Sequence[str], choices: Mapping[str, Choice], where: Mapping[str, Any]
) -> tuple[Study, dict[str, tuple[str, ...]]]:
    """The study with an entry for every combination of those in ``labels``, and what these entries are called."""
    wanted = study.search or Search()
    known = applied(study, choices)
    planned = plan(known, **where)
    trials: dict[str, tuple[str, ...]] = {}
    more: list[Entry] = []
    for label in labels:
        member = planned.member(label)
        settings = member.settings or Settings()
        names = []
        for rate, decay in product(
            wanted.learning_rate or (settings.learning_rate,), wanted.weight_decay or (settings.weight_decay,)
        ):
            names.append(f"{label}-lr{rate:g}-wd{decay:g}")
            numbers = member.entry.training | {"learning_rate": rate, "weight_decay": decay}
            update = {"label": names[-1], "training": numbers, "parent": member.parent}
            more.append(member.entry.model_copy(update=update))
        trials[label] = tuple(names)
    entries = tuple(entry.model_copy(update={"label": label}) for label, entry in _labelled(known))
    changes = {"entry": (*entries, *more), "regimes": (), "seeds": (wanted.seed,), "claim": (), "search": None}
    return study.model_copy(update=changes), trials


def _accuracies(row: Mapping[str, float]) -> tuple[float, float]:
    return row["validation_clean_acc"], row.get("validation_robust_acc", 0.0)
