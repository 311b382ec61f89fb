"""The source text of a Python file of one's own, with the modules beside it that it imports.

What such a file defines (an architecture, an attack, a norm) decides a result as much as weights do, so that it has to
be part of what a result is known by.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

from harness.util.reading import read_bounded
from harness.util.user_file import is_in_file

__all__ = ["source_files", "source_sha256"]

_LARGEST = 1 << 20


def source_sha256(reference: str) -> str | None:
    """Hash of the text behind ``FILE.py:NAME``, with the local modules that the file imports; None for other names.

    It does not depend on where the file lies. A file that cannot be read counts as empty: whoever runs it says so.
    """
    if not is_in_file(reference):
        return None
    path = Path(reference.rpartition(":")[0]).expanduser()
    digest = hashlib.sha256()
    for source in source_files(path):
        name = source.relative_to(path.parent).as_posix() if source != path else ""
        text = _read(source)
        digest.update(f"{name}\0{len(text)}\0".encode() + text)
    return digest.hexdigest()


def source_files(path: Path) -> list[Path]:
    """``path``, then the files beside it that it imports, directly or through each other, sorted.

    Of a package beside it every file counts. Only import statements are seen, wherever they are in the file.
    """
    folder = path.parent
    found: set[Path] = set()
    pending = [path]
    while pending:
        source = pending.pop()
        for name in _imported(_read(source)):
            new = set(_local(folder, name)) - found - {path}
            found |= new
            pending += new
    return [path, *sorted(found)]


def _local(folder: Path, name: str) -> Iterator[Path]:
    """The files of the module or package ``name`` that lies in ``folder``, if there is one."""
    package = folder / name
    if (package / "__init__.py").is_file() or (package.is_dir() and not package.with_suffix(".py").is_file()):
        yield from package.rglob("*.py")
    elif package.with_suffix(".py").is_file():
        yield package.with_suffix(".py")


def _imported(text: bytes) -> Iterator[str]:
    """First names of all modules that a source text imports."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _read(path: Path) -> bytes:
    try:
        return read_bounded(path, _LARGEST)
    except (OSError, ValueError):
        return b""
