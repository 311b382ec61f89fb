"""Suites, studies, and what lies in a study's folder: registration, notes, measurements, logs."""

from __future__ import annotations

import io
import lzma
import tarfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from harness import suites
from harness.studies import Plan, archive, plan, read, registration, run_log
from harness.studies.measurements import _log
from harness.threat import ThreatModel
from tests.hostile.case import Case, Kind, broken_json, broken_toml, strange, text
from tests.studies.made_up import planned, write

__all__ = ["cases"]

SUITE = Kind("suite", "own.toml", lambda path: suites.get(str(path), ThreatModel("Linf", "0.1")))
STUDY = Kind("study", "study.toml", lambda path: plan(read(path)), lambda path: write(path))
REGISTRATION = Kind("registration", "registration.json", lambda path: registration.read(path.parent))
NOTES = Kind("notes of a study", "run.json", lambda path: run_log.read(path.parent))
MEASUREMENTS = Kind("measurements", archive.NAME, lambda path: archive.read(path).measurements(_plan()))
LOG = Kind("log of a training", "own.csv", _log)


@cache
def _plan() -> Plan:
    return planned()


def cases() -> Iterator[Case]:
    """All of them."""
    yield from strange(SUITE, "cannot read|must consist|unknown suite")
    yield from broken_toml(SUITE, "cannot read|must consist")
    for name, content, message in _SUITES:
        yield Case(SUITE, name, text(content), message)
    yield Case(SUITE, "attack of a file with code", _with_code(_step(attack='"evil.py:attack"')), "names code")
    yield from strange(STUDY, "cannot read|not valid TOML|is missing")
    yield from broken_toml(STUDY, "cannot read|not valid TOML|unknown field|is missing")
    for name, changes, message in _STUDIES:
        yield Case(STUDY, name, _study(changes), message)
    yield from strange(REGISTRATION, "cannot be read|was changed", but=("link to itself",))
    yield from broken_json(REGISTRATION, "cannot be read|was changed")
    yield from strange(NOTES, "are damaged", but=("link to itself",))
    yield from broken_json(NOTES, "are damaged")
    yield Case(NOTES, "unknown fields", text('[{"\\u001b[31m": 1}]'), "are damaged")
    yield from strange(MEASUREMENTS, "cannot be used")
    for name, make in _ARCHIVES.items():
        yield Case(MEASUREMENTS, name, text(make), "cannot be used|hold none")
    yield from strange(LOG, "cannot be read", but=("empty",))
    for name, content in _LOGS.items():
        yield Case(LOG, name, text(content), "cannot be read")


def _with_code(suite: str) -> Callable[[Path], object]:
    def made(path: Path) -> None:
        path.with_name("evil.py").write_text("open('sprung', 'w')", encoding="utf-8")
        path.write_text(suite, encoding="utf-8")

    return made


def _study(changes: dict[str, Any]) -> Callable[[Path], object]:
    def made(path: Path) -> None:
        path.with_name("evil.py").write_text("open('sprung', 'w')", encoding="utf-8")
        write(path, **changes)

    return made


def _step(**fields: str) -> str:
    return "[[step]]\n" + "".join(f"{name} = {value}\n" for name, value in {"attack": '"pgd"', **fields}.items())


_SUITES: list[tuple[str, str, str]] = [
    ("no steps", "step = []", "must consist"),
    ("numbers for steps", "step = [1, 2]", "step 1|must consist"),
    ("table for steps", "[step]\nattack = 'pgd'", "must consist"),
    ("number for an attack", _step(attack="5"), "needs attack"),
    ("two steps of one name", _step() * 2, "two steps"),
    ("20,000 steps", "".join(_step(name=f'"s{n}"') for n in range(20_000)), "at most|cannot read"),
    ("attack of control characters", _step(attack='"\\u001b]0;t\\u0007\\u202e"'), "attack"),
    ("attack in a file that is not there", _step(attack='"gone.py:attack"'), "gone.py"),
    ("parameter that there is not", _step(**{'"\\u001b[31m"': "1"}), "argument|parameter|takes"),
    ("minus one step", _step(steps="-1"), "steps"),
    ("words for steps", _step(steps='"many"'), "steps"),
    ("truth value for steps", _step(steps="true"), "steps"),
    ("infinite step size", _step(step_size="inf"), "step_size|step size|finite"),
]

_STUDIES: list[tuple[str, dict[str, Any], str]] = [
    ("1e15 seeds", {"seeds": 10**15}, "seeds"),
    ("seeds of 2**62", {"seeds": [1 << 62]}, "seeds|seed"),
    ("a million seeds", {"seeds": 1_000_000}, "seeds"),
    ("20,000 entries", {"regimes": [f"r{n}" for n in range(20_000)]}, "unknown regime|entries|at most"),
    ("name with a folder", {"name": "../../tiny"}, "name"),
    ("title of control characters", {"title": "\\u001b]0;t\\u0007", "seeds": 0}, "seeds"),
    ("regime of control characters", {"regimes": ["\\u001b]0;t\\u0007\\u202e"]}, "unknown regime|label"),
    ("1e999999999 as eps", {"threat": "Linf:1e999999999"}, "eps"),
    ("1e999999999 as eps of a curve", {"curve": {"eps": ["1e999999999/3"]}}, "eps"),
    ("100,000 radii", {"curve": {"eps": [f"0.{n:06}" for n in range(1, 100_001)]}}, "eps|at most"),
    ("claim of 100,000 brackets", {"claim": [{"text": "robust" + "(" * 100_000}]}, "claim"),
    ("claim of 20,000 terms", {"claim": [{"text": "1 + " * 20_000 + "1 > 0"}]}, "claim"),
    ("claim of a number of 5,000 digits", {"claim": [{"text": f"robust(bn-ft) > {'9' * 5000}"}]}, "claim|finite"),
    ("claim of control characters", {"claim": [{"text": "\\u001b]0;t\\u0007"}]}, "claim"),
    ("a million combinations", {"search": {"learning_rate": [0.1 + n / 1e4 for n in range(5000)],
                                           "weight_decay": [n / 1e4 for n in range(5000)]}}, "search|combinations"),
    ("minimal effect of minus one", {"minimal_effect": -1}, "minimal_effect"),
    ("architecture of a file with code", {"architecture": "evil.py:make"}, "names code"),
    ("threat of a file with code", {"threat": "evil.py:norm:0.1"}, "names code"),
    ("data set of a file with code", {"dataset": "evil.py:data"}, "names code"),
    ("checkpoint by its whole path", {"entry": [{"checkpoint": "/dev/zero"}]}, "no such checkpoint|zero|unknown"),
]  # fmt: skip


def _tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.TarFile(fileobj=out, mode="w") as tar:
        for about, content in members:
            tar.addfile(about, io.BytesIO(content))
    return lzma.compress(out.getvalue(), preset=0)


def _member(name: str, content: bytes = b"", **facts: Any) -> tuple[tarfile.TarInfo, bytes]:
    about = tarfile.TarInfo(name)
    about.size = len(content)
    for field, value in facts.items():
        setattr(about, field, value)
    return about, content


def _declared(size: int) -> bytes:
    """A member that says it has this size, with nothing behind it."""
    about = tarfile.TarInfo("networks/natural/0/manifest.json")
    about.size = size
    return lzma.compress(about.tobuf(tarfile.GNU_FORMAT) + bytes(1024), preset=0)


def _sparse_member() -> bytes:
    """A member with a hole of 8 GB, as GNU's tar writes it."""
    about = tarfile.TarInfo("networks/natural/0/manifest.json")
    about.type = tarfile.GNUTYPE_SPARSE
    about.size = 512
    header = bytearray(about.tobuf(tarfile.GNU_FORMAT))
    header[386 : 386 + 24] = b"%011o\0%011o\0" % ((8 << 30) - 512 & 0o77777777777, 512)
    header[483:495] = b"%011o\0" % ((8 << 30) - 1)
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header[:512])
    return lzma.compress(bytes(header) + bytes(512) + bytes(1024), preset=0)


_MANIFEST = "networks/natural/0/manifest.json"
_ARCHIVES: dict[str, Callable[[], bytes]] = {
    "text": lambda: b"no archive",
    "nothing inside": lambda: _tar(),
    "expands to 140 MB": lambda: _zeros(140),
    "cut short": lambda: _tar(_member(_MANIFEST, b"{}"))[:-20],
    "member of 8 GB that is not there": lambda: _declared(8 << 30),
    "member of 2**62 bytes": lambda: _declared(1 << 62),
    "member with a hole of 8 GB": _sparse_member,
    "link out of the folder": lambda: _tar(_member(_MANIFEST, type=tarfile.SYMTYPE, linkname="/etc/passwd")),
    "hard link": lambda: _tar(_member(_MANIFEST, type=tarfile.LNKTYPE, linkname="../../x")),
    "member that is a device": lambda: _tar(_member(_MANIFEST, type=tarfile.CHRTYPE, devmajor=1, devminor=5)),
    "member that is a pipe": lambda: _tar(_member(_MANIFEST, type=tarfile.FIFOTYPE)),
    "manifest nested 100,000 deep": lambda: _tar(_member(_MANIFEST, b"[" * 100_000)),
    "manifest that is a list": lambda: _tar(_member(_MANIFEST, b"[]")),
    "manifest of numbers": lambda: _tar(_member(_MANIFEST, b'{"name": 5}')),
    "names out of the folder": lambda: _tar(_member("../../../sprung", b"x")),
    "names of control characters": lambda: _tar(_member("\x1b]0;t\x07", b"x", type=tarfile.SYMTYPE)),
}


def _zeros(megabytes: int) -> bytes:
    packer = lzma.LZMACompressor(preset=0)
    return b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(megabytes)), packer.flush()])


_LOGS: dict[str, bytes | Callable[[], bytes]] = {
    "words for numbers": b"epoch,loss\n1,much\n",
    "number of 5,000 digits and letters": b"epoch\n" + b"9" * 5000 + b"x\n",
    "cell of 200,000 characters": b"epoch\n" + b'"' + b"9" * 200_000 + b'"\n',
    "more cells than columns": b"epoch\n1,2,3\n",
    "not UTF-8": b"epoch\n\xff\n",
    "40 MB": lambda: b"epoch\n" + b"1\n" * (20 << 20),
}
