"""Stored results for people and programs: as leaderboards, and as one table.

>>> import harness
>>> harness.load_results("leaderboards/results")  # doctest: +SKIP
>>> harness.leaderboard("leaderboards/results")[0].to_pandas()  # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from harness import datasets
from harness.boards.suites_held import deviation
from harness.errors import InvalidInput, ResultError
from harness.results import formats as board_formats
from harness.results import history, stats, store
from harness.results import leaderboard as ranking
from harness.results.formats import Board
from harness.results.heading import heading
from harness.results.history import Entry, result_key
from harness.results.record import Result
from harness.results.store import LeftOut, Survivors
from harness.threat import ThreatModel
from harness.util import paths

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Folders", "leaderboard", "load_results"]

Folders = str | Path | Iterable[str | Path]
"""One folder of results, or several."""


def leaderboard(
    results: Folders | None = None, *, output: str | Path | None = None, formats: Sequence[str] = ()
) -> list[Board]:
    """Rank the results in one or several folders: one board per data set and threat model.

    A result that lies in several folders counts once, and what the history of one folder takes back is taken back in
    all.

    Args:
        results: the folders; ``leaderboards/results`` under ``$HARNESS_HOME`` or here if not given.
        output: a folder to write every board to; None writes nothing.
        formats: what to write, such as "csv" or "markdown"; every registered format if empty.

    Raises:
        ResultError: no results that can be ranked, or a history that cannot be read.
        UnknownName, InvalidInput: no such format, or something that is no folder.
        StorageError: a folder that cannot be written.
    """
    for name in formats:  # before anything is written
        board_formats.get(name)
    found = _read(results, samples=True)
    boards = ranking.boards(
        found.results,
        _standard(found.results),
        left_out=found.left_out,
        history=found.history,
        survivors=lambda result: found.survivors[result_key(result)],
        keeps_examples=found.keeps_examples,
        deviation=deviation,
    )
    if output is not None:
        for board in boards:
            ranking.write(board, Path(output).expanduser(), formats)
    return boards


def load_results(results: Folders | None = None) -> pd.DataFrame:
    """All results in one or several folders as a table, one row each, in the order in which they were recorded.

    Accuracies are fractions, with the ends of their 95 % Wilson intervals. The column ``file`` is what
    `harness.Result.load` reads, and ``withdrawn`` says why a result that was taken back is on no leaderboard. Files
    that hold no result to be trusted are in ``attrs["left_out"]``.

    Args:
        results: the folders; ``leaderboards/results`` under ``$HARNESS_HOME`` or here if not given.

    Raises:
        InvalidInput: what was given is no folder, and no sequence of folders.
        ResultError: there is no such folder, nothing in it, or a history that cannot be read.
    """
    import pandas as pd

    found = _read(results)
    ordered = sorted(found.files, key=lambda pair: (pair[1].recorded, pair[0].name))
    taken_back = history.withdrawals(found.history)
    frame = pd.DataFrame([_cells(path, result, taken_back(result)) for path, result in ordered])
    frame.attrs["left_out"] = [one._asdict() for one in found.left_out]
    return frame


@dataclass(frozen=True)
class _Found:
    """What lies in some folders: results with their files, files that are left out, and the lines of the histories.

    Attributes:
        survivors: the samples that survive in each result, by `result_key`; empty where they were not asked for.
    """

    files: tuple[tuple[Path, Result], ...]
    left_out: tuple[LeftOut, ...]
    history: tuple[Entry, ...]
    survivors: dict[str, Survivors]

    @property
    def results(self) -> list[Result]:
        return [result for _, result in self.files]

    @cached_property
    def _folders(self) -> dict[str, Path]:
        return {result_key(result): path.parent for path, result in self.files}

    def keeps_examples(self, result: Result) -> bool:
        """Whether the file of adversarial examples that one of the results names lies beside it."""
        kept = result.adversarial
        with suppress(OSError):  # a name that no file can have
            return kept is not None and (self._folders[result_key(result)] / Path(kept.file).name).is_file()
        return False


def _read(results: Folders | None, *, samples: bool = False) -> _Found:
    """With ``samples`` the surviving samples as well; results of which they cannot be read are left out."""
    listed = _listed(paths.results_root() if results is None else results)
    folders = list({folder.resolve(): folder for folder in listed}.values())
    if not folders:
        raise ResultError("expected a folder of results, got none")
    files: dict[str, tuple[Path, Result]] = {}
    survivors: dict[str, Survivors] = {}
    left_out: list[LeftOut] = []
    lines: list[Entry] = []
    for folder, name in zip(folders, _names(folders), strict=True):
        there = store.read_all(folder)
        unused = list(there.left_out)
        for path, result in there.results:
            key = result_key(result)
            if samples and key not in files:
                try:
                    survivors[key] = store.read_survivors(folder, result)
                except ResultError as error:
                    # as everywhere on a board, no word of where the folder lies
                    unused.append(LeftOut(path.name, f"{path.name}: {error}".replace(f"{folder}{os.sep}", "")))
                    continue
            files.setdefault(key, (path, result))
        left_out += [LeftOut(f"{name}{file}", reason.replace(file, f"{name}{file}")) for file, reason in unused]
        lines += history.read(folder)
    if not files:
        where = " or ".join(map(str, folders))
        why = "".join(f"; {reason}" for _, reason in left_out[:1])
        raise ResultError(f"no results in {where}: run 'harness evaluate' or name a folder with --results{why}")
    return _Found(tuple(files.values()), tuple(left_out), tuple(lines), survivors)


def _listed(given: object) -> list[Path]:
    several = list(given) if isinstance(given, Iterable) and not isinstance(given, str | Mapping) else [given]
    listed = [Path(one).expanduser() for one in several if isinstance(one, str | Path)]
    if len(listed) < len(several):
        raise InvalidInput(f"expected a folder of results or several, each as text or a path, got {given!r}"[:200])
    return listed


def _names(folders: Sequence[Path]) -> list[str]:
    """What tells several folders apart, as the beginning of a file's path; nothing for a single one."""
    if len(folders) == 1:
        return [""]
    whole = [folder.resolve() for folder in folders]
    common = os.path.commonpath(whole)
    return [f"{one.relative_to(common) if str(one) != common else one.name}/" for one in whole]


def _standard(results: Iterable[Result]) -> dict[str, tuple[ThreatModel, ...]]:
    """The threat models whose boards are called by the norm alone, of the data sets that there are results of."""
    named = {result.dataset.name for result in results}
    return {name: datasets.about(name).threats for name in datasets.names() if name in named}


def _cells(path: Path, result: Result, taken_back: Entry | None) -> dict[str, object]:
    """A result as plain values by column name."""
    clean, robust = (stats.wilson(round(value * result.n), result.n) for value in (result.clean_acc, result.robust_acc))
    attacked = bool(result.steps)
    return {
        **heading(result),
        "clean_acc": result.clean_acc,
        "clean_low": clean[0],
        "clean_high": clean[1],
        "robust_acc": result.robust_acc if attacked else None,
        "robust_low": robust[0] if attacked else None,
        "robust_high": robust[1] if attacked else None,
        "regime": result.model.regime,
        "architecture": result.model.architecture,
        "parameters": result.model.parameters,
        "flags": "; ".join(map(str, result.flags)),
        "seconds": result.seconds,
        "recorded": result.recorded,
        "evaluation_id": result.evaluation_id,
        "withdrawn": taken_back.text if taken_back else None,
        "file": str(path),
    }
