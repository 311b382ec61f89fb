"""``harness publish``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from harness.cli import _options as options
from harness.cli._render import print_json, print_line

__all__ = ["publish"]


@click.command()
@click.argument("result", type=options.folder, metavar="RESULT")
@click.option("--to", "folder", type=options.folder, required=True, metavar="FOLDER", help="A new or empty folder.")
@click.option("--push", "repo", metavar="ORG/REPO", help="Upload it to this repository of the Hugging Face Hub.")
@click.option("--license", "license_name", metavar="NAME", help="Of the weights, as the Hub writes it, such as mit.")
@click.option("--hub-dataset", metavar="ORG/NAME", help="The data set on the Hub; known for CIFAR, ImageNet and MNIST.")
@click.option("--checkpoint", metavar="NAME", help="A path or a registered name; the name in the result if not given.")
@options.checkpoint_dir
@options.trust_code
@click.option("--dataset", metavar="NAME", help="The images, if they are none of the registered data sets.")
@options.data_dir
@options.download
@options.device
@options.as_json
def publish(
    result: Path,
    folder: Path,
    repo: str | None,
    license_name: str | None,
    hub_dataset: str | None,
    as_json: bool,
    **material: Any,
) -> None:
    """Write a checkpoint and its result as a repository of the Hugging Face Hub, and upload it if told to.

    RESULT is a result file; it is verified first. The folder has the weights as safetensors, the manifest, the result
    with verdicts and adversarial examples, a model card with figures and flags, and the figures in .eval_results.
    Others evaluate it with --checkpoint hf:ORG/REPO.
    """
    from harness.publishing import gather, repository

    repository.check(folder)  # the verification takes long, and this does not depend on it
    written = repository.publish(
        gather(result, **material), folder, repo=repo, license_name=license_name, hub_dataset=hub_dataset
    )
    address = repository.push(written, repo) if repo else None
    if as_json:
        where = str(written.folder.resolve())
        print_json({"folder": where, "files": list(written.files), "dataset": written.dataset, "pushed": address})
        return
    print_line(f"written to {written.folder}: {', '.join(written.files)}")
    if written.dataset is None:
        print_line("no .eval_results: it needs the data set's repository on the Hub (--hub-dataset ORG/NAME)")
    print_line(f"uploaded: {address}" if address else "not uploaded: --push ORG/REPO does that")
