"""Networks in files of ``torch.export``, run without anything of the file being run as code.

``torch.export.load`` unpickles objects and looks up whatever function a file names, so it is for files that one trusts.
This reader takes the graph, which is JSON, and the weights, which are plain bytes; it unpickles nothing, and calls only
operators of torch's ``aten`` library that do nothing but compute.
"""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import InvalidInput
from harness.models._base import Shape
from harness.util.reading import open_bounded, parse_json
from harness.util.text import counted, printable

__all__ = ["Exported", "read_exported"]

_LARGEST = 8 << 30
_LARGEST_TEXT = 64 << 20
_LARGEST_PACKED = 1 << 20
_DEEPEST = 64
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, KeyError, TypeError, IndexError, AttributeError,
    OverflowError, MemoryError, RuntimeError,
)  # fmt: skip
_SOMETIMES_VIEWS = frozenset(("reshape", "flatten", "contiguous", "to", "_to_copy", "reshape_as", "type_as"))

# the numbers of torch's own schema for files
_DTYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}
_MEMORY_FORMATS = {1: torch.contiguous_format, 2: torch.channels_last, 4: torch.preserve_format}
_PLAIN = frozenset({"as_int", "as_ints", "as_float", "as_floats", "as_string", "as_bool", "as_bools"})
_ATEN = "torch.ops.aten."
_ARITHMETIC: dict[str, Callable[..., Any]] = {
    "_operator.add": lambda a, b: a + b,
    "_operator.sub": lambda a, b: a - b,
    "_operator.mul": lambda a, b: a * b,
    "_operator.floordiv": lambda a, b: a // b,
    "_operator.getitem": lambda a, b: a[b],
}
"""What graphs do with sizes, which are numbers."""


class Exported(nn.Module):
    """A network as a list of operators.

    Attributes:
        image: channels, height and width that it takes. classes: how many logits it returns.
    """

    def __init__(self, program: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str) -> None:
        super().__init__()
        graph, signature = program["graph_module"]["graph"], program["graph_module"]["signature"]
        self._held: dict[str, str] = {}  # names in the graph -> names of our tensors
        inputs = [name for spec in signature["input_specs"] for name in self._held_or_input(spec, tensors, where)]
        outputs = [spec["user_output"]["arg"]["as_tensor"]["name"] for spec in _only(signature, "user_output", where)]
        if len(inputs) != 1 or len(outputs) != 1:
            found = f"takes {counted(len(inputs), 'input')} and returns {counted(len(outputs), 'output')}"
            raise InvalidInput(f"{where} {found}: a classifier has one of each")
        self._input, self._output = inputs[0], outputs[0]
        kept = {*self._held, self._input}
        self._steps: list[_Step] = []
        for node in graph["nodes"]:
            step = _step(node, kept, where)
            self._steps.append(step)
            if _may_share_memory(step[0]) and _tensor_names(node["inputs"]) & kept:
                kept.update(step[3])  # a view of what is kept
        self.image, self.classes = _facts(graph["tensor_values"], inputs[0], outputs[0], where)

    def _held_or_input(self, spec: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str) -> list[str]:
        """The name of an input of the user; what else an input stands for is kept."""
        ((kind, about),) = spec.items()
        if kind == "user_input":
            return [about["arg"]["as_tensor"]["name"]]
        name = about.get(f"{kind}_name", about.get("tensor_constant_name"))
        if kind not in ("parameter", "buffer", "tensor_constant") or name not in tensors:
            raise InvalidInput(
                f"{where} needs a {printable(kind)} {printable(name)} that is not in it as a plain tensor"
            )
        own = f"tensor_{len(self._held)}_{''.join(c if c.isalnum() else '_' for c in name)}"
        value = tensors[name]
        if kind == "parameter":
            self.register_parameter(own, nn.Parameter(value, requires_grad=value.is_floating_point()))
        else:
            self.register_buffer(own, value)
        self._held[about["arg"]["name"]] = own
        return []

    def forward(self, x: Tensor) -> Tensor:
        values: dict[str, Any] = {name: getattr(self, own) for name, own in self._held.items()}
        values[self._input] = x
        for function, arguments, named, outputs in self._steps:
            result = function(
                *(_value(one, values, x) for one in arguments),
                **{name: _value(one, values, x) for name, one in named.items()},
            )
            several = result if isinstance(result, tuple | list) and len(outputs) > 1 else [result]
            values.update(zip(outputs, several, strict=True))
        logits: Tensor = values[self._output]
        return logits


def read_exported(path: Path) -> Exported:
    """The network in a file that ``torch.export.save`` wrote.

    Raises:
        InvalidInput: the file is damaged, holds pickled weights, was exported for batches of one size alone, or does
            something else than calling operators without side effects.
    """
    where = str(path)
    try:
        with open_bounded(path, _LARGEST) as (stream, _), zipfile.ZipFile(stream) as archive:
            names = archive.namelist()
            graphs = [name for name in names if name.partition("/")[2].startswith("models/") and name.endswith(".json")]
            if len(graphs) != 1:
                raise InvalidInput(f"{where} holds {len(graphs)} graphs of torch.export, expected one")
            root, model = graphs[0].partition("/")[0], Path(graphs[0]).stem
            program = parse_json(_bytes(archive, graphs[0], _LARGEST_TEXT), deepest=_DEEPEST)
            tensors = {
                **_tensors(archive, f"{root}/data/weights/", f"{model}_weights_config.json", where),
                **_tensors(archive, f"{root}/data/constants/", f"{model}_constants_config.json", where),
            }
        return Exported(program, tensors, where)
    except InvalidInput:
        raise
    except OSError as error:
        raise InvalidInput(f"cannot read {where}: {error.strerror or error}") from error
    except _DAMAGE as error:
        raise InvalidInput(f"{where} is no file of torch.export that can be read: {printable(error)}") from error


def _bytes(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    info = archive.getinfo(name)
    if info.file_size > most:
        raise ValueError(f"{name} is larger than {most:,} bytes")
    # torch packs nothing; what is packed may be far larger than the file
    if info.compress_type != zipfile.ZIP_STORED and info.file_size > _LARGEST_PACKED:
        raise ValueError(f"{name} is compressed, and larger than {_LARGEST_PACKED:,} bytes")
    return archive.read(name)


def _tensors(archive: zipfile.ZipFile, folder: str, config: str, where: str) -> dict[str, Tensor]:
    """Tensors by name."""
    listed = parse_json(_bytes(archive, folder + config, _LARGEST_TEXT), deepest=_DEEPEST)["config"]
    held: dict[str, Tensor] = {}
    for name, payload in listed.items():
        about = payload["tensor_meta"]
        if payload["use_pickle"] or about is None:
            raise InvalidInput(f"{where} holds {printable(name)} as a pickle, which may carry code: it was not opened")
        dtype = _DTYPES[about["dtype"]]
        content = bytearray(_bytes(archive, folder + payload["path_name"], _LARGEST))
        flat = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        size, stride = (tuple(one["as_int"] for one in about[key]) for key in ("sizes", "strides"))
        if math.prod(size) > flat.numel():
            raise ValueError(f"{name} has {math.prod(size):,} elements, and the file {flat.numel():,} of them")
        held[name] = flat.as_strided(size, stride, about["storage_offset"]["as_int"]).clone()
    return held


def _only(signature: Mapping[str, Any], kind: str, where: str) -> list[Any]:
    """The outputs, if all are of one kind."""
    others = {next(iter(spec)) for spec in signature["output_specs"]} - {kind}
    if others:
        raise InvalidInput(
            f"{where} changes its own state when it is called ({printable(min(others))}): export the network in eval "
            "mode"
        )
    return list(signature["output_specs"])


_Step = tuple[Callable[..., Any], list[Any], dict[str, Any], list[str]]
"""An operator, what it is given by position and by name, and what its results are called."""


def _step(node: Mapping[str, Any], kept: set[str], where: str) -> _Step:
    """A node of the graph.

    Args:
        kept: names of images, weights and buffers, which no operator may change.
    """
    positional: list[Any] = []
    named: dict[str, Any] = {}
    target = str(node["target"])
    function, by_name, written = _operator(target, where)
    for given in node["inputs"]:
        if given["name"] in written and _tensor_names([given]) & kept:
            raise InvalidInput(
                f"{where} changes its own tensors or its input ({printable(target)}): export the network in eval mode"
            )
        if given.get("kind") == 2 or given["name"] in by_name:
            named[given["name"]] = given["arg"]
        else:
            positional.append(given["arg"])
    outputs = [name for output in node["outputs"] for name in _output_names(output)]
    return function, positional, named, outputs


def _operator(target: str, where: str) -> tuple[Callable[..., Any], frozenset[str], frozenset[str]]:
    """The function that a graph names, its arguments that are given by name, and those that it changes in place.

    Raises:
        InvalidInput: it is none that a network needs.
    """
    if target in _ARITHMETIC:
        return _ARITHMETIC[target], frozenset(), frozenset()
    parts = target.removeprefix(_ATEN).split(".")
    if not target.startswith(_ATEN) or len(parts) != 2 or not all(part.isidentifier() for part in parts):
        raise InvalidInput(f"{where} calls {printable(target)}: only operators of torch's aten library are run")
    found = getattr(getattr(torch.ops.aten, parts[0], None), parts[1], None)
    if not isinstance(found, torch._ops.OpOverload):
        raise InvalidInput(f"{where} calls {printable(target)}, which torch {torch.__version__} does not have")
    arguments = found._schema.arguments
    kinds = [str(argument.type) for argument in arguments]
    # what takes a text and no tensor opens a file
    if any("str" in kind for kind in kinds) and not any("Tensor" in kind for kind in kinds):
        raise InvalidInput(f"{where} calls {printable(target)}, which does more than computing a result")
    by_name = frozenset(one.name for one in arguments if one.kwarg_only)
    return found, by_name, frozenset(one.name for one in arguments if one.alias_info and one.alias_info.is_write)


def _may_share_memory(function: Callable[..., Any]) -> bool:
    """Whether what an operator returns may be a view of what it was given."""
    if not isinstance(function, torch._ops.OpOverload):
        return True  # arithmetic of numbers, or an item of several tensors
    schema = function._schema
    return schema.name.partition("::")[2] in _SOMETIMES_VIEWS or any(one.alias_info for one in schema.returns)


def _tensor_names(inputs: Sequence[Mapping[str, Any]]) -> set[str]:
    """The tensors among the arguments of a node, those in lists included."""
    names: set[str] = set()
    for given in inputs:
        ((kind, about),) = given["arg"].items()
        if kind == "as_tensor":
            names.add(about["name"])
        elif kind in ("as_tensors", "as_optional_tensors"):
            names.update(_name_in(one) for one in about)
        elif kind == "as_optional_tensor":
            names.add(_name_in(about))
    return names - {""}


def _name_in(about: Mapping[str, Any]) -> str:
    """The name of a tensor that may be wrapped once more, or be none."""
    inner = about.get("as_tensor", about)
    return str(inner.get("name", "")) if isinstance(inner, Mapping) else ""


def _output_names(output: Mapping[str, Any]) -> list[str]:
    ((kind, about),) = output.items()
    if kind == "as_tensors":
        return [one["name"] for one in about]
    return [about["as_name"] if "as_name" in about else about["name"]]


def _value(argument: Mapping[str, Any], values: Mapping[str, Any], x: Tensor) -> Any:
    """What an argument stands for."""
    ((kind, about),) = argument.items()
    if kind in _PLAIN:
        return about
    reader = _READERS.get(kind)
    if reader is None:
        raise InvalidInput(
            f"the exported network has an argument of the kind {printable(kind)}, which is not known here"
        )
    return reader(about, values, x)


def _named(about: Mapping[str, Any], values: Mapping[str, Any], x: Tensor) -> Any:
    """A tensor or number by its name, or a number as it stands."""
    if "name" in about:
        return values[about["name"]]
    ((kind, value),) = about.items()
    return values[value] if kind == "as_name" else value


def _optional(about: Mapping[str, Any], values: Mapping[str, Any], x: Tensor) -> Any:
    return None if "as_none" in about else values[about["as_tensor"]["name"]]


_READERS: dict[str, Callable[[Any, Mapping[str, Any], Tensor], Any]] = {
    "as_none": lambda about, values, x: None,
    "as_tensor": _named,
    "as_sym_int": _named,
    "as_sym_float": _named,
    "as_optional_tensor": _optional,
    "as_tensors": lambda about, values, x: [_named(one, values, x) for one in about],
    "as_sym_ints": lambda about, values, x: [_named(one, values, x) for one in about],
    "as_optional_tensors": lambda about, values, x: [_optional(one, values, x) for one in about],
    "as_scalar_type": lambda about, values, x: _DTYPES[about],
    "as_memory_format": lambda about, values, x: _MEMORY_FORMATS[about],
    "as_layout": lambda about, values, x: torch.strided,
    "as_device": lambda about, values, x: x.device,  # it runs where its images are
}


def _facts(described: Mapping[str, Any], images: str, logits: str, where: str) -> tuple[Shape, int]:
    """Image shape and number of classes, from what the file says of its input and output."""
    taken, returned = ([size.get("as_int") for size in described[name]["sizes"]] for name in (images, logits))
    if len(taken) != 4 or len(returned) != 2 or None in taken[1:] or returned[1] is None:
        raise InvalidInput(
            f"{where} takes {taken} and returns {returned}: expected images [n, channels, height, width] and logits "
            "[n, classes]"
        )
    if taken[0] is not None:
        raise InvalidInput(
            f"{where} was exported for batches of {taken[0]} alone: export it with "
            "dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)"
        )
    return (taken[1], taken[2], taken[3]), returned[1]
