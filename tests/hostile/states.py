"""Saved states of what was killed: of evaluations, of trainings, of the drop-in for AutoAttack."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import torch

from harness.autoattack import EvaluationState
from harness.engine.snapshots import State
from harness.training.state import StateFile
from tests.hostile.case import Case, Kind, Trap, broken_json, strange, text

__all__ = ["cases"]

POOL = Kind("state of an evaluation", "state/pool.pt", lambda path: State(path.parent).pool())
PARTS = Kind("part in flight", "state/part-0-0-a.pt", lambda path: State(path.parent).parts(0, 0))
CLEAN = Kind("clean outputs", "state/clean-a.pt", lambda path: State(path.parent).clean())
TRAINING = Kind("state of a training", f"training-{'a' * 16}.pt", lambda path: StateFile(path.parent, "a" * 16).load())
AUTOATTACK = Kind("state of AutoAttack", "state.json", EvaluationState.from_disk)


def cases() -> Iterator[Case]:
    """All of them."""
    for kind in (POOL, PARTS, CLEAN):
        yield from strange(kind, None)
        for name, make in _FILES.items():
            yield Case(kind, name, text(make), None)
    yield from strange(TRAINING, "is damaged", but=("link to itself",))
    for name, make in _FILES.items():
        yield Case(TRAINING, name, text(make), "is damaged")
    yield from strange(AUTOATTACK, "not a readable AutoAttack state")
    yield from broken_json(AUTOATTACK, "not a readable AutoAttack state")
    for name, flags in {"flags in words": "yes", "flags nested 30 deep": [[[[True]]]], "no flags": None}.items():
        fields = {"_attacks_to_run": [], "_run_attacks": [], "_robust_flags": flags, "_clean_accuracy": 1}
        yield Case(AUTOATTACK, name, text(json.dumps(fields)), "not a readable AutoAttack state")


def _saved(content: Any) -> bytes:
    out = io.BytesIO()
    torch.save(content, out)
    return out.getvalue()


def _expanding() -> bytes:
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(_saved({"a": torch.zeros(1 << 20)}))) as source,
        zipfile.ZipFile(out, "w") as target,
    ):
        for info in source.infolist():
            target.writestr(info.filename, source.read(info), compress_type=zipfile.ZIP_DEFLATED)
    return out.getvalue()


def _legacy(pickled: bytes) -> bytes:
    out = io.BytesIO()
    torch.save(0, out, _use_new_zipfile_serialization=False)
    return out.getvalue().replace(pickle.dumps(0, 2), pickled, 1)


_FILES: dict[str, Callable[[], bytes]] = {
    "text": lambda: b"no state",
    "code": lambda: _saved(Trap()),
    "bare pickle with code": lambda: pickle.dumps(Trap()),
    "cut short": lambda: _saved({"version": 8})[:-50],
    "number": lambda: _saved(5),
    "list": lambda: _saved([1, 2]),
    "another version": lambda: _saved({"version": "\x1b[31m"}),
    "the right version and nothing else": lambda: _saved({"version": 8}),
    "texts for all that it holds": lambda: _saved({"version": 8, "logits": "a", "tasks": "b", "index": "c"}),
    "record that is compressed": _expanding,
    "view of 2**40 elements": lambda: _saved({"version": 8, "a": torch.zeros(1).expand(1 << 40)}),
    "pickle that asks for 2 GB": lambda: _legacy(b"\x80\x02cbuiltins\nbytearray\n(J\xff\xff\xff\x7ftR."),
    "lists nested 30,000 deep": lambda: _legacy(b"]" * 30_000 + b"a" * 29_999 + b"."),
}
