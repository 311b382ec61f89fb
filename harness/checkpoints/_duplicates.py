"""Names that stand twice in a file of weights: readers keep one of them, and not all the same one."""

from __future__ import annotations

import io
import json
import pickletools
import zipfile
from typing import Any

__all__ = ["repeated_names"]

_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_ARCHIVE = b"PK\x03\x04"
_MARK = object()


class _Thing:
    """Something on the unpickler's stack that is not text; ``keys`` if it is a dictionary."""

    def __init__(self) -> None:
        self.keys: set[str] = set()


def repeated_names(content: bytes, *, safetensors: bool) -> list[str]:
    """Names that stand more than once in a dictionary (or archive) of the file, without running anything."""
    if safetensors:
        return _repeated_in_header(content)
    stream = io.BytesIO(content)
    # as torch decides it; an archive could also hang at the end of a pickle
    if not content.startswith(_ARCHIVE):
        return _repeated_in_legacy(stream)
    with zipfile.ZipFile(stream) as archive:
        records = archive.namelist()
        repeated = sorted({name for name in records if records.count(name) > 1})
        for name in records:
            if name.endswith("data.pkl"):
                repeated += _repeated_keys(io.BytesIO(archive.read(name)))
    return repeated


def _repeated_in_header(content: bytes) -> list[str]:
    repeated: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        repeated.extend(sorted({name for name in names if names.count(name) > 1}))
        return dict(pairs)

    length = int.from_bytes(content[:8], "little")
    json.loads(content[8 : 8 + length], object_pairs_hook=note)
    return repeated


def _repeated_in_legacy(stream: io.BytesIO) -> list[str]:
    repeated: list[str] = []
    # before 1.6, torch wrote a magic number, a version, facts about the system, and only then the object
    pickles = 4 if stream.getvalue().startswith(_LEGACY_MAGIC) else 1
    for _ in range(pickles):
        repeated += _repeated_keys(stream)
    return repeated


def _repeated_keys(stream: io.BytesIO) -> list[str]:
    """Follows the pickle's opcodes as far as is needed to see which keys each dictionary is given."""
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    repeated: list[str] = []

    def pop_to_mark() -> list[Any]:
        items: list[Any] = []
        while (item := stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def give(target: Any, keys: list[Any]) -> None:
        for key in keys:
            if isinstance(target, _Thing) and isinstance(key, str):
                if key in target.keys:
                    repeated.append(key)
                target.keys.add(key)

    for opcode, argument, _ in pickletools.genops(stream):
        name = opcode.name
        if name == "MARK":
            stack.append(_MARK)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "SETITEMS":
            items = pop_to_mark()
            give(stack[-1], items[::2])
        elif name == "SETITEM":
            _, key = stack.pop(), stack.pop()
            give(stack[-1], [key])
        elif name == "DUP":
            stack.append(stack[-1])
        elif name == "DICT":
            items = pop_to_mark()
            stack.append(_Thing())
            give(stack[-1], items[::2])
        else:
            _apply(opcode, argument, stack, pop_to_mark)
    return repeated


def _apply(opcode: pickletools.OpcodeInfo, argument: Any, stack: list[Any], pop_to_mark: Any) -> None:
    taken = list(opcode.stack_before)
    if pickletools.markobject in taken:
        pop_to_mark()
        taken = taken[: taken.index(pickletools.markobject)]
    keeps = opcode.name in ("APPEND", "APPENDS", "ADDITEMS", "BUILD")
    left = stack[-len(taken)] if keeps and taken else None
    del stack[len(stack) - len(taken) :]
    for _ in opcode.stack_after:
        text = isinstance(argument, str) and not opcode.stack_before and opcode.name != "GLOBAL"
        stack.append(left if left is not None else argument if text else _Thing())
