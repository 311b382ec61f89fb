"""Results, their verdicts and adversarial examples, parts of results, and estimates."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load as unpacked
from safetensors.numpy import save as packed

from harness.results import adversarial, estimates, history, parts, store
from harness.results._evidence import content_sha256
from harness.results.adversarial import AdversarialFacts, AdversarialPoints
from harness.results.estimates import EstimateRecord, Seen
from harness.results.parts import Part, PartRecord
from tests.hostile.case import Case, Kind, broken_json, strange, text
from tests.hostile.data import zip_bomb
from tests.results.records import make_result, make_verdicts

__all__ = ["cases"]

N = 20
_STEM = "own"


def _result(path: Path) -> None:
    """A result of which the case changes one file."""
    result = make_result(n=N, size=N, clean=18, robust=10)
    made = store.save(result, make_verdicts(result), path.parent)
    for file in (made, made.with_suffix(".npz")):
        file.rename(file.with_name(f"{_STEM}{file.suffix}"))
    content = json.loads((path.parent / f"{_STEM}.json").read_text())
    content["samples"] = f"{_STEM}.npz"
    _write_hashed(path.parent / f"{_STEM}.json", content)


def _write_hashed(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content | {"content_sha256": content_sha256(content)}))


def _images() -> torch.Tensor:
    return torch.rand(N, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@cache
def _examples() -> bytes:
    facts = AdversarialFacts(evaluation_id="0" * 64, weights_sha256="1" * 64, data_sha256="2" * 64)
    rows = np.arange(0, N, 3)
    return adversarial.pack(AdversarialPoints(facts, rows, (_images()[rows] + 0.1).clamp(0, 1)), _images())


@cache
def _part() -> bytes:
    import tempfile

    result = make_result(n=N, size=2 * N, clean=18, robust=10)
    verdicts = make_verdicts(result)
    record = PartRecord(number=1, count=2, total=2 * N, gradient_free=[], trials=[], result=result)
    points = np.zeros((8, 1, 8, 8), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        return parts.save(Part(record, verdicts, points), Path(folder)).read_bytes()


def _estimate(path: Path) -> None:
    result = make_result(n=N, size=N, clean=18, robust=10)
    same = {name: getattr(result, name) for name in ("checkpoint", "model", "dataset", "threat", "suite", "seed", "n")}
    same |= {name: getattr(result, name) for name in ("environment", "evaluation_id", "recorded", "harness_version")}
    record = EstimateRecord(
        **same, clean_acc=0.9, robust_acc=0.5, low=0.4, high=0.6, confidence=0.95, opening_acc=0.5, survivors=10,
        census=2, attacked=4, broken=1, forward=5, backward=5, flags=[], seconds=1.0,
    )  # fmt: skip
    seen = Seen(np.arange(N) < 10, np.arange(10), np.arange(4) < 1)
    made = estimates.save(record, seen, path.parent)
    for file in (made, made.with_suffix(".npz")):
        file.rename(path.parent / f"{_STEM}{file.suffix}")


RESULT = Kind("result", f"{_STEM}.json", store.read, _result)
VERDICTS = Kind("verdicts", f"{_STEM}.npz", lambda path: store.read_verdicts(path.with_suffix(".json")), _result)
BOARD = Kind("leaderboard", f"{_STEM}.json", lambda path: store.read_all(path.parent).results, _result)
EXAMPLES = Kind(
    "adversarial examples",
    f"{_STEM}.safetensors",
    lambda path: adversarial.unpack(path, _images()),
    lambda path: path.write_bytes(_examples()),
)
PART = Kind("part", "part-1-of-2.safetensors", parts.read, lambda path: path.write_bytes(_part()))
HISTORY = Kind("history of a board", history.FILE, lambda path: history.read(path.parent))
ESTIMATE = Kind("estimate", f"{_STEM}.json", estimates.read, _estimate)
SEEN = Kind("samples of an estimate", f"{_STEM}.npz", lambda p: estimates.read(p.with_suffix(".json")), _estimate)


def cases() -> Iterator[Case]:
    """All of them."""
    damaged = "damaged|cannot read|is not a result|schema version"
    yield from strange(RESULT, damaged)
    yield from broken_json(RESULT, damaged)
    for name, fields, message in _FIELDS:
        yield Case(RESULT, name, _with(fields), message)
    for name, flag in _FLAGS_OF_VERSION_1.items():
        yield Case(RESULT, f"version 1, {name}", _with({"schema_version": 1, "flags": flag}), "damaged|was changed")
    yield from strange(BOARD, None)  # the board goes on without the file
    yield from strange(VERDICTS, "damaged|cannot read|were changed")
    for name, make, message in _VERDICTS:
        yield Case(VERDICTS, name, _vouched(make), message)
    yield from strange(EXAMPLES, "are missing|damaged")
    for name, content in _witnesses():
        yield Case(EXAMPLES, name, text(content), "damaged")
    yield from strange(PART, "is missing|damaged")
    for name, content, message in _parts():
        yield Case(PART, name, text(content), message)
    yield from strange(HISTORY, "history", but=("empty",))
    yield from broken_json(HISTORY, "history")
    yield from strange(ESTIMATE, "cannot read|damaged")
    yield from broken_json(ESTIMATE, "damaged")
    yield from strange(SEEN, "cannot read|damaged|changed")
    yield Case(SEEN, "2 GB of zeros", text(lambda: zip_bomb("alive.npy", b"", 2 << 30)), "damaged|bytes")
    yield Case(SEEN, "shape of 12 GB with nothing in it", text(lambda: _zip({"alive.npy": _npy(12 << 30)})), "damaged")


def _with(fields: dict[str, Any]) -> Callable[[Path], object]:
    """The result with other fields and a hash made anew."""

    def write(path: Path) -> None:
        content = json.loads(path.read_text())
        for name, value in fields.items():
            outer, _, inner = name.partition(".")
            if inner:
                content[outer][inner] = value
            else:
                content[outer] = value
        _write_hashed(path, content)

    return write


def _vouched(make: Callable[[], bytes]) -> Callable[[Path], object]:
    """Verdicts whose hash the result has."""

    def write(path: Path) -> None:
        content = make()
        path.write_bytes(content)
        beside = path.with_suffix(".json")
        result = json.loads(beside.read_text()) | {"samples_sha256": hashlib.sha256(content).hexdigest()}
        _write_hashed(beside, result)

    return write


def _npy(n: int, dtype: str = "<i8") -> bytes:
    text = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': ({n},), }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def _zip(members: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


_NAMES = ("index", "y", "clean_pred", "robust", "broken_by", "adv_pred", "forward", "backward")


def _verdicts(**changed: bytes) -> bytes:
    sound = {name: _npy(N, "|b1" if name == "robust" else "<i8") for name in _NAMES}
    sizes = {name: N if name == "robust" else 8 * N for name in _NAMES}
    return _zip({f"{name}.npy": changed.get(name, sound[name] + bytes(sizes[name])) for name in _NAMES})


_VERDICTS: list[tuple[str, Callable[[], bytes], str]] = [
    ("text", lambda: b"no arrays", "damaged"),
    ("arrays that expand to 30 MB", lambda: _verdicts(index=_npy(N) + bytes(30 << 20)), "damaged"),
    ("2 GB of zeros", lambda: zip_bomb("index.npy", _npy(N), 2 << 30)[:1500], "damaged"),
    ("shape of 12 GB with nothing in it", lambda: _verdicts(index=_npy(12 << 27)), "damaged"),
    ("shape of 5,000 digits", lambda: _verdicts(index=_npy(int("9" * 4000))), "damaged"),
    ("objects", lambda: _verdicts(index=_npy(N, "|O") + bytes(8 * N)), "damaged"),
    ("an array too many", lambda: _zip({**{f"{name}.npy": b"" for name in _NAMES}, "more.npy": b""}), "damaged"),
    ("an array under another name", lambda: _zip({f"../{name}.npy": b"" for name in _NAMES}), "damaged"),
    ("zeros that contradict the result", _verdicts, "contradicts"),
]

_FIELDS: list[tuple[str, dict[str, Any], str]] = [
    ("truth value for a number", {"seed": True}, "damaged"),
    ("text for a number", {"n": "20"}, "damaged"),
    ("1e15 samples", {"n": 10**15, "dataset.size": 10**15}, "damaged|contradicts|verdicts"),
    ("2**62 classes", {"dataset.classes": 1 << 62}, "contradicts|hash|damaged"),
    ("1e999999999 as eps", {"threat.eps": "1e999999999"}, "contradicts"),
    ("a fraction of 1e999999999 as eps", {"threat.eps": "1e999999999/7"}, "contradicts"),
    ("NaN as radius", {"threat.radius": "NaN"}, "damaged"),
    ("another radius", {"threat.radius": 0.3}, "contradicts"),
    ("verdicts in another folder", {"samples": "../own.npz"}, "names no verdicts beside it"),
    ("verdicts by their whole path", {"samples": "/etc/passwd"}, "names no verdicts beside it"),
    ("verdicts under a name of 100,000 characters", {"samples": "n" * 100_000}, "cannot read|damaged|no verdicts"),
    ("verdicts under a name with a zero byte", {"samples": "a\0b"}, "cannot read|damaged|no verdicts"),
    ("unknown field that a terminal would act on", {"\x1b]0;t\x07\u202e": 1}, "unknown field"),
    ("flag without a kind", {"flags": ["\x1b]0;t\x07"]}, "damaged"),
    ("steps nested 30 deep", {"steps": json.loads("[" * 30 + "]" * 30)}, "damaged"),
    ("100,000 steps", {"steps": [{}] * 100_000}, "damaged"),
    ("schema of the future", {"schema_version": 3}, "schema version 3"),
    ("schema in words", {"schema_version": "\x1b[31m"}, "schema version"),
    ("negative passes", {"seconds": "-1"}, "damaged"),
    ("a name of 5,000,000 characters", {"checkpoint": "n" * 5_000_000}, "damaged"),
]

_FLAGS_OF_VERSION_1: dict[str, Any] = {
    "numbers": [1, 2],
    "a number of 5,000 digits": [f"{'9' * 5000} of 3 samples had a gradient of exactly zero"],
    "a text of 2,000,000 characters": ["a" * 2_000_000],
    "nested 30 deep": json.loads("[" * 30 + "]" * 30),
    "text that is no list": "\x1b]0;t\x07",
}


def _witnesses() -> Iterator[tuple[str, bytes | Callable[[], bytes]]]:
    sound, tensors = _examples(), unpacked(_examples())
    begin = 8 + int.from_bytes(sound[:8], "little")
    header = json.loads(sound[8:begin])["__metadata__"]

    def made(changed: dict[str, Any] | None = None, **facts: str) -> bytes:
        return packed({**tensors, **(changed or {})}, {**header, **facts})

    def expanding() -> bytes:
        bomb = zlib.compress(bytes(30 << 20))
        return made({"blocks": np.frombuffer(bomb, np.uint8), "lengths": np.array([len(bomb)])})

    yield "text", b"no examples"
    yield "header of 2**62 bytes", (1 << 62).to_bytes(8, "little") + sound[8:]
    yield "cut short", sound[:-9]
    yield "block that expands to 30 MB", expanding
    yield "negative lengths", made({"lengths": np.array([-5])})
    yield "lengths of 2**62", made({"lengths": np.array([1 << 62])})
    yield "rows of 2**62", made({"rows": np.array([1 << 62])})
    yield "negative rows", made({"rows": tensors["rows"] - 5})
    yield "rows of fractions", made({"rows": tensors["rows"].astype(np.float64)})
    yield "shape nested 30,000 deep", made(shape="[" * 30_000)
    yield "shape of 2**62", made(shape=f"[7, {1 << 62}, 1, 1]")
    yield "shape of 4,400 digits", made(shape="9" * 4400)
    yield "facts nested 30,000 deep", made(facts="[" * 30_000)
    yield "facts that are missing", made(facts="{}")
    yield "version of the future", made(version="\x1b[31m99")
    yield "type that there is not", made(dtype="float16")
    yield "no rows", packed({"lengths": tensors["lengths"]}, header)


def _parts() -> Iterator[tuple[str, bytes, str]]:
    sound, tensors = _part(), unpacked(_part())
    begin = 8 + int.from_bytes(sound[:8], "little")
    header = json.loads(sound[8:begin])["__metadata__"]

    def made(record: dict[str, Any], changed: dict[str, Any] | None = None) -> bytes:
        text = json.dumps(json.loads(header["record"]) | record)
        held = {**tensors, **(changed or {})}
        return packed(held, {**header, "record": text, "sha256": parts._sha256(text, held)})

    yield "text", b"no part", "damaged"
    yield "header of 2**62 bytes", (1 << 62).to_bytes(8, "little") + sound[8:], "damaged"
    yield "cut short", sound[:-9], "damaged"
    yield "of 10**15 samples", made({"total": 10**15}), "contradicts itself|damaged"
    yield "of 10**15 shards", made({"count": 10**15, "total": 10**15}), "contradicts itself|damaged"
    yield "minus one shard", made({"number": -1}), "damaged"
    yield "shard 5 of 2", made({"number": 5}), "contradicts itself|damaged"
    yield "verdicts in another shape", made({}, {"y": np.zeros((N, 2), np.int64)}), "damaged"
    yield "verdicts of fractions", made({}, {"broken_by": np.zeros(N)}), "damaged|contradicts itself"
    yield "no points", made({}, {"points": np.zeros((0, 1, 8, 8), np.float32)}), "contradicts itself"
    yield "an array too many", made({}, {"more": np.zeros(3)}), "damaged"
    yield "record nested 30,000 deep", packed(tensors, header | {"record": "[" * 30_000}), "damaged"
    yield (
        "record that is a list",
        packed(tensors, header | {"record": "[]", "sha256": parts._sha256("[]", tensors)}),
        "damaged",
    )
    yield "changed after it was written", packed(tensors | {"points": tensors["points"] + 1}, header), "was changed"
