"""Loading a checkpoint that can be trusted to be what its manifest says, and saving one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness import models
from harness.checkpoints._building import build
from harness.checkpoints._code import code_of, runnable
from harness.checkpoints._manifest import Manifest, Parent, build_manifest, manifest_path, read_manifest
from harness.checkpoints._places import find
from harness.checkpoints._tensors import check_finite, differences, hash_tensors, pack, some
from harness.errors import CheckpointError, HarnessError
from harness.models import Model
from harness.util.choices import FileFormat
from harness.util.files import write_together
from harness.util.text import printable
from harness.util.user_file import one_line
from harness.weights import StoredTensor, WeightsFile, kind_of, open_regular, open_weights

__all__ = ["Checkpoint", "fill", "load", "save", "weights_sha256"]

# kept in every .pt, so that a file that lost its manifest can be imported without being described again
_SELF_DESCRIPTION = (
    "name", "architecture", "arguments", "classes", "shape", "norm_layer", "normalization", "regime", "parent",
    "dataset", "threat",
)  # fmt: skip


_LARGEST = 4 << 30
"""A registered file is hashed whole before it is opened: so many bytes at most."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A registered model.

    Attributes:
        path: the weights file.
        manifest: what is known of it.
        model: in eval mode, on the device that was asked for.
    """

    path: Path
    manifest: Manifest
    model: Model

    @property
    def name(self) -> str:
        """What it is registered as."""
        return self.manifest.name

    def as_parent(self) -> Parent:
        """How the manifest of a model that is trained from this one refers to it."""
        return Parent(name=self.manifest.name, weights_sha256=self.manifest.weights_sha256)


def weights_sha256(model: nn.Module) -> str:
    """Hash of a model's weights: every tensor's name, dtype, shape and bytes, however they are packed.

    Of a `Model` the network alone counts, as it is what a checkpoint holds.
    """
    network = model.network if isinstance(model, Model) else model
    return hash_tensors({n: t for n, t in network.state_dict().items() if isinstance(t, Tensor)})


def load(name: str | Path, *, checkpoint_dir: str | Path | None = None, device: str = "cpu") -> Checkpoint:
    """Load a checkpoint by path or name (`find`), checked against its manifest in every respect.

    A network that comes with its weights (``onnx:FILE``, ``FILE.pt2``, ``timm:NAME``, ``torchvision:NAME``) is taken as
    it is, without being registered.

    Where its architecture is a user's own file, that code is run only if it is trusted (`harness.util.trust`).

    Raises:
        UnknownName: there is none of that name.
        CheckpointError: no manifest, another hash, a damaged file, objects in it, code that has changed or is not
            trusted, or tensors that do not fit the architecture (the error lists what differs).
    """
    if models.is_complete(str(name)):
        return _as_it_comes(str(name), device)
    path = find(name, checkpoint_dir)
    beside = manifest_path(path)
    if not beside.is_file():
        raise CheckpointError(
            f"{path} has no manifest ({beside.name}) beside it: register it with "
            f"'harness import {path} --name NAME --architecture ARCHITECTURE'"
        )
    manifest = read_manifest(beside)
    if manifest.file != path.name:
        raise CheckpointError(f"the manifest {beside} belongs to {manifest.file}, not to {path.name}")
    if path.resolve().parent != beside.resolve().parent:
        raise CheckpointError(f"{path} is a link to a file elsewhere: put the file itself beside its manifest")
    found = _file_sha256(path)
    if found != manifest.sha256:
        raise CheckpointError(
            f"{path} is not the file that its manifest describes: sha256 is {found[:12]}..., expected "
            f"{manifest.sha256[:12]}...; fetch it again, or import it anew"
        )
    with open_weights(path) as file:
        tensors = _plain(file)
        architecture = runnable(manifest, path)
        model = build(
            architecture,
            classes=manifest.classes,
            shape=manifest.shape,
            norm_layer=manifest.norm_layer,
            normalization=manifest.normalization,
            arguments=manifest.arguments,
            check=lambda state: _check_fit(state, tensors, architecture, str(path)),
        )
        fill(model, file.read(tensors), str(path))
    if weights_sha256(model) != manifest.weights_sha256:
        raise CheckpointError(f"the weights in {path} have another hash than its manifest says: import it anew")
    parameters = sum(p.numel() for p in model.parameters())
    if parameters != manifest.parameters:
        raise CheckpointError(f"{path} has {parameters} parameters, its manifest says {manifest.parameters}")
    return Checkpoint(path, manifest, model.eval().to(device))


def _as_it_comes(name: str, device: str) -> Checkpoint:
    """A checkpoint of a network that comes with its weights; its manifest is what registering it would write."""
    made = models.complete(name)
    source = (
        name if made.file is None else f"{name.partition(':')[0]}:{made.file.name}" if ":" in name else made.file.name
    )
    file_sha256 = None if made.file is None else _file_sha256(made.file)
    model = Model(
        made.network,
        architecture=source,
        classes=made.classes,
        shape=made.shape,
        norm_layer=models.OWN,
        normalization=made.normalization,
        source_sha256=file_sha256,  # the file's operators decide verdicts as much as its weights do
    ).eval()
    _check_answers(model, name)
    label = re.sub(r"[^A-Za-z0-9._+-]+", "-", Path(name.rpartition(":")[2]).name).strip("-.") or "model"
    fields: dict[str, Any] = {
        "name": label,
        "file": f"{label}.safetensors",
        "sha256": hashlib.sha256(pack(model.network, {}, safetensors_format=True)).hexdigest(),
        "weights_sha256": weights_sha256(model),
        "architecture": source,
        "classes": made.classes,
        "shape": made.shape,
        "normalization": made.normalization,
        "parameters": sum(p.numel() for p in model.parameters()),
        "source": source,
        "source_sha256": file_sha256,
    }
    check_finite(model.network.state_dict(), name)
    return Checkpoint(Path(name), build_manifest(f"cannot use {name}", fields), model.to(device))


def _check_answers(model: Model, name: str) -> None:
    """Refuse a network that does not return logits for batches of any size."""
    for images in (1, 3):
        try:
            with torch.no_grad():
                found = model(torch.zeros(images, *model.shape))
        except Exception as error:  # a network of anybody's
            raise CheckpointError(f"{name} fails on {images} images: {one_line(error)}") from error
        if not isinstance(found, torch.Tensor):
            raise CheckpointError(f"{name} returned {type(found).__name__}, expected logits as one tensor")
        if tuple(found.shape) != (images, model.classes):
            expected = [images, model.classes]
            raise CheckpointError(f"{name} returned {list(found.shape)} for {images} images, expected {expected}")


def _file_sha256(path: Path) -> str:
    with open_regular(path, largest=_LARGEST) as (stream, _):
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _plain(file: WeightsFile) -> dict[str, StoredTensor]:
    """The tensors of a registered file, which holds nothing but them and this package's metadata.

    Raises:
        CheckpointError: anything else is in it.
    """
    held = file.value
    if file.objects:
        raise CheckpointError(
            f"{file.path} holds Python objects ({some(file.objects)}), which no registered checkpoint does; they were "
            "not opened"
        )
    if file.path.suffix != ".safetensors":
        if type(held) is not dict or "state_dict" not in held:
            raise CheckpointError(f"{file.path} has no entry 'state_dict': register it with 'harness import'")
        held = held["state_dict"]
    if type(held) is not dict:
        raise CheckpointError(f"{file.path} holds {kind_of(held)}, expected a dictionary of names and tensors")
    if not held:
        raise CheckpointError(f"{file.path} holds no tensors")
    for name, value in held.items():
        if type(name) is not str or not isinstance(value, StoredTensor):
            raise CheckpointError(
                f"{file.path}: expected names and tensors only, got {printable(kind_of(value))} at {printable(name)!r}"
            )
        if value.defect:
            raise CheckpointError(f"{file.path}: the tensor {printable(name)!r} {value.defect}")
    return held


def fill(model: Model, tensors: Mapping[str, Tensor], where: str) -> None:
    """Put weights into a model that they fit exactly.

    Raises:
        CheckpointError: names, shapes or dtypes differ (listed), or a value is not finite.
    """
    _check_fit(model.network.state_dict(), tensors, model.architecture, where)
    check_finite(tensors, where)
    try:
        model.network.load_state_dict(dict(tensors), strict=True)
    except Exception as error:  # modules may read extra state of their own, and fail at it in any way
        raise CheckpointError(f"{where} does not fit {model.architecture}: {' '.join(str(error).split())}") from error


def _check_fit(
    state: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor] | Mapping[str, StoredTensor],
    architecture: str,
    where: str,
) -> None:
    differ = differences(state, tensors)
    if differ:
        raise CheckpointError(f"{where} does not fit the architecture {architecture}: {'; '.join(differ)}")


def save(
    model: Model,
    *,
    directory: str | Path,
    name: str,
    regime: str | None = None,
    definition: Mapping[str, Any] | None = None,
    parent: Parent | None = None,
    dataset: str | None = None,
    threat: str | None = None,
    trained_parameters: int | None = None,
    training: Mapping[str, Any] | None = None,
    source: str | None = None,
    source_sha256: str | None = None,
    notes: Sequence[str] = (),
    assumed: Sequence[str] = (),
    file_format: FileFormat = "pt",
    overwrite: bool = False,
) -> Path:
    """Register a model: ``directory/NAME.pt`` and its manifest ``NAME.toml``, both or neither.

    Equal models and facts give equal bytes.

    Raises:
        CheckpointError: a name that is no plain file name, other weights or facts of that name (unless
            ``overwrite``), or weights that are not finite.
        StorageError: the folder cannot be written.
    """
    folder = Path(directory).expanduser()
    code = code_of(model.architecture)
    fields: dict[str, Any] = {
        "name": name,
        "file": f"{name}.{file_format}",
        "weights_sha256": weights_sha256(model),
        "architecture": code.architecture if code else model.architecture,
        "code_sha256": code.sha256 if code else None,
        "arguments": model.arguments,
        "classes": model.classes,
        "shape": model.shape,
        "norm_layer": model.norm_layer,
        "normalization": model.normalization,
        "regime": regime,
        "definition": dict(definition or {}),
        "parent": parent,
        "dataset": dataset,
        "threat": threat,
        "parameters": sum(p.numel() for p in model.parameters()),
        "trained_parameters": trained_parameters,
        "source": source,
        "source_sha256": source_sha256,
        "notes": tuple(notes),
        "assumed": tuple(assumed),
        "training": dict(training or {}),
    }
    where = f"cannot register {name!r}"
    draft = build_manifest(where, {**fields, "sha256": "0" * 64})
    check_finite(model.network.state_dict(), where)
    metadata = draft.model_dump(mode="json", include=set(_SELF_DESCRIPTION), exclude_none=True)
    metadata = {name: value for name, value in metadata.items() if value != {}}
    content = pack(model.network, metadata, safetensors_format=file_format == "safetensors")
    manifest = draft.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()})
    if not overwrite:
        _refuse_to_replace(folder, manifest)
    path = folder / manifest.file
    copied = {folder / name: text for name, text in code.files.items()} if code else {}
    write_together({path: content, manifest_path(path): manifest.to_toml().encode(), **copied})
    return path


def _refuse_to_replace(folder: Path, manifest: Manifest) -> None:
    """Refuse a name that other weights have, or the same weights with other facts."""
    beside = folder / f"{manifest.name}.toml"
    files = [folder / f"{manifest.name}.{suffix}" for suffix in ("pt", "safetensors", "toml")]
    try:
        standing = read_manifest(beside) if beside.is_file() else None
    except HarnessError:
        standing = None
    if standing is None:
        # the same weights without a manifest: whoever wrote them was killed in between
        same = (manifest.file, manifest.sha256)
        taken = [file for file in files if file.exists() and (file.name, _file_sha256(file)) != same]
        if taken:
            raise CheckpointError(
                f"{taken[0]} exists already: choose another name, or ask to overwrite it (--overwrite)"
            )
        return
    # a training that is repeated took another time
    ignored = {"training", "sha256"}
    before, now = (one.model_dump(exclude=ignored) for one in (standing, manifest))
    other = "weights" if standing.weights_sha256 != manifest.weights_sha256 else ""
    other = other or ", ".join(field for field, value in now.items() if before[field] != value)
    if other:
        raise CheckpointError(
            f"{folder / standing.file} exists already with other {other}: choose another name, or ask to overwrite it "
            "(--overwrite)"
        )
