"""The model card of a published checkpoint."""

from __future__ import annotations

from collections.abc import Iterator

from harness.checkpoints import Manifest
from harness.publishing.evidence import Evidence
from harness.publishing.repository._figures import model_index
from harness.results import stats
from harness.util.hub import hub
from harness.util.text import printable

__all__ = ["card"]


def card(evidence: Evidence, *, license_name: str | None, dataset: str | None, repo: str | None) -> str:
    """The text of ``README.md``: metadata with the ``model-index``, then what the model is and what was measured.

    Args:
        license_name: as the Hub writes it, such as "mit". dataset: of the figures, on the Hub. repo: where it will be.
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
    body = "\n".join(_lines(evidence, manifest, repo))
    return str(package.ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n"))


def _lines(evidence: Evidence, manifest: Manifest, repo: str | None) -> Iterator[str]:
    result = evidence.result
    yield f"# {manifest.name}"
    yield ""
    regime = f", trained by the regime `{manifest.regime}`" if manifest.regime else ""
    yield (
        f"A classifier of {manifest.classes} classes for images of shape {list(manifest.shape)} in [0, 1]: "
        f"`{_code(manifest.architecture)}`, {manifest.parameters:,} parameters{regime}. It normalises images itself."
    )
    yield ""
    yield "| | accuracy | 95 % interval |"
    yield "|---|---:|---:|"
    robust = [(f"{result.suite}, {result.threat.norm} {result.threat.eps}", result.robust_acc)] if result.steps else []
    for name, value in (("without attack", result.clean_acc), *robust):
        low, high = stats.wilson(round(value * result.n), result.n)
        yield f"| {name} | {100 * value:.2f} % | {100 * low:.2f} to {100 * high:.2f} % |"
    yield ""
    part = f"{result.n:,} of {result.dataset.size:,}" if result.partial else f"All {result.n:,}"
    yield (
        f"{part} images of {result.dataset.name} {result.dataset.split} were evaluated by robust-harness "
        f"{result.harness_version}, seed {result.seed}."
    )
    yield ""
    doubtful = [flag for flag in result.flags if flag.doubtful]
    yield "Reasons to doubt the figures:" if doubtful else "No flag was raised against the figures."
    yield ""
    yield from (f"- `{flag.code}`: {_plain(flag)}" for flag in doubtful)
    yield from [""] * bool(doubtful)
    name = f"hf:{repo}" if repo else manifest.file
    yield "## Use and check"
    yield ""
    yield "```console"
    yield f"harness evaluate --checkpoint {name}"
    yield f"harness verify results/{evidence.path.name} --checkpoint {name}"
    yield "```"
    yield ""
    yield (
        "`harness verify` judges every sample and adversarial example in `results` again, with forward passes alone. "
        f"SHA-256 of the weights' tensors: `{result.model.sha256}`."
    )


def _plain(text: object) -> str:
    return printable(text, longest=500).replace("<", "&lt;").replace("[", "\\[")


def _code(text: str) -> str:
    return printable(text).replace("`", "'")
