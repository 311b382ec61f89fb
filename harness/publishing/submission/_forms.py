"""What a maintainer reads: the filled issue form, the entry of the zoo, the checks, and the steps that remain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from harness._version import __version__
from harness.publishing._markdown import code
from harness.publishing.submission._architecture import Architecture
from harness.publishing.submission._paper import Paper
from harness.publishing.submission._rules import Checked
from harness.results.record import Result
from harness.util.text import markdown_text, printable

__all__ = ["Form", "checks_page", "external_issue", "header", "new_model_issue", "readme", "zoo_entry"]

_REPOSITORY = "https://github.com/RobustBench/robustbench"
_LONGEST_ADDRESS = 7500
_LONGEST_FIGURE = 5000
_LINK = "(put the link here)"


@dataclass(frozen=True)
class Form:
    """An issue, filled.

    Attributes:
        template: file name of RobustBench's form. title, body: as they are to be sent.
    """

    template: str
    title: str
    body: str

    def address(self) -> str:
        """Where it opens filled in; without the text where that is too long for an address."""
        begin = f"{_REPOSITORY}/issues/new?"
        fields = {"template": self.template, "title": self.title}
        whole = begin + urlencode({**fields, "body": self.body})
        return whole if len(whole) <= _LONGEST_ADDRESS else begin + urlencode(fields)


def header(draft: str) -> str:
    """Lines of comment at the beginning of Python files."""
    lines = [f"Written by robust-harness {__version__} (MIT license) for RobustBench."]
    return "".join(f"# {line}\n" for line in [*([draft] if draft else []), *lines])


def new_model_issue(name: str, paper: Paper, entry: dict[str, Any], result: Result, draft: str) -> Form:
    """RobustBench's form for new models."""
    body = f"""{_quoted(draft)}# Paper Information

- **Paper Title**: {paper.title}
- **Paper URL**: {paper.url}
- **Paper authors**: {paper.authors}

# Leaderboard Claim(s)

## Model 1

- **Architecture**: {markdown_text(entry["architecture"])}
- **Threat Model**: {markdown_text(result.threat.norm)}
- **eps**: {markdown_text(entry["eps"])}
- **Clean accuracy**: {entry["clean_acc"]}
- **Robust accuracy**: {entry["autoattack_acc"]}
- **Additional data**: {str(entry["additional_data"]).lower()}
- **Evaluation method**: AutoAttack, standard version (robust-harness {markdown_text(result.harness_version)}, suite \
{markdown_text(result.suite)}, seed {result.seed}, all {result.n:,} images of {markdown_text(result.dataset.name)} \
{markdown_text(result.dataset.split)})
- **Checkpoint and code**: checkpoint {_LINK}, architecture in the file beside it. SHA-256 of the weights' tensors: \
{code(result.model.sha256)}. Adversarial images: {_LINK}

# Model Zoo:

- [ ] I want to add my models to the Model Zoo (check if true)
- [ ] I use an architecture that is included among those \
[here]({_REPOSITORY}/tree/master/robustbench/model_zoo/architectures) or in `timm`. If not, I added the link to the \
architecture implementation so that it can be added.
- [ ] I agree to release my model(s) under MIT license (check if true) **OR** under a custom license, located here: \
(put the custom license URL here if a custom license is needed. If no URL is specified, we assume that you are fine \
with MIT)
"""
    return Form("new-model.md", f"{_marked(draft)}[New Model] {name}", body)


def external_issue(name: str, paper: Paper, entry: dict[str, Any], result: Result, draft: str) -> Form:
    """RobustBench's form for evaluations of models that are listed already."""
    body = f"""{_quoted(draft)}## Target model
+ **Model identifier(s):** {name}
+ **Leaderboard(s):** {markdown_text(result.dataset.name)} {markdown_text(result.threat.norm)}

## New evaluation
+ **Link to adversarial images:** {_LINK}
+ **Robust accuracy:** {entry["external"]}
+ **Author(s):** {paper.authors}
+ **Description of the method used:** {paper.title} ({paper.venue}), {paper.url}; suite \
{markdown_text(result.suite)} of robust-harness {markdown_text(result.harness_version)}, seed {result.seed}, eps \
{markdown_text(result.threat.eps)}, all {result.n:,} images. Weights \
that were attacked (SHA-256 of their tensors): {code(result.model.sha256)}
"""
    return Form("new-external-evaluations.md", f"{_marked(draft)}[New evaluation] {name}", body)


def zoo_entry(name: str, dataset: str, threat: str, architecture: Architecture, draft: str) -> str:
    """What to add to the file of the zoo's models of a data set."""
    return f'''{header(draft)}# To add to robustbench/model_zoo/{dataset}.py: first the import,
from robustbench.model_zoo.architectures.{architecture.module} import {architecture.class_name}

# then these lines, in the dictionary of {threat} models.
ENTRY = (
    "{name}",
    {{
        "model": {architecture.class_name},
        "gdrive_id": "",  # of the weights, once they are uploaded
    }},
)
'''


def checks_page(name: str, checks: Sequence[Checked], draft: str) -> str:
    """The rules with what was found, as a table."""
    rows = "".join(f"| {_cell(check.rule)} | {check.outcome} | {_cell(check.figure)} |\n" for check in checks)
    return f"""# {name}: the rules of RobustBench, checked

{_quoted(draft)}{_counted(checks)}

| rule | outcome | found |
|---|---|---|
{rows}"""


def readme(name: str, form: Form, files: Sequence[str], checks: Sequence[Checked], draft: str) -> str:
    """What is in the folder, and what remains to be done by hand."""
    listed = "".join(f"- {code(file)}\n" for file in files)
    failed = [one for one in checks if one.outcome == "failed"]
    unmet = "".join(f"\n- Not met: {_cell(one.rule)} ({_cell(one.figure)})." for one in failed)
    steps = (
        f"This folder is a draft. Nothing in it is to be sent.\n{unmet}".rstrip()
        if draft
        else f"""1. Upload the weights and the adversarial images to a place that anybody can read, and put the links
   into `issue.md`.
2. Open [the issue, filled in]({form.address()}), and put the links there too. (Its text is `issue.md`.)
3. Tick the boxes that hold, and submit it."""
    )
    return f"""# {name}

{_quoted(draft)}A submission to [RobustBench]({_REPOSITORY}). {_counted(checks)} See `checks.md`.

## What remains

{steps}

## What is here

{listed}
Paths below `model_info`, `models` and `robustbench` are those of RobustBench's repository. `zoo_entry.py` says what to
add to its list of models. `result` holds the stored result: `harness verify` judges it again with forward passes alone.
"""


def _marked(draft: str) -> str:
    return "[DRAFT] " if draft else ""


def _quoted(draft: str) -> str:
    return f"> **{draft}**\n\n" if draft else ""


def _counted(checks: Sequence[Checked]) -> str:
    counts = Counter(check.outcome for check in checks)
    return (
        f"{len(checks)} rules: {counts['passed']} passed, {counts['failed']} failed, {counts['not checkable']} not "
        "checkable here."
    )


def _cell(text: str) -> str:
    return markdown_text(printable(text, longest=_LONGEST_FIGURE))  # a figure may quote a stranger's names
