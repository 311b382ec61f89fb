"""``harness compare``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from harness.cli import _options as options
from harness.cli._render import print_json, print_line, print_table
from harness.util import paths
from harness.util.text import counted

if TYPE_CHECKING:
    from harness.results.compare import Comparison, Pair
    from harness.results.record import Result

__all__ = ["compare"]

_SHOWN = 20


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="A B [C ...]")
@click.option(
    "--results",
    type=options.folder,
    metavar="DIR",
    help="Folder of result files; leaderboards/results under $HARNESS_HOME or here if not given.",
)
@click.option("--suite", metavar="NAME", help="Of several results of a checkpoint, those of this suite.")
@click.option("--threat", metavar="THREAT", help="Of several results of a checkpoint, those under it: Linf:8/255.")
@click.option(
    "--figures",
    type=options.folder,
    metavar="DIR",
    help="Draw some of the samples that differ, a PNG a pair: clean image, adversarial example, magnified difference.",
)
@click.option(
    "--samples", type=click.IntRange(min=2), default=6, show_default=True, metavar="N", help="Most in one of --figures."
)
@click.option("--dataset", metavar="NAME", help="The images for --figures; the name in the result if not given.")
@options.data_dir
@options.download
@options.as_json
def compare(
    names: tuple[str, ...],
    results: Path | None,
    suite: str | None,
    threat: str | None,
    figures: Path | None,
    as_json: bool,
    **images: Any,
) -> None:
    """Compare stored results sample by sample: who is more robust, and is that more than chance?

    A, B, ... are result files or names of evaluated checkpoints. Every two are compared on the samples that both were
    evaluated on, by an exact McNemar test; p-values are Holm-corrected where there are several pairs.
    """
    from harness.results import store
    from harness.results.compare import compare as compared
    from harness.util.files import check_writable

    if len(names) < 2:
        raise click.UsageError("expected at least two results or checkpoints to compare")
    folder = results or paths.results_root()
    chosen = [_file(name, folder, suite, threat) for name in names]
    files = [file for file, _ in chosen]
    if figures is not None:
        check_writable(figures)
    stored = [store.read(file) for file in files]
    comparison = compared([(result, store.read_verdicts(file)) for file, result in zip(files, stored, strict=True)])
    notes = [*comparison.notes, *_taken_back(files, stored), *(note for _, left_out in chosen for note in left_out)]
    heading = _heading(stored)
    drawn = [] if figures is None else _draw(comparison, files, figures, heading, _suites(stored), **images)
    if as_json:
        print_json(
            {
                "results": [str(file.resolve()) for file in files],
                "notes": notes,
                "pairs": [_object(pair) for pair in comparison.pairs],
                "figures": [str(path.resolve()) for path in drawn],
            }
        )
        return
    print_line(heading)
    for note in notes:
        print_line(f"note: {note}")
    for pair in comparison.pairs:
        _show(pair)
    if len(comparison.labels) > 2:
        _show_matrix(comparison)
    for path in drawn:
        print_line(f"written {path}")


def _draw(
    comparison: Comparison,
    files: list[Path],
    folder: Path,
    heading: str,
    suites: list[str],
    *,
    samples: int,
    **images: Any,
) -> list[Path]:
    """A picture of every pair that differs on samples that were broken in one."""
    from itertools import combinations

    from harness import evaluation
    from harness.results import store
    from harness.results.compare_picture import compare_picture
    from harness.util.files import write_atomically

    drawn = []
    for pair, (first, second) in zip(comparison.pairs, combinations(files, 2), strict=True):
        found = evaluation.differing_samples(pair, first, second, most=samples, **images)
        if found:
            parts = (pair.first, pair.second, *suites)
            path = folder / f"{'__'.join(map(store.safe_name, parts))}.png"
            write_atomically(path, compare_picture(found, heading))
            drawn.append(path)
        else:
            print_line(f"note: {pair.first} and {pair.second} differ on no sample that was broken in one", err=True)
    return drawn


def _suites(results: Sequence[Result]) -> list[str]:
    return sorted({result.suite for result in results})


def _heading(results: Sequence[Result]) -> str:
    """What was compared; all results are of one data set and threat model."""
    first = results[0]
    return f"{first.dataset.name} {first.dataset.split}, {first.threat.text}, {' and '.join(_suites(results))}"


def _file(name: str, folder: Path, suite: str | None, threat: str | None) -> tuple[Path, list[str]]:
    """The result file that ``name`` stands for, and a note on each of its results that was taken back."""
    from harness.errors import InvalidInput, UnknownName
    from harness.results import history, store
    from harness.results.identity import network_id

    if name.endswith(".json"):
        return Path(name), []
    taken_back = history.withdrawals(history.read(folder))
    stored = store.read_all(folder).results
    named = [one for one in stored if name.removesuffix(".pt") in (one[1].checkpoint, one[1].label)]
    if not named:
        counting = {result.label for _, result in stored if taken_back(result) is None}
        raise UnknownName(f"evaluated checkpoint in {folder}", name, counting)
    fitting = [
        (path, result)
        for path, result in named
        if suite in (None, result.suite) and threat in (None, result.threat.text) and _label_fits(name, result)
    ]
    if not fitting:
        raise InvalidInput(f"{name} has no result of suite {suite or 'any'} under {threat or 'any threat model'}")
    lines = [line for _, result in fitting if (line := taken_back(result)) is not None]
    found = [one for one in fitting if taken_back(one[1]) is None]
    if not found:
        why = "; ".join(dict.fromkeys(line.text for line in lines))
        listed = ", ".join(str(path) for path, _ in fitting)
        raise InvalidInput(
            f"what {name} has in {folder} was taken back ({why}): to compare it nevertheless, name the file: {listed}"
        )
    if suite is None:
        standard = [(path, result) for path, result in found if result.suite == "autoattack"]
        found = standard or found
    found = [(path, result) for path, result in found if not result.partial] or found
    different = {
        (network_id(result.model), result.suite, result.threat.text, result.dataset.sha256, result.seed)
        for _, result in found
    }
    if len(different) > 1:
        listed = ", ".join(str(path) for path, _ in found)
        raise InvalidInput(
            f"{name} has several results: choose with --suite or --threat, or name one of the files {listed}"
        )
    return found[0][0], [f"left out of the results of {name}: {line.text}" for line in lines]


def _taken_back(files: list[Path], stored: list[Result]) -> list[str]:
    """A note on each result that counts no longer; only one that was named by its file can be among them."""
    from harness.results import history

    found = [
        (file, history.withdrawals(history.read(file.parent))(result))
        for file, result in zip(files, stored, strict=True)
    ]
    return [f"{file} counts no longer, it was taken back: {line.text}" for file, line in found if line is not None]


def _label_fits(name: str, result: Result) -> bool:
    """A plain name means the stored statistics; others are named by their label."""
    return result.model.bn_stats == "stored" or name == result.label


def _object(pair: Pair) -> dict[str, Any]:
    return {
        "first": pair.first,
        "second": pair.second,
        "n": pair.n,
        "both": pair.both,
        "only_first": pair.only_first,
        "only_second": pair.only_second,
        "neither": pair.neither,
        "difference": pair.difference,
        "interval": list(pair.interval),
        "p_value": pair.p_value,
        "p_value_holm": pair.adjusted,
        "only_first_indices": pair.first_indices.tolist(),
        "only_second_indices": pair.second_indices.tolist(),
    }


def _show(pair: Pair) -> None:
    low, high = pair.interval
    print_line(f"{pair.first} against {pair.second}, {counted(pair.n, 'common sample')}")
    print_table(
        ("robust", f"{pair.second} robust", f"{pair.second} broken"),
        [
            (f"{pair.first} robust", pair.both, pair.only_first),
            (f"{pair.first} broken", pair.only_second, pair.neither),
        ],
        right=(f"{pair.second} robust", f"{pair.second} broken"),
    )
    verdict = "more than chance explains" if pair.significant else "not told apart from chance"
    print_line(
        f"difference {100 * pair.difference:+.1f} points (95 % interval {100 * low:+.1f} to {100 * high:+.1f}), "
        f"exact McNemar p {_p(pair.p_value)}, Holm-corrected {_p(pair.adjusted)}: {verdict}"
    )
    for label, indices in ((pair.first, pair.first_indices), (pair.second, pair.second_indices)):
        if len(indices):
            more = f", ... ({len(indices)} in all)" if len(indices) > _SHOWN else ""
            noun = "sample" if len(indices) == 1 else "samples"
            print_line(f"robust in {label} only: {noun} {', '.join(map(str, indices[:_SHOWN]))}{more}")
    print_line()


def _show_matrix(comparison: Comparison) -> None:
    """Differences of robust accuracy, row minus column, with a star where chance does not explain them."""
    cells: dict[tuple[str, str], str] = {}
    for pair in comparison.pairs:
        star = "*" if pair.significant else ""
        cells[pair.first, pair.second] = f"{100 * pair.difference:+.1f}{star}"
        cells[pair.second, pair.first] = f"{-100 * pair.difference:+.1f}{star}"
    rows = [(a, *(cells.get((a, b), "") for b in comparison.labels)) for a in comparison.labels]
    print_table(("row minus column, points", *comparison.labels), rows, right=comparison.labels)
    print_line("* larger than chance explains (Holm-corrected McNemar test, 5 %)")


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
