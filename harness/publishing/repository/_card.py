"""The model card of a published checkpoint."""

from __future__ import annotations

from collections.abc import Iterator

from harness.checkpoints import Manifest
from harness.evaluation.verification import CHECKS, Check
from harness.publishing._markdown import code, command
from harness.publishing.evidence import Evidence
from harness.publishing.repository._figures import model_index
from harness.results import stats
from harness.util.hub import hub
from harness.util.text import markdown_text

__all__ = ["card"]


def card(evidence: Evidence, *, license_name: str | None, dataset: str | None, weights: str) -> str:
    """The text of ``README.md``: metadata with the ``model-index``, then what the model is and what was measured.

    Args:
        license_name: as the Hub writes it, such as "mit". dataset: of the figures, on the Hub.
        weights: what commands call the checkpoint: its address on the Hub, or its file in the folder.
    """
    package = hub()
    result, manifest = evidence.result, evidence.checkpoint.manifest
    data = package.ModelCardData(
        model_name=manifest.name,
        license=license_name,
        library_name="robust-harness",
        pipeline_tag="image-classification",
        tags=["adversarial-robustness", "robust-harness"],
        datasets=[dataset] if dataset else None,
        metrics=["accuracy"],
        eval_results=model_index(result, dataset),
    )
    body = "\n".join(_lines(evidence, manifest, weights))
    return str(package.ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n"))


def _lines(evidence: Evidence, manifest: Manifest, weights: str) -> Iterator[str]:
    result = evidence.result
    yield f"# {manifest.name}"
    yield ""
    regime = f", trained by the regime {code(manifest.regime)}" if manifest.regime else ""
    yield (
        f"A classifier of {manifest.classes} classes for images of shape {list(manifest.shape)} in [0, 1]: "
        f"{code(manifest.architecture)}, {manifest.parameters:,} parameters{regime}. It normalises images itself."
    )
    yield ""
    yield "| | accuracy | 95 % interval |"
    yield "|---|---:|---:|"
    attacked = markdown_text(f"{result.suite}, {result.threat.norm} {result.threat.eps}")
    robust = [(attacked, result.robust_acc)] if result.steps else []
    for name, value in (("without attack", result.clean_acc), *robust):
        low, high = stats.wilson(round(value * result.n), result.n)
        yield f"| {name} | {100 * value:.2f} % | {100 * low:.2f} to {100 * high:.2f} % |"
    yield ""
    part = f"{result.n:,} of {result.dataset.size:,}" if result.partial else f"All {result.n:,}"
    yield (
        f"{part} images of {markdown_text(f'{result.dataset.name} {result.dataset.split}')} were evaluated by "
        f"robust-harness {markdown_text(result.harness_version)}, seed {result.seed}."
    )
    yield ""
    yield from _doubts(evidence)
    yield "## Use and check"
    yield ""
    yield "```console"
    yield command(["harness", "evaluate", "--checkpoint", weights])
    yield command(["harness", "verify", f"results/{evidence.path.name}", "--checkpoint", weights])
    yield "```"
    yield ""
    yield (
        "`harness verify` judges every sample and adversarial example in `results` again, with forward passes alone. "
        f"SHA-256 of the weights' tensors: {code(result.model.sha256)}."
    )


def _doubts(evidence: Evidence) -> Iterator[str]:
    """The flags, and what the verification found: what could not be checked is no reason for trust."""
    checks = evidence.verification.checks
    missing = sum(check.holds is None for check in checks)
    if evidence.flags:
        yield "Reasons to doubt the figures:"
        yield ""
        yield from (f"- {code(flag.code)}: {markdown_text(flag)}" for flag in evidence.flags)
    elif missing:
        yield "No flag was raised against the figures, but not all of them could be checked."
    else:
        yield "No flag was raised against the figures."
    yield ""
    yield "## Verification"
    yield ""
    if missing:
        yield (
            f"**{missing} of the {len(checks)} checks of `harness verify` could not be made** when this was published. "
            "What they are of rests on the word of whoever made the result."
        )
    else:
        yield f"All {len(checks)} checks of `harness verify` held when this was published."
    yield ""
    yield "| check | of what | outcome | found |"
    yield "|---|---|---|---|"
    yield from map(_row, checks)
    yield ""


def _row(check: Check) -> str:
    outcome = "holds" if check.holds else "could not be checked" if check.holds is None else "fails"
    return f"| {code(check.name)} | {CHECKS.get(check.name, '')} | {outcome} | {markdown_text(check.text)} |"
