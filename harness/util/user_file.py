"""A user's own Python file: the one place where such a file is run.

Every ``FILE.py:NAME`` of the package passes through `load_file`, whatever it names.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import SourceLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.errors import InvalidInput, UnknownName
from harness.util.reading import read_bounded
from harness.util.text import printable

__all__ = ["from_file", "importable", "is_in_file", "load_file", "loaded", "one_line"]

_LARGEST = 1 << 24

_PREFIX = "_user_file_"

_FOLDERS: set[Path] = set()
"""Folders whose modules may be in the module table."""


def is_in_file(name: str) -> bool:
    """Whether a name has the form ``FILE.py:NAME``."""
    return name.rpartition(":")[0].endswith(".py")


def from_file(name: str, kind: str) -> Any:
    """What ``FILE.py:NAME`` names.

    Args:
        kind: what is expected there, for the errors.

    Raises:
        InvalidInput: no such file, or it fails to run.
        UnknownName: the file defines nothing of that name.
    """
    file, _, attribute = name.rpartition(":")
    defined = vars(load_file(file))
    if attribute not in defined:
        # what the file imports is not offered
        own = [key for key, value in defined.items() if getattr(value, "__module__", None) == defined["__name__"]]
        raise UnknownName(f"{kind} in {file}", attribute, own)
    return defined[attribute]


def load_file(file: str | Path) -> ModuleType:
    """Run a Python file as a module, once for each content of it.

    Modules beside the file can be imported by it. Nothing is written beside it.

    Raises:
        InvalidInput: no such file, or it fails to run.
    """
    source = _source(file)
    path = Path(file).expanduser().resolve()
    # a name of its own, so that `if __name__ == "__main__"` and installed modules stay out of it; with the content in
    # the name an edited file is run again
    name = f"{_PREFIX}{hashlib.sha256(str(path).encode() + source).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(path)
    # registered, as dataclasses and pickle look up the module of a class there
    sys.modules[name] = module
    try:
        with importable(path.parent):
            _Loader(path, source).exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise InvalidInput(f"{file} fails when it is run: {one_line(error)}") from error
    return module


def loaded() -> list[ModuleType]:
    """The modules of users' files, and of those beside them, that were run in this process."""
    folders = tuple(f"{folder}{os.sep}" for folder in _FOLDERS)
    return [
        module
        for name, module in list(sys.modules.items())
        if name.startswith(_PREFIX) or str(getattr(module, "__file__", None)).startswith(folders)
    ]


def _source(file: str | Path) -> bytes:
    try:
        return read_bounded(Path(file).expanduser(), _LARGEST)
    except FileNotFoundError as error:
        raise InvalidInput(f"there is no file {file}") from error
    except OSError as error:
        raise InvalidInput(f"cannot read {file}: {error.strerror or error}") from error
    except ValueError as error:
        raise InvalidInput(f"cannot read {file}: {error}") from error


class _Loader(SourceLoader):
    """Runs exactly the bytes that were read; a compiled copy is neither used nor kept."""

    def __init__(self, path: Path, source: bytes) -> None:
        self.path, self.source = path, source

    def get_filename(self, fullname: str) -> str:
        return str(self.path)

    def get_data(self, path: str | bytes) -> bytes:
        return self.source


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """``folder`` in front of the import path, as Python puts the folder of a script that it runs.

    Modules of the same names that the files of other folders have imported are out of sight meanwhile: two networks
    may each have a ``utils.py`` beside them.
    """
    entry = str(folder)
    hidden = _hide(folder)
    _FOLDERS.add(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)
        sys.modules.update(hidden)


def _hide(folder: Path) -> dict[str, ModuleType]:
    """Take modules of other such folders out of the module table whose names mean something in this one."""
    here = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    others = tuple(f"{other}{os.sep}" for other in _FOLDERS if other != folder)
    hidden = {
        name: module
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] in here and str(getattr(module, "__file__", None)).startswith(others)
    }
    for name in hidden:
        del sys.modules[name]
    return hidden


def one_line(error: BaseException) -> str:
    """Kind and text of somebody else's error, without line breaks."""
    return printable(" ".join(f"{type(error).__name__}: {error}".split()), longest=1000)
