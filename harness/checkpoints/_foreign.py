"""Registering weights that were trained elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from harness import datasets, models
from harness.checkpoints._manifest import build_manifest
from harness.checkpoints._normalizations import NORMALIZATIONS, normalization_of
from harness.checkpoints._registry import fill, load, save
from harness.checkpoints._tensors import plain_tensors, read_bytes, unpack
from harness.checkpoints._unwrap import fit_names, own_normalization, settle_counters, unwrap
from harness.errors import CheckpointError, InvalidInput
from harness.models import Model, Normalization
from harness.util.choices import FileFormat

__all__ = ["import_file"]


def import_file(
    path: str | Path,
    *,
    name: str,
    directory: str | Path,
    architecture: str | None = None,
    classes: int | None = None,
    shape: tuple[int, int, int] | None = None,
    norm_layer: str | None = None,
    normalization: Normalization | str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    dataset: str | None = None,
    threat: str | None = None,
    regime: str | None = None,
    parent: str | Path | None = None,
    source: str | None = None,
    training: Mapping[str, Any] | None = None,
    entry: str | None = None,
    file_format: FileFormat = "pt",
    checkpoint_dir: str | Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Register a foreign ``.pt``, ``.pth``, ``.th`` or ``.safetensors`` file as ``directory/NAME.pt``.

    The registered copy is a plain state dict under the architecture's names; the hash of the file it came
    from and everything that had to be changed stand in the manifest. The usual wrappers (``state_dict``,
    ``model``, ``module.`` before every name, ...) are known.

    Args:
        architecture: as `harness.models.build` takes it. May be left out, like all that follows, where the
            file was written by this package and says so itself.
        classes, shape, threat: taken from ``dataset`` if not given.
        normalization: what the model does to images in [0, 1] first: constants, or a name of
            `NORMALIZATIONS` ("none" for none); ``mean`` and ``std`` say the same. May be left out where the
            file brings its own constants.
        parent: path or name of the registered checkpoint that these weights were trained from.
        entry: which entry of the file holds the weights, where several could.
        checkpoint_dir: where to look for ``parent`` first.

    Raises:
        CheckpointError: the file is damaged, holds code, or does not fit (what differs is listed).
        UnknownName, InvalidInput: an architecture, data set, threat model or normalisation that is not known.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise CheckpointError(f"no such file: {path}")
    content, where = read_bytes(path), str(path)
    held, metadata = unpack(content, where, safetensors_format=path.suffix == ".safetensors")
    tensors = plain_tensors(unwrap(held, where, entry=entry), where)

    said = _own_words(metadata, where)
    if dataset is not None:
        about = datasets.about(dataset)
        said |= {"dataset": dataset, "classes": len(about.classes), "shape": about.shape}
        said |= {"threat": str(about.threats[0])} if about.threats else {}
    asked = {"classes": classes, "shape": shape, "norm_layer": norm_layer, "threat": threat, "regime": regime}
    said |= {key: value for key, value in asked.items() if value is not None}
    said |= {"architecture": _absolute(architecture)} if architecture is not None else {}
    missing = [key for key in ("architecture", "classes", "shape") if key not in said]
    if missing:
        options = ", ".join(f"--{key}" for key in missing)
        raise InvalidInput(f"{path} does not say what it is: give {options} (a data set says classes and shape)")

    model = models.build(
        said["architecture"],
        classes=said["classes"],
        shape=said["shape"],
        norm_layer=said.get("norm_layer", models.OWN),
        seed=0,
    )
    expected = model.network.state_dict()
    tensors, constants, taken = own_normalization(tensors, expected, said["shape"][0])
    tensors, notes = fit_names(tensors, expected)
    tensors, settled = settle_counters(tensors, expected)
    told = _told(normalization, mean, std)
    chosen = _agreed(told if told is not None else said.get("normalization"), constants, taken, where)
    channels = said["shape"][0]
    if chosen is not None and len(chosen.mean) != channels:
        raise InvalidInput(
            f"the normalization has {len(chosen.mean)} channels and the images have {channels}; give one mean and "
            "one deviation a channel"
        )
    if taken:
        notes.append(f"moved the normalization ({', '.join(taken)}) into the manifest")
    fill(model, tensors, where)
    model = Model(
        model.network,
        architecture=model.architecture,
        classes=model.classes,
        shape=model.shape,
        norm_layer=model.norm_layer,
        normalization=chosen,
    )
    _try(model, where)
    return save(
        model,
        directory=directory,
        name=name,
        regime=said.get("regime"),
        parent=load(parent, checkpoint_dir=checkpoint_dir).as_parent() if parent is not None else said.get("parent"),
        dataset=said.get("dataset"),
        threat=said.get("threat"),
        training=training,
        source=source if source is not None else path.name,
        source_sha256=hashlib.sha256(content).hexdigest(),
        notes=(*notes, *settled),
        file_format=file_format,
        overwrite=overwrite,
    )


def _own_words(metadata: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a file of this package says of itself. Its word is not enough to run somebody's code."""
    if not metadata:
        return {}
    rest = {"file": "any.pt", "sha256": "0" * 64, "weights_sha256": "0" * 64, "parameters": 0}
    manifest = build_manifest(f"the metadata in {where}", {**metadata, **rest})
    said = {key: getattr(manifest, key) for key in metadata if getattr(manifest, key, None) is not None}
    said.setdefault("normalization", "none")
    if manifest.architecture not in models.names():
        del said["architecture"]
    return said


def _absolute(architecture: str) -> str:
    file, colon, factory = architecture.rpartition(":")
    return f"{Path(file).expanduser().resolve()}:{factory}" if colon and file.endswith(".py") else architecture


def _told(
    normalization: Normalization | str | None, mean: Sequence[float] | None, std: Sequence[float] | None
) -> Normalization | str | None:
    """What the caller said: constants, "none", or None for nothing."""
    if not isinstance(normalization, Normalization):
        known, constants = normalization_of(normalization, mean, std)
        return constants if constants is not None else "none" if known else None
    if mean is not None or std is not None:
        raise InvalidInput("give a normalization as a whole or by mean and std, not both")
    return normalization


def _agreed(
    told: Normalization | str | None, constants: Normalization | None, taken: Sequence[str], where: str
) -> Normalization | None:
    """The one normalisation that the caller and the file agree on."""
    if told is None and constants is None:
        raise InvalidInput(
            f"{where} does not say how its images are normalised: give --normalization "
            f"{'|'.join(NORMALIZATIONS)}, or --mean and --std"
        )
    if constants is None:
        return told if isinstance(told, Normalization) else None
    if told is not None and told != constants:
        raise InvalidInput(
            f"{where} normalises by mean {list(constants.mean)} and std {list(constants.std)} ({', '.join(taken)}), "
            f"which is not the normalization given: leave it out, or give those"
        )
    return constants


def _try(model: Model, where: str) -> None:
    images = torch.full((2, *model.shape), 0.5)
    try:
        with torch.no_grad():
            logits = model.eval()(images)
    except Exception as error:  # a user's own architecture can raise anything
        raise CheckpointError(
            f"{where}: {model.architecture} does not take images of shape {list(model.shape)} "
            f"({' '.join(str(error).split())})"
        ) from error
    if not isinstance(logits, torch.Tensor) or logits.shape != (2, model.classes):
        got = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise CheckpointError(f"{where}: two images gave {got}, expected logits [2, {model.classes}]")
    if not bool(torch.isfinite(logits).all()):
        raise CheckpointError(f"{where}: {model.architecture} gives NaN or infinite logits with these weights")
