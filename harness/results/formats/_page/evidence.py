"""What stands behind each row, as data that the page's script shows when the row is opened.

Texts that many rows share, such as the names of facts and of steps, are written once, and rows hold their position.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator
from typing import Any

from harness.results.formats._base import CLEAN, Board, Row
from harness.results.formats._page.markup import Markup, shown
from harness.results.formats._page.table import Column
from harness.results.formats._tex import escaped
from harness.results.measures import ranking
from harness.results.record import Result, StepRecord
from harness.util.text import counted

__all__ = ["Shared", "Texts", "bibtex", "command", "evidence"]


_LONGEST_RUNS = 40


class Shared(str):
    """Text that many rows have, such as the words around a name."""

    __slots__ = ()


class Texts:
    """Every shared text once."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}
        self._seen: dict[str, int] = {}

    def place(self, text: object) -> int:
        """Where a text stands among all."""
        found = self._seen.get(str(text))
        if found is None:
            lines = "\n".join(map(shown, str(text).split("\n")))
            found = self._seen[str(text)] = self._places.setdefault(lines, len(self._places))
        return found

    def written(self, *parts: str) -> list[int | str]:
        """A text of several parts, shared ones as their places."""
        return [self.place(part) if isinstance(part, Shared) else shown(part) for part in parts]

    def all(self) -> list[str]:
        """The texts in their order."""
        return list(self._places)


def evidence(board: Board, columns: tuple[Column, ...], filters: dict[str, list[list[int]]]) -> Markup:
    """JSON that is safe inside a script element.

    Args:
        filters: the numbers of the rows that each choice of each filter shows.
    """
    texts = Texts()
    rows = [_row(row, columns, texts, board) for row in board.rows]
    kinds = ["accuracy" if column.accuracy else "text" if _is_text(column, board) else "number" for column in columns]
    data = {"texts": texts.all(), "filters": filters, "columns": kinds, "rows": rows}
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(re.sub(r"[<>&]", lambda match: f"\\u{ord(match[0]):04x}", text))


def command(result: Result) -> tuple[str, ...]:
    """The command line that evaluates the same again, in parts."""
    words = ["--suite", result.suite, "--dataset", result.dataset.name]
    words += ["--norm", result.threat.norm, "--eps", result.threat.eps]
    if result.model.bn_stats != "stored":
        words += ["--bn-stats", result.model.bn_stats]
    if result.model.bn_stats_facts.get("dataset", result.dataset.name) != result.dataset.name:
        words += ["--bn-data", str(result.model.bn_stats_facts["dataset"])]
    if result.partial:
        words += ["--limit", str(result.n)]
    if result.seed:
        words += ["--seed", str(result.seed)]
    if result.environment.precision != "fp32":
        words += ["--precision", result.environment.precision]
    rest = shlex.join([*words, "--force"])
    return Shared("harness evaluate --checkpoint "), shlex.quote(result.checkpoint), Shared(f" {rest}")


def bibtex(row: Row, label: str, result: Result) -> tuple[str, ...]:
    """An entry that cites a row, in parts.

    Args:
        label: of the measure that ``result`` is of.
    """
    images = f"{result.n} {result.dataset.name} {result.dataset.split} images"
    where = escaped(f"{images}, {label}, {result.threat.norm} {result.threat.eps}")
    return (
        Shared("@misc{harness-"),
        escaped(result.evaluation_id[:16]),
        Shared(",\n  title = {{"),
        escaped(row.checkpoint),
        Shared("}: robust accuracy "),
        f"{100 * result.robust_acc:.1f}",
        Shared(
            f"\\% on {where}}},\n  howpublished = {{robust-harness {escaped(result.harness_version)}}},\n"
            f"  year = {{{escaped(result.started[:4])}}},\n  note = {{weights SHA-256 "
        ),
        escaped(result.model.sha256[:16]),
        Shared("}\n}"),
    )


def _row(row: Row, columns: tuple[Column, ...], texts: Texts, board: Board) -> dict[str, Any]:
    labels = {measure.name: measure.label for measure in board.measures} | {CLEAN: "Without attack"}
    order = [*(measure.name for measure in ranking(board.measures)), CLEAN]
    deciding = row.ranked_by or CLEAN
    values = [column.value(row) for column in columns]
    return {
        "sort": [texts.place(value) if isinstance(value, str) else value for value in values],
        "flags": [[texts.place(flag.severity), texts.place(flag.code), texts.place(flag)] for flag in row.flags],
        "facts": _written(_model(row, row.deciding), texts),
        "results": [_result(labels[name], row.results[name], board, texts) for name in order if name in row.results],
        "cite": texts.written(*bibtex(row, labels[deciding], row.deciding)),
    }


def _is_text(column: Column, board: Board) -> bool:
    return any(isinstance(column.value(row), str) for row in board.rows)


def _written(facts: Iterable[tuple[str, ...]], texts: Texts) -> list[list[int | str]]:
    return [texts.written(Shared(name), *value) for name, *value in facts]


def _model(row: Row, result: Result) -> Iterator[tuple[str, str]]:
    model = result.model
    if row.tied_with:
        yield "Cannot be told apart from", f"{counted(len(row.tied_with), 'rank')}: {_short(row.tied_in_words)}"
    if len(row.curve) > 1:
        points = ", ".join(f"{100 * point.accuracy.value:.1f} % at {point.eps}" for point in row.curve)
        yield f"Robust accuracy by eps ({result.threat.norm})", points
    yield "Architecture", Shared(model.architecture)
    if model.arguments:
        yield "Its arguments", Shared(", ".join(f"{name}={value}" for name, value in sorted(model.arguments.items())))
    if model.source_sha256:
        yield "Architecture's source, SHA-256", model.source_sha256
    if model.norm_layer:
        yield "Norm layer", Shared(model.norm_layer)
    if model.bn_stats != "stored":
        yield "BN statistics", model.bn_stats
    yield "Weights, SHA-256", model.sha256
    if model.file_sha256:
        yield "Checkpoint file, SHA-256", model.file_sha256
    trained = model.trained_parameters
    of = f"{model.parameters:,}"
    yield "Parameters", Shared(of if trained is None else f"{of}, of which {trained:,} trained")
    claims = (("Regime", model.regime), ("Parent", model.parent))
    yield from ((name, Shared(value)) for name, value in claims if value)
    if model.parent_sha256:
        yield "Parent's weights, SHA-256", Shared(model.parent_sha256)
    if isinstance(model.training.get("command"), str):
        yield "Trained with", Shared(model.training["command"])


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_RUNS else f"{text[:_LONGEST_RUNS].rpartition(',')[0]}, ..."


def _result(label: str, result: Result, board: Board, texts: Texts) -> dict[str, Any]:
    return {
        "title": texts.written(
            Shared(f"{label}: "), f"{100 * result.robust_acc:.1f}", Shared(f" % of {counted(result.n, 'image')}")
        ),
        "command": texts.written(*command(result)),
        "facts": _written([*_facts(result), *_witness(result, board)], texts),
        "steps": [_step(step, texts) for step in result.steps],
    }


def _facts(result: Result) -> Iterator[tuple[str, ...]]:
    where = result.environment
    yield "Evaluation", result.evaluation_id
    if result.content_sha256:
        yield "Content of the result file, SHA-256", result.content_sha256
    yield "Images and labels, SHA-256", Shared(result.dataset.sha256)
    yield "Begun", result.started
    if result.overhead is None:
        yield "Took", f"{result.seconds:,.1f} s"
    else:
        inside = Shared(" times the time inside the model")
        yield "Took", f"{result.seconds:,.1f}", Shared(" s, "), f"{result.overhead:.2f}", inside
    yield "On", Shared(f"{where.device}, {where.precision}, {counted(where.workers, 'worker')}, {where.processor}")
    yield "With", Shared(", ".join(f"{name} {version}" for name, version in where.versions.items()))


def _witness(result: Result, board: Board) -> Iterator[tuple[str, ...]]:
    """Whether anyone can check what was broken, and whether anyone says that they did."""
    if result.adversarial:
        kept = Shared(f" ({counted(result.adversarial.samples, 'sample')}; checked by harness verify)")
        yield "Adversarial examples, SHA-256", result.adversarial.sha256, kept
    elif result.robust_acc < result.clean_acc:
        yield "Adversarial examples", Shared("none are kept, so that what was broken cannot be checked")
    lines = board.verified(result)
    for line in lines:
        yield "Verified", line.at, Shared(f" by {line.by or 'somebody'}, robust-harness {line.harness_version}")
    if not lines:
        yield "Verified", Shared("by nobody on record")


def _step(step: StepRecord, texts: Texts) -> list[int | float]:
    parameters = " ".join(f"{name}={value}" for name, value in step.parameters.items())
    counts = (step.before, step.after, step.forward, step.backward, step.judge, step.rejected)
    return [texts.place(step.name), texts.place(f"{step.attack} {parameters}".strip()), *counts, round(step.seconds, 2)]
