"""Calling what makes a network: which arguments it may take, which it gets, and how that is said."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.errors import InvalidInput, did_you_mean
from harness.models._base import Shape
from harness.models.norm_layers import NormLayer, get
from harness.util.literals import listed_arguments

__all__ = ["Call", "call_of", "own_arguments"]

_NORM = "norm_layer"
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_ANY_NAME = inspect.Parameter.VAR_KEYWORD


@dataclass(frozen=True)
class Call:
    """The arguments of a call, and those that the function takes besides (with their defaults)."""

    label: str
    arguments: Mapping[str, Any]
    others: tuple[str, ...]

    def __str__(self) -> str:
        shown = {name: value.name if isinstance(value, NormLayer) else value for name, value in self.arguments.items()}
        called = f"{self.label} was called with {listed_arguments(shown) or 'no arguments'}"
        return f"{called}, and may be given {', '.join(self.others)} (--arch-args)" if self.others else called


def call_of(
    factory: Callable[..., Any],
    label: str,
    *,
    classes: int,
    shape: Shape,
    norm: NormLayer | None,
    given: Mapping[str, Any],
) -> Call:
    """How a factory is called: with what was given, else by the usual names with classes, image shape and norm layer.

    Raises:
        InvalidInput: it needs more, or does not take what was given.
    """
    taken = _parameters(factory, label)
    anything = any(parameter.kind is _ANY_NAME for parameter in taken.values())
    by_name = {name: parameter for name, parameter in taken.items() if parameter.kind in _BY_NAME}
    _refuse_unknown(label, given, by_name, anything)
    offered = {name: value for name, parameter in by_name.items() for value in _usual(name, parameter, classes, shape)}
    if anything and not offered:
        # one that only passes its arguments on gets what every factory is promised
        offered = {"classes": classes, "shape": shape}
    needs_norm = _NORM in by_name and by_name[_NORM].default is inspect.Parameter.empty
    if norm is not None and (_NORM in by_name or anything):
        offered[_NORM] = norm
    elif needs_norm:
        offered[_NORM] = get("batch")
    arguments = {**offered, **given}
    missing = [name for name, parameter in taken.items() if _is_needed(parameter) and name not in arguments]
    positional = [name for name, parameter in taken.items() if _is_needed(parameter) and parameter.kind not in _BY_NAME]
    if positional:
        raise InvalidInput(f"{label} takes {', '.join(positional)} by position alone: a factory is called by name")
    if missing:
        raise InvalidInput(
            f"{label} needs {', '.join(missing)}: give {'it' if len(missing) == 1 else 'them'} with --arch-args "
            f"{','.join(f'{name}=...' for name in missing)}, or call {'it' if len(missing) == 1 else 'them'} by a "
            "usual name (classes, num_classes, shape, in_channels, image_size, norm_layer, ...)"
        )
    return Call(label, arguments, tuple(_shown(by_name[name]) for name in by_name if name not in arguments))


def own_arguments(factory: Callable[..., Any], label: str, given: Mapping[str, Any]) -> None:
    """Check that a function takes arguments by name beside its positional ones.

    Raises:
        InvalidInput: it does not.
    """
    if not given:
        return
    taken = _parameters(factory, label)
    after = list(taken)[list(taken).index(_LAST) + 1 :] if _LAST in taken else []
    anything = any(taken[name].kind is _ANY_NAME for name in after)
    _refuse_unknown(label, given, {name: taken[name] for name in after if taken[name].kind in _BY_NAME}, anything)


_LAST = "norm"
"""The last of the parameters that every architecture and source has."""


def _parameters(factory: Callable[..., Any], label: str) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(factory).parameters
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{label} does not say which arguments it takes: {error}") from error


def _refuse_unknown(
    label: str, given: Mapping[str, Any], known: Mapping[str, inspect.Parameter], anything: bool
) -> None:
    unknown = [name for name in given if name not in known]
    if unknown and not anything:
        takes = f"{', '.join(known) or 'none'}{did_you_mean(unknown[0], known)}"
        raise InvalidInput(f"{label} has no argument {', '.join(map(repr, unknown))}, it takes {takes}")


def _is_needed(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind not in (_ANY_NAME, parameter.VAR_POSITIONAL)


def _shown(parameter: inspect.Parameter) -> str:
    plain = isinstance(parameter.default, bool | int | float | str)
    return f"{parameter.name}={parameter.default!r}" if plain else parameter.name


def _usual(name: str, parameter: inspect.Parameter, classes: int, shape: Shape) -> list[Any]:
    """The value that a parameter of a usual name stands for, if it has one."""
    if name in _CLASSES:
        return [classes]
    if name in _CHANNELS:
        return [shape[0]]
    if name in _SHAPE:
        return [shape]
    if name in _SIZE:
        return _size(parameter.default, shape)
    return []


_CLASSES = {"classes", "num_classes", "n_classes", "nb_classes", "nclasses", "num_class", "n_class", "num_labels"}
_CHANNELS = {"in_channels", "in_chans", "in_channel", "input_channels", "num_input_channels", "in_ch", "n_channels_in"}
_SHAPE = {"shape", "input_shape", "image_shape", "img_shape", "in_shape"}
_SIZE = {"input_size", "image_size", "img_size", "in_size"}


def _size(default: Any, shape: Shape) -> list[Any]:
    """A size in the form in which the parameter's default is written."""
    channels, height, width = shape
    pixels = channels * height * width
    if isinstance(default, tuple | list):
        return [shape] if len(default) == len(shape) else [(height, width)]
    if default == pixels:  # of a network that takes an image as one row
        return [pixels]
    return [height if height == width else (height, width)]
