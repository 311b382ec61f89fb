"""Files that torch.save wrote before 1.6: five pickles, and then the storages one after the other."""

from __future__ import annotations

from io import BytesIO
from typing import IO

from harness.weights._opcodes import Unpickled, follow
from harness.weights._rebuild import Broken
from harness.weights._values import Storage

__all__ = ["Legacy"]

_MAGIC = 0x1950A86A20F9469CFC6C
_LARGEST_PICKLES = 64 << 20
_COUNT = 8


class Legacy:
    """An opened file.

    Attributes:
        content: what its fourth pickle describes; before it come a magic number, a version and facts about the
            machine, after it the order of the storages.
    """

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream = stream
        self._size = size
        stream.seek(0)
        # pickles are read from memory, so that a length in them cannot ask for more than this
        head = BytesIO(stream.read(_LARGEST_PICKLES))
        if follow(head).value != _MAGIC:
            raise Broken("a pickle that torch.save did not write")
        follow(head)
        system = follow(head).value
        if type(system) is dict and system.get("little_endian") is False:
            raise Broken("weights of a machine with another byte order")
        self.content: Unpickled = follow(head)
        keys = follow(head).value
        if type(keys) is not list or not all(type(key) is str for key in keys) or len(set(keys)) != len(keys):
            raise Broken("a file whose list of storages is damaged")
        self._places = self._laid_out(keys, head.tell())

    def read(self, storage: Storage, start: int, stop: int) -> bytearray:
        """Bytes ``start`` to ``stop`` of a storage.

        Raises:
            Broken: there is no such storage.
        """
        if storage.key not in self._places:
            raise Broken(f"a file that lacks the storage {storage.key}")
        self._stream.seek(self._places[storage.key] + start)
        return bytearray(self._stream.read(stop - start))

    def _laid_out(self, keys: list[str], at: int) -> dict[str, int]:
        """Where each storage begins: in front of each stands how many elements it has."""
        places: dict[str, int] = {}
        for key in keys:
            storage = self.content.storages.get(key)
            if storage is None:
                raise Broken("a file with a storage that nothing in it uses")
            self._stream.seek(at)
            if int.from_bytes(self._stream.read(_COUNT), "little") != storage.elements:
                raise Broken("a file that is damaged, or cut short: a storage has another size than is declared")
            places[key] = at + _COUNT
            at += _COUNT + storage.nbytes
            if at > self._size:
                raise Broken("a file that is cut short")
        if at != self._size:
            raise Broken("a file that has something behind its end")
        return places
