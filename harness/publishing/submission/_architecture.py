"""The network as a file of its own, and its weights as RobustBench's loader reads them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from harness import models
from harness.checkpoints import Checkpoint
from harness.errors import HarnessError, InvalidInput
from harness.models import Model, Recipe, norm_layers
from harness.publishing.submission._board import Layout
from harness.publishing.submission._bundle import bundle
from harness.util import plugins
from harness.util.literals import listed_arguments
from harness.util.user_file import from_file, one_line

__all__ = ["Architecture", "architecture_of", "largest_difference", "weights_of"]

_NEEDED = ("import torch", "from torch import nn")
_FUTURE = re.compile(r"^from __future__ import .*\n", re.MULTILINE)
# the loader takes what follows from the beginning of every name that holds it anywhere
_TAKEN_OFF = ("module.", "model.")


class Architecture(NamedTuple):
    """A file for RobustBench's ``architectures`` folder.

    Attributes:
        text: of the file. module: its name without ".py". class_name: of the model, which takes no arguments.
    """

    text: str
    module: str
    class_name: str


def architecture_of(checkpoint: Checkpoint, layout: Layout, name: str, header: str) -> Architecture:
    """The model of a checkpoint as one file that does not need this package.

    Args:
        layout: of the weights. name: of the entry. header: lines of comment to begin with.

    Raises:
        InvalidInput: the network cannot be written as one file.
    """
    model = checkpoint.model
    recipe = model.recipe or _own_recipe(model)
    source = _FUTURE.sub("", recipe.source).strip("\n")
    class_name = f"{re.sub(r'[^A-Za-z0-9]', '_', name)}Net"
    needed = [line for line in _NEEDED if line not in source.splitlines()]
    begin = "\n".join([header, "from __future__ import annotations\n", *needed])
    text = f"{begin}\n{source}\n\n\n{_wrapper(model, layout, class_name, recipe.expression)}"
    return Architecture(text, re.sub(r"[^a-z0-9]", "_", name.lower()), class_name)


def weights_of(checkpoint: Checkpoint, layout: Layout) -> dict[str, Tensor]:
    """The weights under the names that RobustBench's loader makes fit the architecture file.

    Raises:
        InvalidInput: the loader would change a name.
    """
    state = {f"{layout.prefix}{name}": tensor for name, tensor in checkpoint.model.network.state_dict().items()}
    changed = [name for name in state if any(part in name for part in _TAKEN_OFF)]
    if changed:
        raise InvalidInput(
            f"RobustBench's loader would change the name of {changed[0]} and {len(changed) - 1} more, as it takes "
            f"{' and '.join(_TAKEN_OFF)} out of names: rename these parts of the network"
        )
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def largest_difference(
    file: Path, class_name: str, weights: dict[str, Tensor], layout: Layout, model: nn.Module, images: Tensor
) -> float:
    """How far the logits of the file's class with the weights are from the model's, on images ``[m, ...]``.

    Raises:
        HarnessError: the file does not run, or the weights do not fit.
    """
    made = from_file(f"{file}:{class_name}", "model")
    state = {f"{layout.attribute}.{name.removeprefix(layout.prefix)}": tensor for name, tensor in weights.items()}
    try:
        alone: nn.Module = made()
        alone.load_state_dict(state, strict=True)
        with torch.no_grad():
            found, expected = alone.eval()(images), model(images)
    except Exception as error:
        raise HarnessError(f"the architecture file cannot be used by itself: {one_line(error)}") from error
    return float((found - expected).abs().max())


def _own_recipe(model: Model) -> Recipe:
    """The text of an architecture of this package or of an installed one, with the norm layer that it was given."""
    if model.architecture not in models.names():
        raise InvalidInput(
            f"the architecture {model.architecture} cannot be written as one file: it needs other files or objects "
            "beside it"
        )
    factory = plugins.lookup(models.__name__, model.architecture, "architecture")
    needed = [(factory.__module__, factory.__name__)]
    arguments = [str(model.classes), repr(tuple(model.shape))]
    if plugins.is_own(norm_layers.__name__, model.norm_layer):
        norm = model.norm_layer.replace("-", "_")
        needed.append((f"{norm_layers.__name__}.{norm}", norm))
        arguments.append(norm)
    if model.arguments:
        arguments.append(listed_arguments(model.arguments))
    return Recipe(bundle(needed), f"{factory.__name__}({', '.join(arguments)})")


def _wrapper(model: Model, layout: Layout, class_name: str, expression: str) -> str:
    """The class that holds the network and does its normalisation."""
    normalization = model.normalization
    lines = [
        f"class {class_name}(nn.Module):",
        '    """Images in [0, 1] to logits."""',
        "",
        "    def __init__(self) -> None:",
        "        super().__init__()",
        f"        self.{layout.attribute} = {expression}",
    ]
    images = "x"
    if normalization is not None:
        for name, values in (("mu", normalization.mean), ("sigma", normalization.std)):
            tensor = f"torch.tensor({list(values)}).reshape(-1, 1, 1)"
            lines.append(f'        self.register_buffer("{name}", {tensor}, persistent=False)')
        images = "(x - self.mu) / self.sigma"
    lines += [
        "",
        "    def forward(self, x: torch.Tensor) -> torch.Tensor:",
        f"        return self.{layout.attribute}({images})",
    ]
    return "\n".join(lines) + "\n"
