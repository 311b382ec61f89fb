"""The object that a pickle describes, found by following its opcodes; nothing in it is imported, built or called.

Python's own unpickler, also with a restricted ``find_class``, builds what the file asks for: it allocates what a
pickle declares, sets attributes, hashes keys, and calls whatever it was given. Following the opcodes here needs about
as many lines as restricting it would, and leaves nothing to restrict: the only values that come into being are plain
numbers, texts, lists and dictionaries, descriptions of tensors (`StoredTensor`), and for everything else an inert
`Other`, which is never used.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

from harness.weights._rebuild import KNOWN, Broken, Global, TypedStorage, rebuilt, storage_of
from harness.weights._values import Other, Storage, Value

__all__ = ["Unpickled", "follow"]

_OPCODES = 1_000_000
"""Most opcodes that are followed: a checkpoint has some tens for each tensor, and a second goes through 500,000."""

_KEY_LIMIT = 1 << 62


@dataclass(frozen=True)
class Unpickled:
    """What a pickle describes.

    Attributes:
        value: the object. repeated: names that were set twice in one dictionary, of which readers keep one or the
            other. objects: the classes and functions that the pickle would have used, and that were not. storages: by
            their keys.
    """

    value: Value
    repeated: tuple[str, ...]
    objects: tuple[str, ...]
    storages: dict[str, Storage]


def follow(stream: IO[bytes]) -> Unpickled:
    """Follow one pickle from the stream's position to its end, where the stream is left.

    Raises:
        Broken: it is no pickle, is cut short, or is longer than any checkpoint.
    """
    machine = _Machine()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count >= _OPCODES:
                raise Broken(f"a pickle of more than {_OPCODES} operations")
            machine.step(opcode, argument)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        # what pickletools and the stack raise where opcodes are wrong, cut short, or do not fit each other
        raise Broken("a pickle that is damaged or cut short") from error
    return Unpickled(machine.result(), tuple(machine.repeated), tuple(machine.objects), machine.storages)


class _Machine:
    """The stack, the marks on it, and the memo."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.repeated: list[str] = []
        self.objects: dict[str, None] = {}
        self.storages: dict[str, Storage] = {}

    def step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        handler = _HANDLERS.get(opcode.name)
        if handler is not None:
            handler(self, argument)
        elif opcode.name in _LITERALS:
            self.stack.append(argument)
        elif opcode.name not in _IGNORED:
            raise Broken(f"a pickle with the operation {opcode.name}")

    def result(self) -> Value:
        if len(self.stack) != 1 or self.marks:
            raise Broken("a pickle that is damaged or cut short")
        return self.stack[0]

    def pop_to_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def set_items(self, target: Value, items: list[Any]) -> None:
        if type(target) is not dict:
            return
        for key, value in zip(items[::2], items[1::2], strict=True):
            # weights have names; hashing a tuple of tuples could take for ever
            if type(key) is str or (type(key) is int and abs(key) < _KEY_LIMIT):
                if key in target and type(key) is str:
                    self.repeated.append(key)
                target[key] = value

    def extend(self, target: Value, items: list[Any]) -> None:
        if type(target) is list:
            target.extend(items)

    def call(self, function: Value, arguments: Value) -> None:
        if isinstance(function, Global) and function.name not in KNOWN:
            self.objects[function.name] = None
        self.stack.append(rebuilt(function, arguments))

    def remember(self, key: int) -> None:
        self.memo[key] = self.stack[-1]


def _dictionary(machine: _Machine, argument: Any) -> None:
    items = machine.pop_to_mark()
    machine.stack.append({})
    machine.set_items(machine.stack[-1], items)


def _set_item(machine: _Machine, argument: Any) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    machine.set_items(machine.stack[-1], [key, value])


def _set_items(machine: _Machine, argument: Any) -> None:
    items = machine.pop_to_mark()
    machine.set_items(machine.stack[-1], items)


def _append(machine: _Machine, argument: Any) -> None:
    item = machine.stack.pop()
    machine.extend(machine.stack[-1], [item])


def _appends(machine: _Machine, argument: Any) -> None:
    items = machine.pop_to_mark()
    machine.extend(machine.stack[-1], items)


def _tuple(size: int) -> Callable[[_Machine, Any], None]:
    def of(machine: _Machine, argument: Any) -> None:
        items = tuple(machine.stack[-size:])
        del machine.stack[-size:]
        if len(items) != size:
            raise IndexError
        machine.stack.append(items)

    return of


def _pop(machine: _Machine, argument: Any) -> None:
    # a mark may be popped like a value
    if machine.marks and machine.marks[-1] == len(machine.stack):
        machine.marks.pop()
    else:
        machine.stack.pop()


def _global(machine: _Machine, argument: Any) -> None:
    machine.stack.append(Global(argument.replace(" ", ".")))


def _stack_global(machine: _Machine, argument: Any) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    machine.stack.append(Global(f"{module}.{name}" if type(name) is type(module) is str else "an unnamed object"))


def _frozen_set(machine: _Machine, argument: Any) -> None:
    machine.pop_to_mark()
    machine.stack.append(Other("a set"))


def _call(machine: _Machine, argument: Any) -> None:
    arguments, function = machine.stack.pop(), machine.stack.pop()
    machine.call(function, arguments)


def _call_with_names(machine: _Machine, argument: Any) -> None:
    machine.stack.pop()
    _call(machine, argument)


def _instance(machine: _Machine, argument: Any) -> None:
    items = machine.pop_to_mark()
    function = Global(argument.replace(" ", ".")) if argument is not None else items[0]
    machine.call(function, tuple(items))


def _persistent(machine: _Machine, argument: Any) -> None:
    value = storage_of(machine.stack.pop())
    if isinstance(value, TypedStorage):
        known = machine.storages.setdefault(value.storage.key, value.storage)
        if known != value.storage:
            raise Broken("a pickle that gives one storage two sizes")
    machine.stack.append(value)


_HANDLERS: dict[str, Callable[[_Machine, Any], object]] = {
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "POP": _pop,
    "POP_MARK": lambda machine, _: machine.pop_to_mark(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "NONE": lambda machine, _: machine.stack.append(None),
    "NEWTRUE": lambda machine, _: machine.stack.append(True),
    "NEWFALSE": lambda machine, _: machine.stack.append(False),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "EMPTY_SET": lambda machine, _: machine.stack.append(Other("a set")),
    "LIST": lambda machine, _: machine.stack.append(machine.pop_to_mark()),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_to_mark())),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "DICT": _dictionary,
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "APPEND": _append,
    "APPENDS": _appends,
    "ADDITEMS": _appends,
    "FROZENSET": _frozen_set,
    "PUT": lambda machine, key: machine.remember(key),
    "BINPUT": lambda machine, key: machine.remember(key),
    "LONG_BINPUT": lambda machine, key: machine.remember(key),
    "MEMOIZE": lambda machine, _: machine.remember(len(machine.memo)),
    "GET": lambda machine, key: machine.stack.append(machine.memo[key]),
    "BINGET": lambda machine, key: machine.stack.append(machine.memo[key]),
    "LONG_BINGET": lambda machine, key: machine.stack.append(machine.memo[key]),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _call,
    "NEWOBJ": _call,
    "NEWOBJ_EX": _call_with_names,
    "INST": _instance,
    "OBJ": _instance,
    # the state of an object that was not made
    "BUILD": lambda machine, _: machine.stack.pop(),
    "BINPERSID": _persistent,
    "PERSID": lambda machine, _: machine.stack.append(Other("an object kept elsewhere")),
    "EXT1": lambda machine, _: machine.stack.append(Global("an extension")),
    "EXT2": lambda machine, _: machine.stack.append(Global("an extension")),
    "EXT4": lambda machine, _: machine.stack.append(Global("an extension")),
    "NEXT_BUFFER": lambda machine, _: machine.stack.append(Other("a buffer kept elsewhere")),
}  # fmt: skip

_LITERALS = frozenset(
    (
        "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
        "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
        "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
    )
)  # fmt: skip

_IGNORED = frozenset(("PROTO", "FRAME", "STOP", "READONLY_BUFFER"))
