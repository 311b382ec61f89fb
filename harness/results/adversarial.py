"""The adversarial examples of a result, in a file beside it, so that anyone can check its verdicts.

The file is in the safetensors format, which carries no code. It holds one point for each sample that is correct without
attack and broken by it. Points are stored exactly: as the differences between their bit patterns and those of the clean
images, compressed, or plainly where that is smaller. The clean images are needed to read them back.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from harness.errors import InvalidInput, ResultError
from harness.results.record import Result, Verdicts
from harness.util.images import Images, cast
from harness.util.reading import parse_json
from harness.util.text import printable
from harness.util.validation import Record, validate

__all__ = ["AdversarialFacts", "AdversarialPoints", "pack", "packed_examples", "unpack"]

_VERSION = 1
# Points are compressed in blocks of about this many bytes, so that neither side holds a second copy of all of them.
_BLOCK = 1 << 24
_MOST_HEADER = 1 << 16
_BITS = {"float32": np.int32, "float64": np.int64}


class AdversarialFacts(Record):
    """What a file of adversarial examples belongs to.

    Attributes:
        evaluation_id: of the result. weights_sha256, data_sha256: of the attacked model and of the clean images.
    """

    evaluation_id: str = Field(max_length=200)
    weights_sha256: str = Field(max_length=200)
    data_sha256: str = Field(max_length=200)


@dataclass(frozen=True, eq=False)
class AdversarialPoints:
    """Adversarial examples of some of the evaluated samples.

    Attributes:
        rows: int64 ``[m]``, ascending positions among the evaluated samples. points: ``[m, ...]``, like the images.
    """

    facts: AdversarialFacts
    rows: np.ndarray[Any, np.dtype[np.int64]]
    points: Tensor


def packed_examples(result: Result, verdicts: Verdicts, points: Images, clean: Images) -> bytes | None:
    """The content of the file for a result; None where no sample was broken.

    Args:
        points, clean: ``[n, ...]`` what was found for every sample, and the images that were evaluated.
    """
    rows = np.flatnonzero(verdicts.broken_by >= 0).astype(np.int64)
    if not len(rows):
        return None
    facts = AdversarialFacts(
        evaluation_id=result.evaluation_id, weights_sha256=result.model.sha256, data_sha256=result.dataset.sha256
    )
    return pack(AdversarialPoints(facts, rows, points[rows]), cast(clean, points.dtype))


def pack(adversarial: AdversarialPoints, clean: Images | None) -> bytes:
    """The content of the file.

    Args:
        clean: ``[n, ...]`` the clean images, in the dtype of the points; without them points are stored plainly.
    """
    points = adversarial.points.detach().cpu().contiguous().numpy()
    dtype = str(points.dtype)
    header = {
        "format": "robust-harness adversarial examples",
        "version": str(_VERSION),
        "facts": adversarial.facts.model_dump_json(),
        "dtype": dtype,
        "shape": json.dumps(list(points.shape)),
    }
    rows = adversarial.rows.astype("<i8")
    if clean is None:
        return _written({"rows": rows, "points": points}, header | {"encoding": "plain"})
    blocks = [
        zlib.compress(_differences(points[part], _array(clean, adversarial.rows[part]), dtype), level=6)
        for part in _parts(points.shape, points.itemsize)
    ]
    if sum(map(len, blocks)) >= points.nbytes:
        return _written({"rows": rows, "points": points}, header | {"encoding": "plain"})
    lengths = np.array([len(block) for block in blocks], dtype="<i8")
    joined = np.frombuffer(b"".join(blocks), dtype=np.uint8)
    return _written({"rows": rows, "lengths": lengths, "blocks": joined}, header | {"encoding": "differences"})


def unpack(path: Path, clean: Images, sha256: str | None = None) -> AdversarialPoints:
    """Read the file that `pack` made.

    Args:
        clean: ``[n, ...]`` the clean images.
        sha256: of the file, where that is known.

    Raises:
        ResultError: it is missing, damaged, or does not fit the images; nothing larger than these is allocated.
    """
    try:
        _check_size(path, clean)
        if sha256 is not None and _sha256(path) != sha256:
            raise ResultError(f"the adversarial examples {path} were changed after they were written")
        with safe_open(path, framework="np") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dictionary)
        return _unpacked(header, tensors, clean)
    except FileNotFoundError as error:
        raise ResultError(f"the adversarial examples {path} are missing") from error
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, zlib.error, InvalidInput) as error:
        raise ResultError(f"the adversarial examples {path} are damaged: {printable(error, longest=300)}") from error


def _written(tensors: dict[str, np.ndarray[Any, Any]], metadata: dict[str, str]) -> bytes:
    """The same bytes for the same content: the library writes a header in an order that changes from call to call."""
    content = save(tensors, metadata)
    begin = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:begin]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[begin:]


def _check_size(path: Path, clean: Images) -> None:
    """Refuse before anything is read what is larger than all points of the clean images could be."""
    if not path.is_file():
        raise FileNotFoundError(path)
    most = math.prod(clean.shape) * 8 + len(clean) * 16 + _MOST_HEADER
    size = path.stat().st_size
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if size > most or header > _MOST_HEADER:
        raise ValueError(
            f"expected at most {most:,} bytes with a header of {_MOST_HEADER:,}, got {size:,} and {header:,}"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unpacked(header: dict[str, str], tensors: dict[str, np.ndarray[Any, Any]], clean: Images) -> AdversarialPoints:
    if header.get("version") != str(_VERSION):
        raise ValueError(f"expected version {_VERSION}, got {header.get('version')!r}")
    facts = validate(AdversarialFacts, parse_json(header["facts"].encode()), "its facts")
    rows, dtype = tensors["rows"], header["dtype"]
    if rows.dtype != np.int64 or rows.ndim != 1 or dtype not in _BITS:
        raise ValueError(f"expected int64 rows and float32 or float64 points, got {rows.dtype} and {dtype!r}")
    if len(rows) and (rows[0] < 0 or rows[-1] >= len(clean) or bool((np.diff(rows) <= 0).any())):
        raise ValueError(f"expected ascending rows below {len(clean)}")
    shape = (len(rows), *clean.shape[1:])
    if header["shape"] != json.dumps(list(shape)):
        raise ValueError(f"expected points of shape {list(shape)}, got {header['shape']}")
    images = cast(clean, getattr(torch, dtype))
    if header.get("encoding") == "plain":
        points = tensors["points"]
        if points.shape != shape or str(points.dtype) != dtype:
            raise ValueError(f"expected {dtype} points of shape {list(shape)}")
        return AdversarialPoints(facts, rows, torch.from_numpy(points))
    parts = list(_parts(shape, np.dtype(dtype).itemsize))
    lengths, joined = tensors["lengths"].tolist(), tensors["blocks"].tobytes()
    if len(lengths) != len(parts) or min(lengths, default=0) < 0 or sum(lengths) != len(joined):
        raise ValueError("the lengths of its blocks do not fit")
    points, begin = np.empty(shape, dtype), 0
    for part, length in zip(parts, lengths, strict=True):
        points[part] = _applied(joined[begin : begin + length], _array(images, rows[part]), dtype)
        begin += length
    return AdversarialPoints(facts, rows, torch.from_numpy(points))


def _array(images: Images, rows: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = images[rows].detach().cpu().contiguous().numpy()
    return array


def _parts(shape: tuple[int, ...], itemsize: int) -> Iterator[slice]:
    """Blocks of samples."""
    size = max(1, _BLOCK // max(1, int(np.prod(shape[1:], dtype=np.int64)) * itemsize))
    for begin in range(0, shape[0], size):
        yield slice(begin, min(begin + size, shape[0]))


def _differences(points: np.ndarray[Any, Any], images: np.ndarray[Any, Any], dtype: str) -> bytes:
    bits = _BITS[dtype]
    with np.errstate(over="ignore"):  # wrapping around is undone on reading
        difference = points.view(bits) - images.view(bits)
    # all first bytes, then all second bytes, and so on: the high bytes are nearly all equal
    planes = difference.astype(difference.dtype.newbyteorder("<")).view(np.uint8).reshape(-1, points.itemsize).T
    return bytes(planes.tobytes())


def _applied(block: bytes, images: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    bits = np.dtype(_BITS[dtype])
    unpacker = zlib.decompressobj()
    # never more than is expected, whatever the block expands to
    content = unpacker.decompress(block, images.nbytes + 1)
    if len(content) != images.nbytes or not unpacker.eof or unpacker.unused_data:
        raise ValueError("a block has another length than its points")
    planes = np.frombuffer(content, np.uint8).reshape(bits.itemsize, -1).T
    difference = np.ascontiguousarray(planes).view(bits.newbyteorder("<")).astype(bits).reshape(images.shape)
    with np.errstate(over="ignore"):
        return (images.view(bits) + difference).view(dtype)
