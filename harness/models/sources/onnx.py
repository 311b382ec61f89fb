"""onnx:FILE, a network with its weights in an ONNX file, through onnx2torch; also FILE.onnx."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.errors import HarnessError, InvalidInput
from harness.models._base import Shape
from harness.models.norm_layers import NormLayer
from harness.models.sources._base import Complete, Foreign, agreeing, library
from harness.util.reading import read_bounded
from harness.util.user_file import one_line

__all__ = ["complete", "onnx"]

_NEWEST = 17
"""The opset whose operators onnx2torch knows best; of later ones it lacks some that every export uses."""

_LARGEST = 2 << 30
"""What an ONNX file without external data can have."""


def onnx(name: str, classes: int, shape: Shape, norm: NormLayer | None) -> Foreign:
    """The network in the file ``name``, with one module of torch for each of its operators."""
    return agreeing(complete(name), f"onnx:{name}", classes, shape)


def complete(name: str) -> Complete:
    """The network in the file ``name`` with its weights. A graph is data: nothing of it is run as code."""
    reader, converter = library("onnx"), library("onnx2torch")
    path = Path(name).expanduser()
    try:
        content = read_bounded(path, _LARGEST)
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise InvalidInput(f"cannot read {path}: {error}") from error
    try:
        model = reader.load_model_from_string(content)
        graph = model.graph
    except Exception as error:  # protobuf's own errors
        raise InvalidInput(f"{path} is no ONNX file: {one_line(error)}") from error
    # of the graph and of the constants among its nodes
    if any(tensor.external_data for tensor in reader.external_data_helper._get_all_tensors(model)):
        raise InvalidInput(f"{path} keeps weights in other files, which are not opened: save it with all data inside")
    held = {tensor.name for tensor in graph.initializer}
    inputs = [_sizes(value) for value in graph.input if value.name not in held]
    outputs = [_sizes(value) for value in graph.output]
    if len(inputs) != 1 or len(outputs) != 1 or len(inputs[0]) != 4 or len(outputs[0]) != 2:
        raise InvalidInput(
            f"{path} takes {inputs} and returns {outputs}: expected images [n, channels, height, width] and logits "
            "[n, classes]"
        )
    (batch, *image), (_, classes) = inputs[0], outputs[0]
    if batch is not None:
        raise InvalidInput(f"{path} was exported for batches of {batch} alone: export it with a dynamic batch size")
    channels, height, width = image
    if channels is None or height is None or width is None or classes is None:
        raise InvalidInput(
            f"{path} does not say how large images are or how many classes it knows: export it with both"
        )
    _name_shared(graph)
    try:
        network = converter.convert(model)
    except HarnessError:
        raise
    except Exception as error:  # an operator that onnx2torch does not know, or a damaged graph
        versions = ", ".join(str(one.version) for one in model.opset_import if one.domain in ("", "ai.onnx"))
        raise InvalidInput(
            f"onnx2torch cannot convert {path}: {one_line(error)}; its operators are of opset {versions}, and up to "
            f"{_NEWEST} are known: export it with opset_version={_NEWEST}"
        ) from error
    return Complete(network, classes, (channels, height, width), None, path)


def _name_shared(graph: Any) -> None:
    """Make weights of those that exporters pass on under another name, as onnx2torch takes only weights for weights."""
    held = {tensor.name: tensor for tensor in graph.initializer}
    for node in list(graph.node):
        if node.op_type == "Identity" and node.input[0] in held:
            copied = graph.initializer.add()
            copied.CopyFrom(held[node.input[0]])
            copied.name = node.output[0]
            held[copied.name] = copied
            graph.node.remove(node)


def _sizes(value: Any) -> list[int | None]:
    """The sizes of an input or output; None where they are open."""
    return [size.dim_value if size.dim_value > 0 else None for size in value.type.tensor_type.shape.dim]
