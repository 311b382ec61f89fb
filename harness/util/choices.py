"""Names to choose from that several packages share. Each list is written once, as a type; nothing heavy is imported."""

from __future__ import annotations

from typing import Any, Literal, get_args

__all__ = [
    "Augmentation",
    "BnStatisticsKind",
    "CraftingMethod",
    "CraftingStart",
    "FileFormat",
    "Initializer",
    "Interpolation",
    "KeptEpochs",
    "Precision",
    "ScheduleName",
    "names",
]

Precision = Literal["auto", "fp32", "tf32", "bf16"]
"""Arithmetic of a model's passes. Under attack, auto is fp32, on a GPU with TF32 where that is faster, as torch comes;
in training it is bf16 on a GPU and fp32 elsewhere."""

BnStatisticsKind = Literal["stored", "clean", "adversarial", "batch"]
"""As the checkpoint holds them; re-estimated on clean or on adversarial training images; of the batch at hand."""

ScheduleName = Literal["one-cycle", "step", "cosine", "constant"]
"""How the learning rate changes within a phase of the training."""

CraftingMethod = Literal["pgd", "fgsm", "r-fgsm"]
"""How training images are perturbed."""

CraftingStart = Literal["random", "clean"]
"""Where crafting begins: at a random point inside the threat model, or at the image."""

Initializer = Literal["kaiming-normal", "kaiming-uniform", "xavier-normal", "xavier-uniform", "orthogonal"]
"""How weights of convolutions and of the output layer are drawn."""

Augmentation = Literal["none", "crop-flip"]
"""What is done to training images before they are perturbed."""

KeptEpochs = Literal["last", "best", "both"]
"""Which weights of a training are registered."""

FileFormat = Literal["pt", "safetensors"]
"""How the weights of a checkpoint are stored."""


Interpolation = Literal["bilinear", "bicubic", "lanczos", "nearest"]
"""How images of a folder are resized."""


def names(choice: Any) -> tuple[str, ...]:
    """The names of one of the types above, in order."""
    return get_args(choice)
