"""Manifests of checkpoints, and lists of checkpoints and of classes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import rich_click as click

from harness import checkpoints, regimes
from harness.cli import commands
from harness.errors import InvalidInput
from tests.hostile.case import Case, Kind, broken_toml, sparse, strange, text
from tests.registry.material import registered

__all__ = ["cases"]


def _classes(path: Path) -> object:
    """Read a list of classes as ``harness evaluate --classes`` does."""
    evaluate = commands.get_command(click.Context(commands), "evaluate")
    assert evaluate is not None
    try:
        return evaluate.make_context("evaluate", ["--checkpoint", "none", "--classes", str(path)])
    except click.BadParameter as error:
        raise InvalidInput(error.message) from error  # which the command line says as it says all wrong usage


MANIFEST = Kind(
    "manifest", "own.toml", lambda path: checkpoints.load(path.with_suffix(".pt")), lambda path: registered(path.parent)
)
REGIME = Kind("regime", "own.toml", lambda path: regimes.get(str(path)))
LIST = Kind("list of checkpoints", "list.txt", lambda path: checkpoints.matching([str(path)]))
CLASSES = Kind("list of classes", "classes.txt", _classes)


def cases() -> Iterator[Case]:
    """All of them."""
    yield from strange(MANIFEST, "cannot read|not valid TOML|no manifest|field 'name' is missing|is missing")
    yield from broken_toml(MANIFEST, "not valid TOML|unknown field|is missing")
    for name, change, message in _CHANGES:
        yield Case(MANIFEST, name, _changed(change), message)
    yield from strange(REGIME, "cannot read|regime|not valid", but=("empty",))
    yield from broken_toml(REGIME, "cannot read|regime|not valid")
    yield Case(REGIME, "norm layer of a file with code", _code, "names code")
    yield from strange(LIST, "cannot read|is empty|unknown|no registered checkpoints")
    yield from strange(CLASSES, "cannot read|at least two|names of classes")
    for kind in (LIST, CLASSES):
        yield Case(kind, "not UTF-8", text(b"a\nb\xff\n"), "cannot read")
        yield Case(kind, "100 MB", sparse(100 << 20, b"a\nb\n"), "cannot read")
    yield Case(LIST, "list that names itself", lambda path: path.write_text(str(path)), "names itself|a list")
    yield Case(LIST, "a million lines", text("gone_*\n" * 1_000_000), "cannot read|unknown")
    yield Case(CLASSES, "the same name 100,000 times", text("a\n" * 100_000), "each once")


def _code(path: Path) -> None:
    path.with_name("evil.py").write_text("open('sprung', 'w')", encoding="utf-8")
    path.write_text('norm_layer = "evil.py:norm"\n', encoding="utf-8")


def _changed(change: Callable[[str], str]) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        before = path.read_text(encoding="utf-8")
        after = change(before)
        assert after != before
        path.with_name("evil.py").write_text("open('sprung', 'w')", encoding="utf-8")
        path.write_text(after, encoding="utf-8")

    return write


def _field(name: str, value: Any) -> Callable[[str], str]:
    """Another value of a field; one that is not there is put in front."""

    def change(manifest: str) -> str:
        line = f"{name} = {value}"
        changed = re.sub(rf"^{re.escape(name)} = .*$", lambda _: line, manifest, count=1, flags=re.MULTILINE)
        return changed if changed != manifest else f"{line}\n{manifest}"

    return change


_CHANGES: list[tuple[str, Callable[[str], str], str]] = [
    ("2e7 classes", _field("classes", 20_000_000), "classes"),
    ("1e15 classes", _field("classes", 10**15), "classes"),
    ("90,000 classes", _field("classes", 90_000), "1 shape|2 shape|does not fit"),
    ("truth value for classes", _field("classes", "true"), "classes"),
    ("minus one class", _field("classes", -1), "classes"),
    ("1e999999999 as eps", _field("threat", '"Linf:1e999999999"'), "eps"),
    ("a fraction of 5,000 digits as eps", _field("threat", f'"Linf:{"9" * 5000}/{"7" * 5000}"'), "eps"),
    ("power of a power as eps", _field("threat", '"Linf:9**9**9**9"'), "eps"),
    ("NaN as eps", _field("threat", '"Linf:nan"'), "eps"),
    ("threat of a file with code", _field("threat", '"evil.py:norm:0.1"'), "names code"),
    ("images of 2**60 pixels", _field("shape", f"[1, {1 << 30}, {1 << 30}]"), "shape"),
    ("images of minus one pixel", _field("shape", "[1, -8, -8]"), "shape"),
    ("name with a folder", _field("name", '"../../own"'), "name"),
    ("name of control characters", _field("name", '"\\u001b]0;title\\u0007"'), "name"),
    ("name of 100,000 characters", _field("name", f'"{"n" * 100_000}"'), "name"),
    ("file in another folder", _field("file", '"../own.pt"'), "file"),
    ("file by its whole path", _field("file", '"/etc/passwd"'), "file"),
    ("another file", _field("file", '"other.pt"'), "other.pt"),
    ("hash in words", _field("sha256", '"none"'), "sha256"),
    ("architecture of a file with code", _field("architecture", '"evil.py:make"'), "names code"),
    ("architecture of a module", _field("architecture", '"os:system"'), "unknown source"),
    ("norm layer of a file with code", _field("norm_layer", '"evil.py:norm"'), "names code"),
    ("table for a name", _field("name", "{a = 1}"), "name"),
    ("date for a name", _field("name", "2020-01-01"), "name"),
    ("unknown field of control characters", _field('"\\u001b[31m"', 1), "unknown field"),
    ("same field twice", lambda manifest: f'name = "own"\n{manifest}', "not valid TOML|name"),
    ("schema of the future", _field("schema", 10**9), "schema 1000000000"),
    ("minus parameters", _field("parameters", -5), "parameters"),
    ("parameters of 5,000 digits", _field("parameters", "9" * 5000), "not valid TOML|64 bits"),
    ("width of a million millions", lambda manifest: f"{manifest}\n[arguments]\nwidth = {10**12}\n", "width|argument"),
    ("unknown argument", lambda manifest: f'{manifest}\n[arguments]\n"\\u001b[2J" = 1\n', "argument"),
    (
        "standard deviation of zero",
        lambda m: re.sub(r"std = \[.*\]", "std = [0.0]", m),
        "std|normali|positive|deviation",
    ),
    ("mean of NaN", lambda m: re.sub(r"mean = \[.*\]", "mean = [nan]", m), "mean|normali|finite"),
    ("mean in words", lambda m: re.sub(r"mean = \[.*\]", 'mean = "white"', m), "mean|normali"),
    (
        "means of 10,000 channels",
        lambda m: re.sub(r"mean = \[.*\]", f"mean = {[0.5] * 10_000}", m),
        "mean|normali|chan",
    ),
]
