"""Files of weights: registered ones, foreign ones, and those in several parts."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness import checkpoints
from tests.hostile.case import Case, Kind, Trap, broken_json, sparse, strange, text
from tests.registry.material import packed, put, registered, small, weights

__all__ = ["cases"]


def _bring(path: Path) -> object:
    return checkpoints.import_file(
        path, name="own", directory=path.parent / "registry", architecture="digits-resnet", dataset="digits",
        normalization="none",
    )  # fmt: skip


REGISTERED = Kind("registered weights", "own.pt", checkpoints.load, lambda path: registered(path.parent))
REGISTERED_SAFETENSORS = Kind(
    "registered safetensors",
    "own.safetensors",
    checkpoints.load,
    lambda path: registered(path.parent, file_format="safetensors"),
)
FOREIGN = Kind("foreign weights", "foreign.pt", _bring)
FOREIGN_SAFETENSORS = Kind("foreign safetensors", "foreign.safetensors", _bring)
INDEX = Kind(
    "index of weights",
    "model.safetensors.index.json",
    _bring,
    lambda path: path.with_name("part.safetensors").write_bytes(_safetensors("{}")),
)


def cases() -> Iterator[Case]:
    """All of them."""
    for name, make, message in _REGISTERED:
        yield Case(REGISTERED, name, _vouched(make), message)
    yield from strange(REGISTERED, "no such checkpoint|sha256 is|more than the|is empty")
    for name, header, data, message in _HEADERS:
        content = text(_safetensors(header, data))
        yield Case(FOREIGN_SAFETENSORS, name, content, message)
    yield Case(FOREIGN_SAFETENSORS, "header of 100,000 names", text(_many_names), "100,000 tensors")
    yield Case(
        FOREIGN_SAFETENSORS, "header of 90 MB", sparse(100 << 20, (90 << 20).to_bytes(8, "little")), "header is larger"
    )
    yield Case(FOREIGN_SAFETENSORS, "header of 2**63 bytes", text((1 << 63).to_bytes(8, "little")), "header is larger")
    yield from strange(FOREIGN_SAFETENSORS, "no file but|cannot read|no such file|is empty|more than|should hold one")
    yield Case(REGISTERED_SAFETENSORS, "other tensors", _vouched(lambda: _safetensors(_ONE, b"\0" * 4)), "1 unexpected")
    for name, make, message in _FOREIGN:
        yield Case(FOREIGN, name, text(make), message)
    for name, pickled, message in _PICKLES:
        yield Case(FOREIGN, name, text(_legacy(pickled)), message)
    yield from strange(FOREIGN, "no file but|cannot read|no such file|is empty|more than|should hold one")
    yield from strange(INDEX, "no file but|cannot read|no such file|is empty|more than|should hold one|no folder")
    yield from broken_json(INDEX, "is not valid JSON|no table 'weight_map'")
    for name, table, message in _INDICES:
        yield Case(INDEX, name, text(json.dumps({"weight_map": table})), message)
    yield Case(INDEX, "file that is a pipe", _with_part(os.mkfifo), "not beside it")
    yield Case(
        INDEX, "file that is a link to a device", _with_part(lambda part: part.symlink_to("/dev/zero")), "not beside it"
    )
    yield Case(REGISTERED, "link to a file elsewhere", _link_out, "is a link to a file elsewhere")


def _vouched(make: Callable[[], bytes]) -> Callable[[Path], object]:
    return lambda path: put(path, make())


def _link_out(path: Path) -> None:
    elsewhere = path.parent / "elsewhere"
    elsewhere.mkdir()
    path.rename(elsewhere / path.name)
    path.symlink_to(elsewhere / path.name)


def _first() -> str:
    return next(iter(weights()))


def _with_first(change: Callable[[Tensor], Any]) -> bytes:
    tensors: dict[str, Any] = weights()
    tensors[_first()] = change(tensors[_first()])
    return packed({"state_dict": tensors})


def _sound() -> bytes:
    return packed({"state_dict": weights()})


def _nan(tensor: Tensor) -> Tensor:
    tensor.view(-1)[3] = torch.nan
    return tensor


def _zipped(content: bytes, change: Callable[[str, bytes], list[tuple[str, bytes, int]]]) -> bytes:
    """The archive with other records: of each name and content those that ``change`` lists, with their compression."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(out, "w") as target:
        for info in source.infolist():
            for name, data, kind in change(info.filename, source.read(info)):
                target.writestr(name, data, compress_type=kind)
    return out.getvalue()


def _record(suffix: str, data: Callable[[bytes], bytes], kind: int = zipfile.ZIP_STORED) -> bytes:
    return _zipped(
        _sound(),
        lambda name, held: [(name, data(held), kind) if name.endswith(suffix) else (name, held, zipfile.ZIP_STORED)],
    )


def _more(name: str, data: bytes, kind: int = zipfile.ZIP_STORED) -> bytes:
    return _zipped(
        _sound(),
        lambda own, held: [
            (own, held, zipfile.ZIP_STORED),
            *([(f"{own.partition('/')[0]}/{name}", data, kind)] if own.endswith("data.pkl") else []),
        ],
    )


def _declared(size: int) -> bytes:
    """A record whose size in the table of contents is another than it has."""
    content = bytearray(_sound())
    with zipfile.ZipFile(io.BytesIO(bytes(content))) as archive:
        info = next(info for info in archive.infolist() if info.filename.endswith("data/0"))
    at = content.rindex(info.filename.encode()) - 46
    struct.pack_into("<LL", content, at + 20, size, size)
    return bytes(content)


def _renamed(*, legacy: bool) -> bytes:
    """A state dict whose pickle gives one name two values."""
    tensors = {"aa": torch.zeros(2), "bb": torch.ones(2), **weights()}
    buffer = io.BytesIO()
    torch.save({"state_dict": tensors}, buffer, _use_new_zipfile_serialization=not legacy)
    old, new = b"X\x02\x00\x00\x00bb", b"X\x02\x00\x00\x00aa"
    if legacy:
        return buffer.getvalue().replace(old, new)
    return _zipped(buffer.getvalue(), lambda name, data: [(name, data.replace(old, new), zipfile.ZIP_STORED)])


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = (value, value)
    return value


def _legacy(pickled: bytes) -> bytes:
    """A file of torch.save before 1.6 whose object is replaced by another pickle."""
    buffer = io.BytesIO()
    torch.save(0, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue().replace(pickle.dumps(0, 2), pickled, 1)


def _safetensors(header: str, data: bytes = b"") -> bytes:
    return len(header.encode()).to_bytes(8, "little") + header.encode() + data


def _many_names() -> bytes:
    names = {
        f"a.name.as.long.as.some.{n}": {"dtype": "F32", "shape": [1], "data_offsets": [4 * n, 4 * n + 4]}
        for n in range(100_000)
    }
    return _safetensors(json.dumps(names), b"\0" * 400_000)


def _with_part(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        make(path.with_name("other.safetensors"))
        path.write_text('{"weight_map": {"a": "other.safetensors"}}')

    return write


_NO_WEIGHTS = "no weights|no tensors|expected|nested more deeply"

_REGISTERED: list[tuple[str, Callable[[], bytes], str]] = [
    ("text", lambda: b"these are no weights", "no file of weights"),
    ("HTML", lambda: b"<!DOCTYPE html><html>404</html>", "no file of weights"),
    ("code", lambda: packed({"state_dict": weights(), "metadata": Trap()}), r"Python objects \(.*getattr"),
    ("bare pickle with code", lambda: pickle.dumps(Trap()), "torch.save did not write"),
    ("whole model", lambda: packed(small()), r"Python objects \(harness\.models\._base\.Model, "),
    ("truncated", lambda: _sound()[:-200], "cut short"),
    ("half", lambda: _sound()[:9000], "cut short"),
    ("no state dict", lambda: packed(weights()), "no entry 'state_dict'"),
    ("bare list", lambda: packed([torch.zeros(2)]), "no entry 'state_dict'"),
    ("list inside", lambda: packed({"state_dict": [torch.zeros(2)]}), "expected a dictionary"),
    ("nothing inside", lambda: packed({"state_dict": {}}), "holds no tensors"),
    ("number for a tensor", lambda: _with_first(lambda t: 1.5), "got a value of type float"),
    ("number for a name", lambda: packed({"state_dict": {5: torch.zeros(1)}}), "got a tensor at '5'"),
    ("NaN", lambda: _with_first(_nan), "NaN or infinite values in"),
    ("infinite", lambda: _with_first(lambda t: t / 0), "NaN or infinite values in"),
    ("complex", lambda: _with_first(lambda t: t.to(torch.complex64)), "is complex"),
    ("half precision", lambda: _with_first(Tensor.half), "float16 instead of float32"),
    ("bfloat16", lambda: _with_first(Tensor.bfloat16), "bfloat16 instead of float32"),
    ("double", lambda: _with_first(Tensor.double), "float64 instead of float32"),
    ("meta tensor", lambda: _with_first(lambda t: t.to("meta")), "has no data"),
    ("giant view", lambda: _with_first(lambda t: torch.zeros(1).expand(10**12)), "claims 1000000000000 elements"),
    ("expanded view", lambda: _with_first(lambda t: t[:1].expand_as(t)), "claims .* elements"),
    ("sparse tensor", lambda: _with_first(lambda t: t.to_sparse()), "not a plain one|Python objects"),
    ("shape", lambda: _with_first(lambda t: t[:3]), r"1 shape \(.* instead of"),
    ("transposed", lambda: _with_first(lambda t: t.transpose(0, 1)), "1 shape"),
    ("missing", lambda: packed({"state_dict": dict(list(weights().items())[2:])}), r"2 missing \("),
    ("unexpected", lambda: packed({"state_dict": {**weights(), "zz": torch.zeros(1)}}), r"1 unexpected \(zz\)"),
    ("same name twice", lambda: _renamed(legacy=False), r"same name twice \(aa\)"),
    ("same name twice, legacy", lambda: _renamed(legacy=True), r"same name twice \(aa\)"),
    (
        "flipped bit in a record",
        lambda: _sound().replace(b"\x00\x00\x80?", b"\x00\x00\x80\xff", 1),
        "another hash|damaged|NaN",
    ),
    (
        "names that a terminal would act on",
        lambda: packed({"state_dict": {**weights(), "\x1b]0;title\x07\u202e": torch.zeros(1)}}),
        "1 unexpected",
    ),
    ("name of 3 MB", lambda: packed({"state_dict": {**weights(), "n" * (3 << 20): torch.zeros(1)}}), "1 unexpected"),
    (
        "20,000 unexpected names",
        lambda: packed({"state_dict": {**weights(), **dict.fromkeys(map(str, range(20_000)), torch.zeros(1))}}),
        "20000 unexpected",
    ),
]

_FOREIGN: list[tuple[str, Callable[[], bytes], str]] = [
    ("same record twice", lambda: _more("data/0", b"\0" * 64), "same name twice|damaged"),
    ("record that is compressed", lambda: _record("data/0", lambda data: data, zipfile.ZIP_DEFLATED), "is compressed"),
    (
        "record that expands to 64 MB",
        lambda: _record("data/0", lambda data: bytes(64 << 20), zipfile.ZIP_DEFLATED),
        "where .* are declared|is compressed",
    ),
    ("record said to have 4 GB", lambda: _declared((1 << 32) - 2), "declared|damaged|cut short|checksum"),
    ("record said to have 3 bytes", lambda: _declared(3), "declared|damaged|cut short|checksum"),
    ("second pickle that expands", lambda: _more("more/data.pkl", bytes(16 << 20), zipfile.ZIP_DEFLATED), "more in it"),
    ("pickle that expands", lambda: _record("data.pkl", lambda data: bytes(65 << 20), zipfile.ZIP_DEFLATED), "larger"),
    ("TorchScript", lambda: _more("constants.pkl", b""), "TorchScript archive, which holds code"),
    ("another byte order", lambda: _record("byteorder", lambda data: b"big"), "another byte order"),
    ("something behind the archive", lambda: _sound() + b"#!/bin/sh\n", "behind its end|cut short"),
    ("something in front of the archive", lambda: _sound()[:4] + b"#!/bin/sh\n" + _sound()[4:], "damaged|cut short"),
    ("many nested tuples", lambda: packed({"a": _nested(60), "b": torch.zeros(1)}), _NO_WEIGHTS),
    ("ZIP of 20,000 empty records", lambda: _many_records(), "more in it|larger than any|without weights"),
]


def _many_records() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(20_000):
            archive.writestr(f"archive/{number}", b"")
    return out.getvalue()


_PICKLES: list[tuple[str, bytes, str]] = [
    ("pickle that asks for 4 GB", b"cbuiltins\nbytearray\n(J\xff\xff\xff\x7ftR.", _NO_WEIGHTS),
    ("bytes of 4 GB that are not there", b"\x80\x05\x96" + (1 << 32).to_bytes(8, "little"), "damaged or cut short"),
    ("text of 2 GB that is not there", b"X\xff\xff\xff\x7f", "damaged or cut short"),
    ("a million operations", b"N0" * 500_001 + b"N.", "more than 1000000 operations"),
    ("lists nested 30,000 deep", b"]" * 30_000 + b"a" * 29_999 + b".", _NO_WEIGHTS),
    ("list that holds itself", b"]q\x00h\x00a.", _NO_WEIGHTS),
    ("dictionary that holds itself", b"}q\x00X\x01\x00\x00\x00ah\x00s.", _NO_WEIGHTS),
    ("marks without end", b"(" * 200_000 + b".", "damaged or cut short"),
    ("keys of nested tuples", b"}K\x01" + b"2\x86" * 60 + b"K\x01s.", _NO_WEIGHTS),
    ("missing memo", b"h\x05.", "damaged or cut short"),
    ("system command", b"cos\nsystem\n(X\x0c\x00\x00\x00touch sprungtR.", _NO_WEIGHTS),
    ("command by instance", b"(X\x0c\x00\x00\x00touch sprungios\nsystem\n.", _NO_WEIGHTS),
    ("number of a million digits", b"L" + b"9" * 1_000_000 + b"L\n.", "damaged or cut short|no weights|no tensors"),
    (
        "tensor whose sizes are a number",
        b"}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
        b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQK\x00K\x05K\x01\x89N}tRs.",
        "impossible sizes",
    ),
    (
        "tensor of 2**62 elements",
        b"}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
        b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpu\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x3ftQK\x00"
        b"\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x3f\x85K\x01\x85\x89N}tRs.",
        "storages is damaged|cut short|storage|does not fit",
    ),
    ("extension", b"\x80\x02\x82\x01.", _NO_WEIGHTS),
]

_ONE = '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
_HEADERS: list[tuple[str, str, bytes, str]] = [
    ("one byte", "", b"", "damaged|cut short|no weights|no tensors"),
    ("no JSON", "{", b"", "damaged"),
    ("cut short", '{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}', b"\0" * 8, "cut short"),
    (
        "same name twice",
        '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
        b"\0" * 8,
        "same name twice|damaged",
    ),
    ("nested 100,000 deep", '{"a":' * 100_000, b"", "damaged"),
    ("number of 5,000 digits", f'{{"a":{"9" * 5000}}}', b"", "damaged"),
    ("list", "[]", b"", "no table"),
    ("shape of 2**62", _ONE.replace("[1]", f"[{1 << 61},2]"), b"\0" * 4, "another size"),
    ("negative shape", _ONE.replace("[1]", "[-1]"), b"\0" * 4, "no known type, shape or place"),
    ("shape of 1,000 dimensions", _ONE.replace("[1]", str([1] * 1000)), b"\0" * 4, "no known type, shape or place"),
    ("shape of truth values", _ONE.replace("[1]", "[true]"), b"\0" * 4, "no known type, shape or place"),
    ("fraction for a place", _ONE.replace("[0,4]", "[0.0,4.0]"), b"\0" * 4, "no known type, shape or place"),
    ("place beyond the file", _ONE.replace("[0,4]", f"[{1 << 61},{(1 << 61) + 4}]"), b"\0" * 4, "overlap"),
    ("type that there is not", _ONE.replace("F32", "F1024"), b"\0" * 4, "no known type, shape or place"),
    ("list for a type", _ONE.replace('"F32"', "[]"), b"\0" * 4, "no known type, shape or place"),
    ("control characters in a name", _ONE.replace('"a"', '"\\u001b]0;t\\u0007\\u202e"'), b"\0" * 4, "does not fit|no"),
    ("metadata that is no JSON", '{"__metadata__":{"harness":"[[[["}}', b"", "metadata is damaged"),
]

_INDICES: list[tuple[str, Any, str]] = [
    ("file in another folder", {"a": "../part.safetensors"}, "not beside it"),
    ("file by its whole path", {"a": "/etc/passwd"}, "not beside it"),
    ("file that is missing", {"a": "gone\x1b[31m.safetensors"}, "not beside it"),
    ("list for a table", ["part.safetensors"], "no table 'weight_map'"),
    ("numbers for files", {"a": 5}, "no table 'weight_map'"),
    ("50,000 files", {str(n): f"{n}.safetensors" for n in range(50_000)}, "not beside it|more than the"),
]
