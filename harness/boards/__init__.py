"""Stored results for people and programs: as leaderboards, and as one table.

>>> import harness
>>> harness.load_results("leaderboards/results")  # doctest: +SKIP
>>> harness.leaderboard("leaderboards/results")[0].to_pandas()  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness import datasets
from harness.errors import ResultError
from harness.results import formats as board_formats
from harness.results import leaderboard as ranking
from harness.results import stats, store
from harness.results.formats import Board
from harness.results.record import Result
from harness.threat import ThreatModel
from harness.util import paths

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["leaderboard", "load_results"]


def leaderboard(
    results: str | Path | None = None, *, output: str | Path | None = None, formats: Sequence[str] = ()
) -> list[Board]:
    """Rank the results in a folder: one board per data set and threat model.

    Args:
        results: the folder; ``leaderboards/results`` under ``$HARNESS_HOME`` or here if not given.
        output: a folder to write every board to; None writes nothing.
        formats: what to write, such as "csv" or "markdown"; every registered format if empty.

    Raises:
        ResultError: no results that can be ranked.
        UnknownName, InvalidInput: no such format.
        StorageError: a folder that cannot be written.
    """
    for name in formats:  # before anything is written
        board_formats.get(name)
    folder = paths.results_root() if results is None else Path(results).expanduser()
    found, left_out = _read(folder)
    boards = ranking.boards(
        (result for _, result in found),
        _standard(found),
        left_out=left_out,
        survivors=lambda result: store.read_survivors(folder, result),
    )
    if output is not None:
        for board in boards:
            ranking.write(board, Path(output).expanduser(), formats)
    return boards


def load_results(results: str | Path | None = None) -> pd.DataFrame:
    """All results in a folder as a table, one row each, in the order in which they were recorded.

    Accuracies are fractions, with the ends of their 95 % Wilson intervals. The column ``file`` is what
    `harness.Result.load` reads. Files that hold no result to be trusted are in ``attrs["left_out"]``.

    Args:
        results: the folder; ``leaderboards/results`` under ``$HARNESS_HOME`` or here if not given.

    Raises:
        ResultError: there is no such folder, or nothing in it.
    """
    import pandas as pd

    found, left_out = _read(paths.results_root() if results is None else Path(results).expanduser())
    ordered = sorted(found, key=lambda pair: (pair[1].recorded, pair[0].name))
    frame = pd.DataFrame([_cells(path, result) for path, result in ordered])
    frame.attrs["left_out"] = [one._asdict() for one in left_out]
    return frame


def _read(folder: Path) -> store.Folder:
    found = store.read_all(folder)
    if not found.results:
        why = "".join(f"; {reason}" for _, reason in found.left_out[:1])
        raise ResultError(f"no results in {folder}: run 'harness evaluate' or name a folder with --results{why}")
    return found


def _standard(found: Iterable[tuple[Path, Result]]) -> dict[str, tuple[ThreatModel, ...]]:
    """The threat models whose boards are called by the norm alone, of the data sets that there are results of."""
    named = {result.dataset.name for _, result in found}
    return {name: datasets.about(name).threats for name in datasets.names() if name in named}


def _cells(path: Path, result: Result) -> dict[str, object]:
    """A result as plain values by column name."""
    clean, robust = (stats.wilson(round(value * result.n), result.n) for value in (result.clean_acc, result.robust_acc))
    attacked = bool(result.steps)
    return {
        "checkpoint": result.checkpoint,
        "dataset": result.dataset.name,
        "split": result.dataset.split,
        "threat": f"{result.threat.norm}:{result.threat.eps}",
        "suite": result.suite,
        "seed": result.seed,
        "n": result.n,
        "partial": result.partial,
        "clean_acc": result.clean_acc,
        "clean_low": clean[0],
        "clean_high": clean[1],
        "robust_acc": result.robust_acc if attacked else None,
        "robust_low": robust[0] if attacked else None,
        "robust_high": robust[1] if attacked else None,
        "regime": result.model.regime,
        "architecture": result.model.architecture,
        "parameters": result.model.parameters,
        "bn_stats": result.model.bn_stats,
        "flags": "; ".join(map(str, result.flags)),
        "seconds": result.seconds,
        "recorded": result.recorded,
        "evaluation_id": result.evaluation_id,
        "file": str(path),
    }
