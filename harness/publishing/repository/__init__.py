"""A checkpoint and its result as a repository of the Hugging Face Hub."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness import checkpoints
from harness.checkpoints import Checkpoint
from harness.errors import InvalidInput, ResultError
from harness.publishing import _folder as folders
from harness.publishing.evidence import Evidence
from harness.publishing.repository._card import card
from harness.publishing.repository._figures import HUB_DATASETS, entries
from harness.util.hub import hub, on_hub

__all__ = ["Repository", "check", "publish", "push"]


_WEIGHTS = ".safetensors"


@dataclass(frozen=True)
class Repository:
    """A folder that was written.

    Attributes:
        folder: where. files: relative paths, sorted.
        dataset: repository of the data set that ``.eval_results`` refers to; None where there is no such file.
    """

    folder: Path
    files: tuple[str, ...]
    dataset: str | None


def check(folder: str | Path) -> None:
    """Find out before a result is verified that no repository could be written.

    Raises:
        InvalidInput: the folder is not empty.
        HarnessError: the package huggingface_hub is not installed.
        StorageError: the folder cannot be written.
    """
    folders.check_free(folder)
    hub()


def publish(
    evidence: Evidence,
    folder: str | Path,
    *,
    repo: str | None = None,
    license_name: str | None = None,
    hub_dataset: str | None = None,
) -> Repository:
    """Write a repository folder: weights as safetensors, manifest, result with verdicts and adversarial examples, a
    model card with ``model-index``, and ``.eval_results``.

    The card lists the flags, and which checks of the verification hold and which could not be made.

    Args:
        folder: a new or empty one.
        repo: ORG/REPO that it is for; named in the card.
        license_name: as the Hub writes it, such as "mit".
        hub_dataset: repository of the data set on the Hub, if it is none of `HUB_DATASETS`.

    Raises:
        ResultError: the verification of the result found something wrong, or the result was taken back.
        InvalidInput: the folder is not empty, or the checkpoint is not a registered one.
        HarnessError: the package huggingface_hub is not installed.
        StorageError: the folder cannot be written.
    """
    target = folders.check_free(folder)
    if not checkpoints.manifest_path(evidence.checkpoint.path).is_file():
        raise InvalidInput(
            f"{evidence.checkpoint.path} is no registered checkpoint, so that nobody could load it: register its "
            "weights with 'harness import', and evaluate that"
        )
    found = [f"{check.name}: {check.text}" for check in evidence.verification.checks if check.holds is False]
    if found:
        raise ResultError(f"{evidence.path} cannot be published, as its verification fails: {'; '.join(found)}")
    if evidence.taken_back is not None:
        raise ResultError(f"{evidence.path} cannot be published, it was taken back: {evidence.taken_back.text}")
    dataset = hub_dataset or HUB_DATASETS.get(evidence.result.dataset.name)
    checkpoint = dict(_checkpoint(evidence.checkpoint))
    # in the folder the weights are safetensors, whatever they were registered as
    weights = f"hf:{repo}" if repo else next(file for file in checkpoint if file.endswith(_WEIGHTS))
    text = card(evidence, license_name=license_name, dataset=dataset, weights=weights)
    files = {"README.md": text.encode(), **dict(_results(evidence)), **checkpoint}
    if dataset is not None:
        address = f"https://huggingface.co/{repo}" if repo else None
        files[".eval_results/robust-harness.yaml"] = _yaml(entries(evidence.result, dataset, address))
    folders.write(target, files)
    return Repository(target, tuple(sorted(files)), dataset)


def push(written: Repository, repo: str) -> str:
    """Upload a folder; returns the address of the commit.

    Raises:
        HarnessError: it could not be uploaded; the folder is still there.
    """
    instead = (
        f"the folder {written.folder} is complete, so that it can be uploaded later: hf upload {repo} {written.folder}"
    )
    with on_hub(f"cannot upload to {repo} on the Hugging Face Hub", instead):
        api = hub().HfApi()
        api.create_repo(repo, exist_ok=True)
        return str(api.upload_folder(repo_id=repo, folder_path=written.folder, commit_message="Publish a checkpoint"))


def _results(evidence: Evidence) -> Iterator[tuple[str, bytes]]:
    result, path = evidence.result, evidence.path
    examples = result.adversarial.file if result.adversarial is not None else None
    for file in (path.name, result.samples, examples):
        if file is not None:
            yield f"results/{Path(file).name}", path.with_name(Path(file).name).read_bytes()


def _checkpoint(point: Checkpoint) -> Iterator[tuple[str, bytes]]:
    """The checkpoint registered anew in safetensors, with the same facts."""
    manifest = point.manifest
    facts = ("name", "regime", "definition", "parent", "dataset", "threat", "trained_parameters", "training")
    kept = {name: getattr(manifest, name) for name in (*facts, "source", "source_sha256", "notes", "assumed")}
    with tempfile.TemporaryDirectory() as folder:
        checkpoints.save(point.model, directory=folder, file_format="safetensors", **kept)
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():
                yield path.relative_to(folder).as_posix(), path.read_bytes()


def _yaml(content: object) -> bytes:
    text: str = hub().utils.yaml_dump(content)
    return text.encode()
