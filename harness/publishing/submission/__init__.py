"""A folder that a maintainer of RobustBench could merge, from a stored result."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from harness.errors import HarnessError, InvalidInput, ResultError
from harness.publishing import _folder as folders
from harness.publishing.evidence import Evidence
from harness.publishing.submission import _forms as forms
from harness.publishing.submission._architecture import (
    Architecture,
    architecture_of,
    largest_difference,
    weights_of,
)
from harness.publishing.submission._board import layout_of
from harness.publishing.submission._entry import architecture_label, entry, external_entry
from harness.publishing.submission._log import evaluation_log
from harness.publishing.submission._paper import DRAFT, Paper, check_external_id, check_model_id, model_id
from harness.publishing.submission._probe import IMAGES, probe
from harness.publishing.submission._rules import Checked, checked
from harness.results.store import safe_name
from harness.util.files import write_atomically
from harness.util.text import counted

__all__ = ["Checked", "Paper", "Submission", "check", "submit"]

_ROUNDING = 1e-4
"""Logits that differ by no more than this are the same but for rounding."""


@dataclass(frozen=True)
class Submission:
    """A folder that was written.

    Attributes:
        folder: where. name: of the entry. draft: whether it is marked as a draft.
        checks: the rules with their outcomes. files: relative paths, sorted.
    """

    folder: Path
    name: str
    draft: bool
    checks: tuple[Checked, ...]
    files: tuple[str, ...]


def check(paper: Paper, folder: str | Path, *, name: str | None = None, external: bool = False) -> str:
    """Find out before a result is verified that no submission could be written; returns the name of the entry.

    Args:
        paper, folder, name, external: as in `submit`.

    Raises:
        InvalidInput: the folder is not empty, or there is no name for the entry.
        StorageError: the folder cannot be written.
    """
    folders.check_free(folder)
    if external and name is None:
        raise InvalidInput("an external evaluation is of an entry of RobustBench: name it with --model-id")
    if name is None:
        return model_id(paper)
    return check_external_id(name) if external else check_model_id(name)


def submit(
    evidence: Evidence,
    paper: Paper,
    folder: str | Path,
    *,
    name: str | None = None,
    additional_data: bool = False,
    external: bool = False,
    draft: bool = False,
) -> Submission:
    """Write a submission of a result.

    Args:
        folder: a new or empty one.
        name: of the entry; by RobustBench's rule from the paper if not given. For an external evaluation the name of
            the entry that was evaluated.
        additional_data: the model was trained on more than the training set of its data set.
        external: an evaluation of somebody else's entry.
        draft: write it whatever stands against it, marked as a draft in every file.

    Raises:
        ResultError: something stands against a submission, and it is no draft; the sentence lists all of it.
        InvalidInput: the folder is not empty, or there is no name for the entry.
        StorageError: the folder cannot be written.
    """
    found = check(paper, folder, name=name, external=external)
    target = Path(folder).expanduser()
    entry_name = f"{found}{DRAFT}" if draft else found
    parts = _Parts(evidence, paper, entry_name, external)
    checks = (*checked(evidence, probe(evidence), external=external), *parts.checked())
    failed = [f"{check.rule!r} ({check.figure})" for check in checks if check.outcome == "failed"]
    if failed and not draft:
        raise ResultError(
            f"{evidence.path} cannot be submitted to RobustBench, as it does not hold that "
            f"{' and that '.join(failed)}; --draft writes the folder all the same, marked as a draft"
        )
    files = parts.files(checks, additional_data, _draft_line(len(failed)) if draft else "")
    folders.write(target, files)
    return Submission(target, entry_name, draft, checks, tuple(sorted(files)))


def _draft_line(failed: int) -> str:
    return f"DRAFT, not a submission: {counted(failed, 'rule')} not met."


@dataclass
class _Parts:
    """The files of a submission."""

    evidence: Evidence
    paper: Paper
    name: str
    external: bool

    def __post_init__(self) -> None:
        self.layout = layout_of(self.evidence.result.dataset.name)
        self.weights: dict[str, torch.Tensor] = {}
        self.architecture: Architecture | None = None

    def checked(self) -> Iterator[Checked]:
        """The rules on the files."""
        evidence, n = self.evidence, self.evidence.result.n
        kept = evidence.adversarial
        shape = "none are kept" if kept is None else f"{list(kept.shape)}, one for each of {n:,} images"
        yield Checked("there is a tensor of adversarial images", "failed" if kept is None else "passed", shape)
        if not self.external:
            yield self._network()
            yield Checked("the license is MIT or one that you name", "not checkable", "you tick the box")
            yield Checked("whether additional data was used is stated", "not checkable", "your word is taken")

    def _network(self) -> Checked:
        rule = "one architecture file and the weights alone give the same logits"
        point, images = self.evidence.checkpoint, self.evidence.target.x[:IMAGES]
        try:
            self.weights = weights_of(point, self.layout)
            made = architecture_of(point, self.layout, self.name, "")
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / f"{made.module}.py"
                write_atomically(file, made.text.encode())
                apart = largest_difference(file, made.class_name, self.weights, self.layout, point.model, images)
        except HarnessError as error:
            return Checked(rule, "failed", str(error))
        self.architecture = made
        # what is below rounding differs from machine to machine
        figure = f"on {len(images)} images they differ by at most {max(apart, _ROUNDING):g}"
        return Checked(rule, "passed" if apart <= _ROUNDING else "failed", figure)

    def files(self, checks: tuple[Checked, ...], additional_data: bool, draft: str) -> dict[str, bytes]:
        """All files by path."""
        result, name, paper = self.evidence.result, self.name, self.paper
        footnote = draft or None
        # names in a result are anybody's, and a norm may be FILE.py:NAME: each becomes one part of a path
        dataset, norm = safe_name(result.dataset.name), safe_name(result.threat.norm)
        where = f"{dataset}/{norm}/{name}"
        if self.external:
            information = external_entry(result, footnote=footnote)
            form = forms.external_issue(name, paper, information, result, draft)
        else:
            label = architecture_label(result.model.architecture)
            information = entry(
                result, paper, architecture=label, additional_data=additional_data, footnote=footnote
            )  # fmt: skip
            form = forms.new_model_issue(name, paper, information, result, draft)
        texts = {
            f"model_info/{where}.json": _json(information),
            "issue.md": f"{form.title}\n\n{form.body}",
            "evaluation.log": (f"{draft}\n" if draft else "") + evaluation_log(result),
            "checks.md": forms.checks_page(name, checks, draft),
        }
        binary = dict(self._result_files())
        if self.evidence.adversarial is not None:
            binary[f"adversarial/{where}.pt"] = _saved(self.evidence.adversarial)
        if self.architecture is not None:
            made = architecture_of(self.evidence.checkpoint, self.layout, name, forms.header(draft))
            texts[f"robustbench/model_zoo/architectures/{made.module}.py"] = made.text
            texts["zoo_entry.py"] = forms.zoo_entry(name, dataset, norm, made, draft)
            binary[f"models/{where}.pt"] = _saved(self.weights)
        listed = sorted([*texts, *binary, "README.md"])
        texts["README.md"] = forms.readme(name, form, listed, checks, draft)
        return {path: text.encode() for path, text in texts.items()} | binary

    def _result_files(self) -> Iterator[tuple[str, bytes]]:
        result, path = self.evidence.result, self.evidence.path
        examples = None if self.evidence.adversarial is None or result.adversarial is None else result.adversarial.file
        for file in (path.name, result.samples, examples):
            if file is not None:
                yield f"result/{Path(file).name}", path.with_name(Path(file).name).read_bytes()


def _json(information: Mapping[str, Any]) -> str:
    return json.dumps(information, indent=2, ensure_ascii=False) + "\n"


def _saved(value: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()
