"""Which layers of a network are compared, and what comes out of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from harness.errors import InvalidInput
from harness.models import Model, layer_groups

__all__ = ["LOGITS", "layers", "watched"]

LOGITS = "logits"
"""What the network's own output is called among its layers."""


def layers(model: Model) -> tuple[str, ...]:
    """Names of the layers that are compared, from the input to the output.

    Of each layer group of the architecture its blocks (the children of a sequence), or its last module where it
    is no sequence; then `LOGITS`, in place of the head.
    """
    modules = dict(model.network.named_modules())
    found: list[str] = []
    for prefixes in list(layer_groups(model).values())[:-1]:
        parts = [prefix for prefix in prefixes if prefix in modules]
        sequences = [prefix for prefix in parts if isinstance(modules[prefix], nn.Sequential)]
        blocks = [
            f"{prefix}.{name}"
            for prefix in sequences
            for name, child in modules[prefix].named_children()
            if next(child.parameters(), None) is not None
        ]
        found += blocks or parts[-1:]
    return (*found, LOGITS)


@contextmanager
def watched(model: Model, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Within it, every forward pass puts copies of these layers' outputs, ``[n, features]``, into the dictionary.

    Raises:
        InvalidInput: a layer that is not there, runs more than once a pass, or returns no tensor of one row a
            sample.
    """
    modules = dict(model.network.named_modules())
    unknown = [name for name in names if name != LOGITS and name not in modules]
    if unknown:
        raise InvalidInput(f"{model.architecture} has no layer {unknown[0]!r}: it has {', '.join(layers(model))}")
    outputs: dict[str, Tensor] = {}

    def begin(module: nn.Module, args: Any) -> None:
        outputs.clear()

    def note(name: str, module: nn.Module, args: Any, output: Any) -> None:
        if name in outputs:
            raise InvalidInput(f"the layer {name!r} of {model.architecture} runs more than once a pass")
        if not isinstance(output, Tensor) or output.dim() < 2:
            raise InvalidInput(f"the layer {name!r} of {model.architecture} returns no tensor with a row a sample")
        # a copy at once: what follows may work in place
        outputs[name] = output.detach().flatten(1).clone()

    handles: list[Any] = []
    try:
        handles.append(model.network.register_forward_pre_hook(begin))
        for name in names:
            module = model.network if name == LOGITS else modules[name]
            handles.append(module.register_forward_hook(partial(note, name)))
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
