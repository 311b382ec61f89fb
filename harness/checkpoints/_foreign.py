"""Registering weights that were trained elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from harness import datasets, models
from harness.checkpoints._building import build
from harness.checkpoints._candidates import compare_normalizations
from harness.checkpoints._constants import for_bytes, scaled
from harness.checkpoints._hub import fetch_weights, is_on_hub
from harness.checkpoints._manifest import build_manifest
from harness.checkpoints._normalizations import NORMALIZATIONS, normalization_of
from harness.checkpoints._registry import fill, load, save
from harness.checkpoints._tensors import some
from harness.checkpoints._weights import Weights, find_weights
from harness.errors import CheckpointError, InvalidInput
from harness.models import Model, Normalization
from harness.util.choices import FileFormat
from harness.util.text import counted, printable
from harness.weights import open_weights_or_shards, source_sha256

__all__ = ["import_file"]


def import_file(
    path: str | Path,
    *,
    name: str,
    directory: str | Path,
    architecture: str | None = None,
    arguments: Mapping[str, Any] | None = None,
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
    renames: Sequence[tuple[str, str]] = (),
    checkpoint_dir: str | Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Register foreign weights as ``directory/NAME.pt``: a file of torch.save, a ``.safetensors`` file, a folder
    or index of several, or ``hf:ORG/REPO[@REVISION]``, of which only safetensors are fetched.

    The weights may lie in any entry of the file and behind any prefix. The registered copy is a plain state dict
    under the architecture's names; the manifest has the hash of the file it came from and all that had to be changed.

    Args:
        architecture: as `harness.models.build` takes it. May be left out, like all that follows, where the
            file was written by this package and says so itself.
        arguments: more arguments of the architecture's constructor; the manifest keeps them.
        classes, shape, threat: taken from ``dataset`` if not given, the shape of a folder if all images have one size.
        normalization: what the model does to images in [0, 1] first: constants, or a name of
            `NORMALIZATIONS` ("none" for none); ``mean`` and ``std`` say the same, with one number a channel or one
            for all. May be left out where the file brings its own constants.
        parent: path or name of the registered checkpoint that these weights were trained from.
        entry: which entry of the file to take, where several hold weights that fit (``state_dict_ema``).
        renames: parts of names in the file and what the architecture calls them, such as ``("head.fc", "fc")``.
        checkpoint_dir: where to look for ``parent`` first.

    Raises:
        CheckpointError: the file is damaged, holds code, or does not fit (what differs is listed).
        UnknownName, InvalidInput: an architecture, data set, threat model or normalisation that is not known.
    """
    if is_on_hub(path):
        path, resolved = fetch_weights(str(path))
        source = source if source is not None else resolved
    path = Path(path).expanduser()
    where = str(path)
    with open_weights_or_shards(path) as file:
        said = _own_words(file.metadata, where)
        if dataset is not None:
            about = datasets.about(dataset, one_size=shape is None)
            said |= {"dataset": dataset, "classes": len(about.classes), "shape": about.shape}
            said |= {"threat": str(about.threats[0])} if about.threats else {}
        asked = {"classes": classes, "shape": shape, "norm_layer": norm_layer, "threat": threat, "regime": regime}
        said |= {key: value for key, value in asked.items() if value is not None}
        said |= {"architecture": _absolute(architecture)} if architecture is not None else {}
        said |= {"arguments": arguments} if arguments else {}
        missing = [key for key in ("architecture", "classes", "shape") if key not in said]
        if missing:
            options = ", ".join(f"--{key}" for key in missing)
            raise InvalidInput(f"{path} does not say what it is: give {options} (a data set says classes and shape)")
        called, channels = said["architecture"], said["shape"][0]

        def find(state: Mapping[str, Any]) -> Weights:
            return find_weights(file, state, called, channels, entry=entry, renames=renames)

        model = build(
            called,
            classes=said["classes"],
            shape=said["shape"],
            norm_layer=said.get("norm_layer", models.OWN),
            arguments=said.get("arguments"),
            check=find,
        )
        try:
            found = find(model.network.state_dict())
        except CheckpointError as error:
            raise CheckpointError(f"{error}; {model.call}" if model.call else str(error)) from error
    fill(model, found.tensors, where)
    told = _told(normalization, mean, std, channels)
    chosen, assumed = _agreed(told if told is not None else said.get("normalization"), found, where, model, dataset)
    if chosen is not None and len(chosen.mean) != channels:
        raise InvalidInput(
            f"the normalization has {counted(len(chosen.mean), 'channel')} and the images have {channels}; "
            "give one mean and one deviation a channel"
        )
    model = Model(
        model.network,
        architecture=model.architecture,
        classes=model.classes,
        shape=model.shape,
        norm_layer=model.norm_layer,
        normalization=chosen,
        arguments=model.arguments,
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
        source=source if source is not None else printable(path.name),
        source_sha256=source_sha256(path),
        notes=found.notes,
        assumed=assumed,
        file_format=file_format,
        overwrite=overwrite,
    )


def _own_words(metadata: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a file of this package says of itself. Its word is not enough to run somebody's code."""
    if not {"name", "architecture", "classes", "shape"} <= set(metadata):
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
    normalization: Normalization | str | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    channels: int,
) -> Normalization | str | None:
    """What the caller said: constants, "none", or None for nothing. One number stands for all channels."""
    if not isinstance(normalization, Normalization):
        mean, std = (tuple(values) * channels if values and len(values) == 1 else values for values in (mean, std))
        known, constants = normalization_of(normalization, mean, std)
        return constants if constants is not None else "none" if known else None
    if mean is not None or std is not None:
        raise InvalidInput("give a normalization as a whole or by mean and std, not both")
    return normalization


def _agreed(
    told: Normalization | str | None, found: Weights, where: str, model: Model, dataset: str | None
) -> tuple[Normalization | None, tuple[str, ...]]:
    """The one normalisation that the caller and the file agree on, and what had to be assumed for that."""
    usual = model.usual_normalization
    if told is None and not found.normalizations and usual is not None:
        source = model.architecture.partition(":")[0]
        values = f"mean {list(usual.mean)}, std {list(usual.std)}"
        return usual, (f"images are normalised as {source} does for {model.architecture} ({values})",)
    if isinstance(told, Normalization) and for_bytes(told):
        here = scaled(told)
        mean, std = (",".join(f"{value:.6g}" for value in values) for values in (here.mean, here.std))
        raise InvalidInput(
            f"the normalization given (mean {list(told.mean)}, std {list(told.std)}) is for images in 0..255, and "
            f"images are in [0, 1] here: give --mean {mean} --std {std}"
        )
    if told is None and len(found.normalizations) != 1:
        named = some(name for names in found.normalizations.values() for name in names)
        says = f"holds several normalizations ({named})" if named else "does not say how its images are normalised"
        compared = compare_normalizations(model, dataset, chosen=False)
        raise InvalidInput(
            f"{where} {says}: give --normalization {'|'.join(NORMALIZATIONS)}, or --mean and --std"
            f"{f' ({compared})' if compared else ''}"
        )
    if len(found.normalizations) != 1:
        return told if isinstance(told, Normalization) else None, ()
    ((constants, names),) = found.normalizations.items()
    if isinstance(told, Normalization) and told.close_to(scaled(constants)):
        return told, ()
    if told is not None and told != constants:
        raise InvalidInput(
            f"{where} normalises by mean {list(constants.mean)} and std {list(constants.std)} ({', '.join(names)}), "
            "which is not the normalization given: leave it out, or give those"
        )
    if for_bytes(constants):
        text = f"the normalization in the file (mean {list(constants.mean)}, std {list(constants.std)}) is for images "
        return scaled(constants), (f"{text}in 0..255, and divided by 255 it is right for images in [0, 1]",)
    return constants, ()


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
