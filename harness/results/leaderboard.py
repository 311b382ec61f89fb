"""From result files to ranked boards: a pure function, the same boards for the same results.

The rules, all of them:

- A board is a data set (name, split, content), a norm and a radius. A run on fewer samples than the split
  holds goes to a board of its own kind, where ranks restart for every set of samples.
- A board has a column of robust accuracy for every suite that its results hold (`harness.results.measures`). A
  result without steps says clean accuracy only.
- A row is a network under a name. A network is what `harness.results.identity.network_id` hashes: weights, architecture
  with its arguments and the source text of a user's file, norm layer, normalisation, and the BN statistics that it was
  evaluated with. One network under two names is two rows.
- A record that was made anew of the verdicts of an earlier one, under the same name, takes its place: names, claims
  and flags are those of the last.
- A flag that only some of the results shown carry says which suite it is of.
- Of several results of one suite on one row the one with the lowest robust accuracy is shown, of equal ones
  the one with the most flags; the clean accuracy is the lowest of the results shown. Results of one evaluation whose
  figures differ are a flag.
- A result that was retracted or superseded counts no longer, and its board shows the line of the history that says so,
  even where no row is left.
- Where there is no result of a suite that has a stand-in, such as ``autoattack-reference`` for ``autoattack``, that
  one's result is shown, and a flag says so.
- Ranked by the strongest standard measure, then the next (AutoAttack, then PGD), then the measures that are not
  standard, then clean accuracy; missing figures last; equal figures share a rank.
- A suite that found a lower robust accuracy than the one that decides the rank is a flag, unless it is known to be
  stronger.
- The best known figure of a row counts the samples that every result of the same network, images and threat model left
  standing, whatever the suite, the seed and the name: more results can only lower it.
- Rows of one set of samples that are ranked by the same measure are compared with each other (`harness.results.ties`),
  and rows that cannot be told apart from the first of their group are one group.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np

from harness.audit import kinds
from harness.audit.flags import Flag
from harness.results import formats, measures, stats
from harness.results.curve import never_rising
from harness.results.formats import CLEAN, Accuracy, Board, CurvePoint, Row
from harness.results.history import Entry, result_key, withdrawals
from harness.results.identity import network_id, run_id
from harness.results.measures import Measure
from harness.results.record import Result
from harness.results.store import LeftOut, Survivors, safe_name
from harness.results.ties import ties
from harness.threat import ThreatModel
from harness.util.files import write_atomically

__all__ = ["boards", "write"]

_Key = tuple[str, str, int, str, float, bool, str]


def boards(
    results: Iterable[Result],
    standard: Mapping[str, Sequence[ThreatModel]] | None = None,
    *,
    left_out: Iterable[LeftOut] = (),
    history: Iterable[Entry] = (),
    survivors: Callable[[Result], Survivors | None] = lambda result: None,
    keeps_examples: Callable[[Result], bool] = lambda result: True,
    deviation: Callable[[Result], str | None] = lambda result: None,
) -> list[Board]:
    """Rank results into boards, sorted by name; the order of ``results`` does not matter.

    Args:
        standard: per data set the threat models whose board is called by the norm alone (``digits-Linf``);
            all others carry their eps (``digits-Linf-0.3``).
        left_out: files that hold no result to be trusted; every board names them.
        history: of the results; those that were taken back are not ranked.
        survivors: which samples of a result survive, None where that is not known. Rows are then compared by
            their counts alone. Asked several times for a result.
        keeps_examples: whether the file of adversarial examples that a result names is there.
        deviation: in what the steps of a result differ from those of the suite that it names; None where they do not.
    """
    grouped: dict[_Key, list[Result]] = defaultdict(list)
    at_all_radii: dict[tuple[object, ...], list[Result]] = defaultdict(list)
    lines = sorted(dict.fromkeys(history), key=lambda line: (line.at, line.model_dump_json()))
    listed = list(results)
    taken_back = withdrawals(lines)
    for result in listed:
        grouped[_key(result)].append(result)
    ranked: dict[_Key, list[Result]] = defaultdict(list)
    for result in _latest(result for result in listed if taken_back(result) is None):
        ranked[_key(result)].append(result)
        at_all_radii[_curve_key(result)].append(result)
    names = {key: _name(key, grouped[key], standard or {}) for key in grouped}
    shared = Counter(names.values())
    unused = tuple(sorted(left_out))
    made = []
    for key, members in grouped.items():
        name = names[key]
        if shared[name] > 1:  # the same name for other data: both say which
            name += "-" + hashlib.sha256(json.dumps(key).encode()).hexdigest()[:8]
        first = members[0]
        counting = ranked[key]
        found = measures.columns(result.suite for result in counting if result.steps)
        rows = _rows(counting, measures.ranking(found), survivors)
        differing = _differing(counting)
        made.append(
            Board(
                name=name,
                dataset=first.dataset.name,
                split=first.dataset.split,
                norm=first.threat.norm,
                eps=_eps(members),
                size=first.dataset.size,
                partial=first.partial,
                measures=found,
                left_out=unused,
                history=tuple(line for line in lines if line.is_about(first)),
                rows=tuple(
                    replace(
                        row,
                        curve=_curve(at_all_radii[_curve_key(row.deciding)], survivors),
                        flags=_flags({*row.flags, *_of_row(row, differing, keeps_examples, deviation)}),
                    )
                    for row in rows
                ),
            )
        )
    return sorted(made, key=lambda board: board.name)


def write(board: Board, directory: Path, names: Sequence[str] = ()) -> list[Path]:
    """Write a board, each file atomically; returns the files.

    Args:
        names: of the formats; every registered one if empty.

    Raises:
        StorageError: the folder cannot be written.
    """
    paths = []
    for name in names or formats.names():
        form = formats.get(name)
        path = directory / f"{board.name}{form.suffix}"
        write_atomically(path, form.render(board).encode())
        paths.append(path)
    return paths


def _latest(results: Iterable[Result]) -> list[Result]:
    """Of the records that were made of one run under one name, the last; in an order that follows from them."""
    last: dict[tuple[str, str, str], Result] = {}
    for result in results:
        run = (result.checkpoint, result.suite, run_id(result))
        if run not in last or _age(last[run]) < _age(result):
            last[run] = result
    return sorted(last.values(), key=lambda result: (result.checkpoint, result.model_dump_json()))


def _age(result: Result) -> tuple[str, str]:
    return result.recorded, result.record_id  # the hash, so that the order of the results does not matter


def _key(result: Result) -> _Key:
    # partial runs hold other samples each; they share a board and are told apart in it
    content = "" if result.partial else result.dataset.sha256
    dataset, threat = result.dataset, result.threat
    return (dataset.name, dataset.split, dataset.size, threat.norm, threat.rounded, result.partial, content)


def _name(key: _Key, members: list[Result], standard: Mapping[str, Sequence[ThreatModel]]) -> str:
    dataset, split, _, norm, radius, partial, _ = key
    parts = [dataset] if split == "test" else [dataset, split]
    parts.append(norm)
    if not any(t.norm == norm and abs(t.radius - radius) < 1e-9 for t in standard.get(dataset, ())):
        parts.append(_eps(members))
    if partial:
        parts.append("partial")
    return "-".join(safe_name(part) for part in parts)


def _eps(members: list[Result]) -> str:
    # the same radius may have been written in several ways
    return min((result.threat.eps for result in members), key=lambda eps: (len(eps), eps))


def _model(result: Result) -> tuple[str, str]:
    """What makes a row: one network under one name."""
    return result.checkpoint, network_id(result.model)


def _curve_key(result: Result) -> tuple[object, ...]:
    """Equal for results that differ in their radius alone."""
    measure = measures.measure_of(result.suite).name
    return (*_model(result), result.dataset.sha256, result.n, result.threat.norm, bool(result.steps), measure)


def _curve(results: Iterable[Result], survivors: Callable[[Result], Survivors | None]) -> tuple[CurvePoint, ...]:
    """Robust accuracy at every radius, of several results at one the lowest; none where nothing was attacked.

    What was broken at some radius counts as broken at every larger one, sample by sample where verdicts are known.
    """
    lowest: dict[float, Result] = {}
    for result in results:
        radius = result.threat.rounded
        if result.steps and (radius not in lowest or result.robust_acc < lowest[radius].robust_acc):
            lowest[radius] = result
    ordered = sorted(lowest.items())
    counts = _never_rising([result for _, result in ordered], survivors) if len(ordered) > 1 else None
    return tuple(
        CurvePoint(result.threat.eps, radius, _accuracy(counts[place] if counts else result.robust_acc, result.n))
        for place, (radius, result) in enumerate(ordered)
    )


def _never_rising(results: Sequence[Result], survivors: Callable[[Result], Survivors | None]) -> list[float]:
    """Accuracies at ascending radii, on equal samples."""
    known = [survivors(result) for result in results]
    masks = [one.robust for one in known if one is not None]
    if len(masks) < len(results):
        return [float(value) for value in np.minimum.accumulate([result.robust_acc for result in results])]
    return [float(mask.mean()) for mask in never_rising(masks)]


def _rows(
    results: list[Result], order: Sequence[Measure], survivors: Callable[[Result], Survivors | None]
) -> tuple[Row, ...]:
    subsets: dict[tuple[int, str], dict[tuple[str, str], list[Result]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        subsets[-result.n, result.dataset.sha256][_model(result)].append(result)
    rows: list[Row] = []
    for _, models in sorted(subsets.items()):
        known = _best_known((result for members in models.values() for result in members), survivors)
        made = [
            replace(_row(members), best_known=known.get(network)) for (_, network), members in sorted(models.items())
        ]
        rows += _grouped(_ranked(_told_apart(made), order), survivors)
    return tuple(rows)


def _told_apart(rows: Sequence[Row]) -> list[Row]:
    """The same rows; of other networks under the same name each says which it is: by its weights, or by what else
    decides its answers where the weights are equal."""
    named = Counter(row.checkpoint for row in rows)
    equal = Counter((row.checkpoint, row.deciding.model.sha256) for row in rows)

    def which(row: Row) -> str:
        model = row.deciding.model
        return network_id(model) if equal[row.checkpoint, model.sha256] > 1 else model.sha256

    return [
        replace(row, checkpoint=f"{row.checkpoint} ({which(row)[:8]})") if named[row.checkpoint] > 1 else row
        for row in rows
    ]


def _best_known(results: Iterable[Result], survivors: Callable[[Result], Survivors | None]) -> dict[str, Accuracy]:
    """By `network_id`, the share of samples that no result broke; of results whose samples are known.

    Args:
        results: on the same images, under the same threat model.
    """
    standing: dict[str, Survivors] = {}
    for result in results:
        found = survivors(result) if result.steps else None
        if found is None:
            continue
        network = network_id(result.model)
        before = standing.setdefault(network, found)
        if np.array_equal(before.index, found.index):
            standing[network] = Survivors(found.index, before.robust & found.robust)
    return {
        network: _accuracy(float(left.robust.sum()) / len(left.robust), len(left.robust))
        for network, left in standing.items()
    }


def _ranked(rows: list[Row], order: Sequence[Measure]) -> list[Row]:
    def merit(row: Row) -> tuple[int, ...]:
        figures = (*(row.robust.get(measure.name) for measure in order), row.clean)
        return tuple(-1 if figure is None else round(figure.value * row.n) for figure in figures)

    rows = sorted(rows, key=lambda row: (tuple(-count for count in merit(row)), row.checkpoint))
    ranks: dict[tuple[int, ...], int] = {}
    return [replace(row, rank=ranks.setdefault(merit(row), place)) for place, row in enumerate(rows, 1)]


def _grouped(rows: list[Row], survivors: Callable[[Result], Survivors | None]) -> Iterator[Row]:
    """The same rows with what they cannot be told apart from; those of another measure are a group of their own."""
    first = 1
    for _, alike in groupby(rows, key=lambda row: row.ranked_by):
        members = list(alike)
        results = [row.deciding for row in members]
        counts = [round(result.robust_acc * result.n) for result in results]
        found = ties(counts, members[0].n, [survivors(result) for result in results])
        for row, tie in zip(members, found, strict=True):
            ranks = tuple(dict.fromkeys(members[position].rank for position in tie.rows))
            yield replace(row, group=first + tie.group, tied_with=ranks, paired=tie.paired)
        first += found[-1].group + 1


def _row(results: list[Result]) -> Row:
    chosen: dict[str, Result] = {}
    for result in results:
        known = chosen.get(result.suite)
        if known is None or _doubt(result) < _doubt(known):
            chosen[result.suite] = result
    attacked = {suite: result for suite, result in chosen.items() if result.steps}
    found = measures.columns(attacked)
    robust = {measure: next(attacked[suite] for suite in measure.suites if suite in attacked) for measure in found}
    unattacked = [result for result in chosen.values() if not result.steps]
    shown = [*robust.values(), *unattacked]
    flags = _own_flags(robust, unattacked) | _lower(robust)
    for measure, result in robust.items():
        if result.suite != measure.suites[0]:
            flags.add(kinds.STANDS_IN(measure=measure.label, suite=result.suite))
        flags |= _spread(measure, [other for other in results if other.suite == result.suite])
    if len({round(result.clean_acc * result.n) for result in shown}) > 1:
        flags.add(kinds.CLEAN_DIFFERS())

    first = results[0]
    model = first.model
    share = None
    if model.trained_parameters is not None and model.parameters:
        share = model.trained_parameters / model.parameters
    figures_of = {measure.name: result for measure, result in robust.items()}
    if unattacked:
        figures_of[CLEAN] = unattacked[0]
    return Row(
        rank=0,
        checkpoint=first.label,
        regime=model.regime,
        parent=model.parent,
        architecture=model.architecture,
        parameters=model.parameters,
        trained_share=share,
        clean=_accuracy(min(result.clean_acc for result in shown), first.n),
        robust={measure.name: _accuracy(result.robust_acc, first.n) for measure, result in robust.items()},
        ranked_by=next((measure.name for measure in measures.ranking(found)), None),
        n=first.n,
        flags=_flags(flags),
        results=figures_of,
    )


def _own_flags(robust: Mapping[Measure, Result], unattacked: Iterable[Result]) -> set[Flag]:
    """The flags of the results that a row shows; of what some of them carry and others do not, whose it is."""
    named = [(measure.label, set(result.flags)) for measure, result in robust.items()]
    named += [(result.suite, set(result.flags)) for result in unattacked]
    shared = set.intersection(*(flags for _, flags in named))
    return shared.union(flag.of_suite(name) for name, flags in named for flag in flags - shared)


def _spread(measure: Measure, results: list[Result]) -> set[Flag]:
    """A note on the figures of several seeds, the lowest of each."""
    by_seed: dict[int, float] = {}
    for result in results:
        by_seed[result.seed] = min(result.robust_acc, by_seed.get(result.seed, 1.0))
    if len(by_seed) < 2:
        return set()
    values = list(by_seed.values())
    mean, lowest, highest = (f"{100 * value:.1f} %" for value in (sum(values) / len(values), min(values), max(values)))
    return {kinds.SEVERAL_SEEDS(measure=measure.label, seeds=len(values), mean=mean, lowest=lowest, highest=highest)}


def _differing(results: Iterable[Result]) -> dict[str, Flag]:
    """A flag for every evaluation that was made more than once, with different figures, by its hash."""
    by_evaluation: dict[str, dict[tuple[float, float], Result]] = defaultdict(dict)
    for result in results:
        by_evaluation[result.evaluation_id].setdefault((result.robust_acc, result.clean_acc), result)
    return {
        evaluation_id: kinds.RESULTS_DIFFER(
            suite=next(iter(found.values())).suite,
            figures=", ".join(
                f"clean {100 * clean:.1f} %, robust {100 * robust:.1f} % ({result_key(result)[:12]})"
                for (robust, clean), result in sorted(found.items(), key=lambda item: item[0])
            ),
        )
        for evaluation_id, found in by_evaluation.items()
        if len(found) > 1
    }


def _of_row(
    row: Row,
    differing: Mapping[str, Flag],
    keeps_examples: Callable[[Result], bool],
    deviation: Callable[[Result], str | None],
) -> Iterator[Flag]:
    """Flags of the results that a row shows, which these do not carry themselves."""
    for result in row.results.values():
        if result.evaluation_id in differing:
            yield differing[result.evaluation_id]
        if result.adversarial is not None and not keeps_examples(result):
            yield kinds.EXAMPLES_MISSING(suite=result.suite, file=result.adversarial.file)
        difference = deviation(result)
        if difference is not None:
            yield kinds.STEPS_DIFFER(suite=result.suite, difference=difference)


def _flags(flags: Iterable[Flag]) -> tuple[Flag, ...]:
    return tuple(sorted(flags, key=lambda flag: (flag.text, flag.code)))


def _lower(robust: Mapping[Measure, Result]) -> set[Flag]:
    """A flag for every measure that is below the one that decides the rank and should not be."""
    order = measures.ranking(robust)
    return {
        kinds.RANKED_NOT_LOWEST(lower=measure.label, ranked=order[0].label)
        for measure in order[1:]
        if robust[measure].robust_acc < robust[order[0]].robust_acc
        and not (measure.strength and order[0].strength and measure.strength > order[0].strength)
    }


def _doubt(result: Result) -> tuple[float, int]:
    return result.robust_acc, -len(result.flags)


def _accuracy(value: float, n: int) -> Accuracy:
    low, high = stats.wilson(round(value * n), n)
    return Accuracy(value, low, high)
