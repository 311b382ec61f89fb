"""Two models, layer by layer, on clean images and on adversarial ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.errors import InvalidInput
from harness.models import Model
from harness.representations._layers import LOGITS, layers, watched
from harness.representations._linear import Representation, represent
from harness.threat.perturb import Crafting, craft

__all__ = ["INPUTS", "Similarity", "compare"]

INPUTS = ("clean", "adversarial")

_BATCH = 128
_NUMBERS = 2**28
"""How many features are held at a time (1 GiB); a wide network runs once for every so many."""


@dataclass(frozen=True, eq=False)
class Similarity:
    """Linear CKA between all layers of two models on one kind of inputs.

    Attributes:
        inputs: "clean", or "adversarial": then each model was given examples crafted against itself.
        rows, columns: layers of the first and of the second model, from the input to the output.
        matrix: ``[rows, columns]``; NaN where a layer gives the same for all images.
        accuracies: of the first and of the second model on these inputs.
        n: how many images.
    """

    inputs: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    matrix: np.ndarray[Any, np.dtype[np.float64]]
    accuracies: tuple[float, float]
    n: int


def compare(
    first: Model,
    second: Model,
    x: Tensor,
    y: Tensor,
    *,
    crafting: Crafting | None = None,
    seed: int = 0,
    debiased: bool = False,
    report: Callable[[str], None] | None = None,
) -> tuple[Similarity, ...]:
    """Similarities of two models' layers (Cianfarani et al. 2022, "Understanding Robust Learning through the Lens
    of Representation Similarities", arXiv 2206.09868).

    Adversarial images are crafted against each model itself, from every image, and always to the last step: a
    verdict on robustness stops at the first success, a representation should not depend on when that was.

    Args:
        first, second: in eval mode, on one device; left as they are.
        x: images ``[n, C, H, W]`` in [0, 1]. y: their classes ``[n]``.
        crafting: how adversarial images are made; None compares on clean ones alone.
        seed: of the random starts, which are the same for both models.
        debiased: as in `linear_cka`.
        report: hears what begins.

    Returns:
        On clean and, where asked for, on adversarial images.

    Raises:
        InvalidInput: fewer than two images, models in training mode, or a layer that cannot be watched.
    """
    for model in (first, second):
        if any(module.training for module in model.modules()):
            raise InvalidInput("CKA compares models in eval mode: call model.eval() first")
    if len(x) < 2:
        raise InvalidInput(f"CKA needs at least two images, got {len(x)}")
    report_stage = report or (lambda what: None)
    found = []
    for inputs in INPUTS[: 1 if crafting is None else 2]:
        sides = []
        for which, model in (("first", first), ("second", second)):
            points = x
            if inputs == "adversarial" and crafting is not None:
                report_stage(f"crafting adversarial images against the {which} model")
                points = _crafted(model, x, y, crafting, seed)
            report_stage(f"{inputs} images through the {which} model")
            sides.append(_represent_all(model, points, y))
        (ours, right), (theirs, also_right) = sides
        matrix = np.array([[one.cka(other, debiased=debiased) for other in theirs.values()] for one in ours.values()])
        found.append(Similarity(inputs, tuple(ours), tuple(theirs), matrix, (right, also_right), len(x)))
    return tuple(found)


def _batches(model: Model, *tensors: Tensor) -> Iterator[list[Tensor]]:
    device = next(model.parameters()).device
    for parts in zip(*(torch.split(tensor, _BATCH) for tensor in tensors), strict=True):
        yield [part.to(device) for part in parts]


def _crafted(model: Model, x: Tensor, y: Tensor, crafting: Crafting, seed: int) -> Tensor:
    # on the CPU, so that the starts are the same on every device
    draws = torch.Generator().manual_seed(seed)
    points = []
    for images, classes in _batches(model, x, y):

        def raises(logits: Tensor, classes: Tensor = classes) -> Tensor:
            return F.cross_entropy(logits, classes, reduction="sum")

        points.append(craft(model, images, raises=raises, crafting=crafting, generator=draws).cpu())
    return torch.cat(points)


def _represent_all(model: Model, x: Tensor, y: Tensor) -> tuple[dict[str, Representation], float]:
    """The layers' representations in order, and the accuracy."""
    names = layers(model)
    found: dict[str, Representation] = {}
    right = 0
    for portion in _portions(model, names, x):
        features = {name: torch.empty((len(x), width)) for name, width in portion.items()}
        first = 0
        with watched(model, list(portion)) as outputs, torch.no_grad():
            for images, classes in _batches(model, x, y):
                logits = model(images)
                for name in portion:
                    features[name][first : first + len(images)] = outputs[name].float().cpu()
                right += int((logits.argmax(dim=1) == classes).sum()) if LOGITS in portion else 0
                first += len(images)
        device = next(model.parameters()).device
        for name in portion:
            found[name] = represent(features.pop(name).to(device))
    return found, right / len(x)


def _portions(model: Model, names: tuple[str, ...], x: Tensor) -> list[dict[str, int]]:
    """The layers with the width of each, in portions that are held at a time."""
    with watched(model, names) as outputs, torch.no_grad():
        for (images,) in _batches(model, x[:2]):
            model(images)
        silent = [name for name in names if name not in outputs]
        widths = {name: outputs[name].shape[1] for name in names if name in outputs}
    if silent:
        raise InvalidInput(f"the layer {silent[0]!r} of {model.architecture} takes no part in a pass")
    portions: list[dict[str, int]] = [{}]
    for name, width in widths.items():
        if portions[-1] and (sum(portions[-1].values()) + width) * len(x) > _NUMBERS:
            portions.append({})
        portions[-1][name] = width
    return portions
