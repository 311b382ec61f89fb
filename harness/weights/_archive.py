"""Files that torch.save writes since 1.6: a ZIP archive of one pickle and one record for each storage."""

from __future__ import annotations

import struct
import zipfile
from io import BytesIO
from typing import IO

from harness.weights._opcodes import Unpickled, follow
from harness.weights._rebuild import Broken
from harness.weights._values import Storage

__all__ = ["ARCHIVE", "Archive"]

ARCHIVE = b"PK\x03\x04"
"""How such a file begins."""

_LARGEST_PICKLE = 64 << 20
_LARGEST_DIRECTORY = 16 << 20
_CHUNK = 1 << 20
_END = struct.Struct("<4s4H2LH")
_END_64_LOCATOR = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")


class Archive:
    """An opened archive.

    Attributes:
        content: what its pickle describes.
    """

    def __init__(self, stream: IO[bytes], size: int) -> None:
        _check_directory(stream, size)
        try:
            self._zip = zipfile.ZipFile(stream)
        except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, struct.error, OSError) as error:
            raise Broken("a damaged archive") from error
        names = self._zip.namelist()
        if len(set(names)) != len(names):
            raise Broken("an archive that has the same name twice")
        self._folder = names[0].partition("/")[0] if names else ""
        outside = next((name for name in names if not name.startswith(f"{self._folder}/")), None)
        pickles = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
        if f"{self._folder}/constants.pkl" in names:
            raise Broken("a TorchScript archive, which holds code")
        if f"{self._folder}/data.pkl" not in names:
            raise Broken("an archive without weights of torch.save (no data.pkl)")
        if outside is not None or len(pickles) != 1:
            raise Broken("an archive with more in it than torch.save writes")
        order = f"{self._folder}/byteorder"
        if order in names and self._read(order, 0, 8) != b"little":
            raise Broken("weights of a machine with another byte order")
        pickle = f"{self._folder}/data.pkl"
        if self._zip.getinfo(pickle).file_size > _LARGEST_PICKLE:
            raise Broken(f"an archive whose pickle is larger than {_LARGEST_PICKLE >> 20} MiB")
        self.content: Unpickled = follow(BytesIO(self._read(pickle, 0, _LARGEST_PICKLE)))

    def read(self, storage: Storage, start: int, stop: int) -> bytearray:
        """Bytes ``start`` to ``stop`` of a storage.

        Raises:
            Broken: there is no such record, it has another size than the pickle says, or its checksum differs.
        """
        record = f"{self._folder}/data/{storage.key}"
        if record not in self._zip.NameToInfo:
            raise Broken(f"an archive that lacks the record data/{storage.key}")
        held = self._zip.getinfo(record).file_size
        if held != storage.nbytes:
            raise Broken(
                f"an archive whose record data/{storage.key} has {held} bytes where {storage.nbytes} are declared"
            )
        return self._read(record, start, stop)

    def _read(self, record: str, start: int, stop: int) -> bytearray:
        """Part of a record. All of it is gone through, because the checksum is over all of it."""
        info = self._zip.getinfo(record)
        short = record.partition("/")[2]
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size or info.flag_bits & 1:
            raise Broken(f"an archive whose record {short} is compressed or encrypted, which torch.save never does")
        kept = bytearray()
        at = 0
        try:
            with self._zip.open(info) as stream:
                while chunk := stream.read(_CHUNK):
                    kept += chunk[max(0, start - at) : max(0, stop - at)]
                    at += len(chunk)
        except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, struct.error) as error:
            raise Broken(f"a damaged archive: the record {short} is not what its checksum says") from error
        if at != info.file_size:
            raise Broken(f"an archive whose record {short} is cut short")
        return kept


def _check_directory(stream: IO[bytes], size: int) -> None:
    """That the table of contents is small and the last thing in the file, before `zipfile` reads all of it."""
    stream.seek(max(0, size - _END.size))
    tail = stream.read(_END.size)
    if len(tail) < _END.size or not tail.startswith(b"PK\x05\x06"):
        raise Broken("an archive that is cut short, or has something behind its end")
    *_, length, offset, comment = _END.unpack(tail)
    end = size - _END.size
    if end >= _END_64_LOCATOR.size + _END_64.size:
        stream.seek(end - _END_64_LOCATOR.size)
        mark, _, at, _ = _END_64_LOCATOR.unpack(stream.read(_END_64_LOCATOR.size))
        if mark == b"PK\x06\x07":
            stream.seek(min(at, size))
            record = stream.read(_END_64.size)
            if len(record) < _END_64.size or not record.startswith(b"PK\x06\x06"):
                raise Broken("a damaged archive")
            *_, length, offset = _END_64.unpack(record)
            end = at
    if comment or offset + length != end or length > _LARGEST_DIRECTORY:
        raise Broken("a damaged archive, or one whose table of contents is larger than any checkpoint's")
