"""A small model, registered, and files that are wrong on purpose."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness import checkpoints, models
from harness.models import Model, Normalization

FACTS: dict[str, Any] = {"dataset": "digits", "threat": "Linf:0.15"}


NORMALIZATION = Normalization((0.3,), (0.4,))


def small(
    seed: int = 0,
    *,
    architecture: str = "digits-resnet",
    norm_layer: str = "batch",
    normalization: Normalization | None = NORMALIZATION,
) -> Model:
    return models.build(
        architecture, classes=10, shape=(1, 8, 8), norm_layer=norm_layer, normalization=normalization, seed=seed
    ).eval()


def registered(folder: Path, name: str = "own", model: Model | None = None, **facts: Any) -> Path:
    return checkpoints.save(model or small(), directory=folder, name=name, **(FACTS | facts))


def put(path: Path, content: bytes) -> None:
    """Replace the weights of a registered checkpoint and make its manifest vouch for the new file."""
    path.write_bytes(content)
    beside = checkpoints.manifest_path(path)
    before = checkpoints.read_manifest(beside)
    after = before.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()})
    beside.write_text(after.to_toml(), encoding="utf-8")


def packed(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def weights(model: Model | None = None) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in (model or small()).network.state_dict().items()}
