"""Data sets: archives of arrays, folders of images, and the files of known data sets."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from harness import datasets
from tests.hostile.case import Case, Kind, Trap, strange, text

__all__ = ["cases", "zip_bomb"]

X = np.arange(6 * 3 * 8 * 10, dtype=np.uint8).reshape(6, 3, 8, 10)
Y = np.array([0, 1, 2, 0, 1, 2])


def _named(name: str, levels: int = 1) -> Callable[[Path], object]:
    return lambda path: datasets.load(name, data_dir=path.parents[levels])


def _pictures(path: Path) -> None:
    """A folder of two classes, an image each; the file of the case comes beside the first."""
    for label in ("a", "b"):
        folder = path.parents[1] / label
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (10, 8)).save(folder / "0.png")


ARRAYS = Kind("data set of arrays", "own.npz", datasets.load)
IMAGES = Kind("image", "images/a/1.png", lambda path: datasets.load(path.parents[1]), _pictures)
CLASS = Kind("folder of a class", "images/c", lambda path: datasets.load(path.parent), lambda p: _pictures(p / "0.png"))
CIFAR = Kind("CIFAR-10", "cifar-10-batches-py/test_batch", _named("cifar10"))
MNIST = Kind("MNIST", "MNIST/raw/t10k-images-idx3-ubyte", _named("mnist", 2), lambda path: _mnist(path))
JPEGS = Kind("CIFAR-10 as JPEG", "cifar10_jpeg_test.npz", _named("cifar10-jpeg", 0))
CODE = Kind("data set in a file of code", "own.py", lambda path: datasets.load(f"{path}:own"))


def cases() -> Iterator[Case]:
    """All of them."""
    yield from strange(ARRAYS, "no such file|not an .npz archive|folder|neither|no subfolder|one subfolder")
    for name, arrays, message in _ARRAYS:
        yield Case(ARRAYS, name, _arrays(arrays), message)
    for name, make, message in _ARCHIVES:
        yield Case(ARRAYS, name, text(make), message)
    yield from strange(IMAGES, "cannot be read|is no plain file|not a readable image|cannot read|is empty")
    for name, make, message in _IMAGES:
        yield Case(IMAGES, name, text(make), message)
    yield Case(CLASS, "link to all files", lambda path: path.symlink_to("/"), "leads out|lies in itself")
    yield Case(
        CLASS, "link to the folder itself", lambda path: path.symlink_to(path.parent), "leads out|lies in itself"
    )
    yield Case(CLASS, "name that a terminal would act on", _strange_class, "holds no images")
    yield from strange(CIFAR, "not found|damaged|larger|no plain file")
    yield Case(CIFAR, "code", text(pickle.dumps({"data": Trap(), "labels": Trap()})), "not found|damaged")
    yield from strange(MNIST, "not found|damaged|larger|no plain file")
    for name, content, message in _MNIST:
        yield Case(MNIST, name, text(content), message)
    yield from strange(JPEGS, "not found|not an .npz archive|no such file|is empty")
    for name, arrays, message in _JPEGS:
        yield Case(JPEGS, name, _arrays(arrays), message)
    yield from strange(CODE, "there is no file|cannot read|fails when it is run|defines|unknown")
    yield Case(CODE, "nested 100,000 deep", text("a = " + "(" * 100_000), "fails when it is run")
    yield Case(CODE, "error that a terminal would act on", text("raise ValueError('\\x1b]0;t\\x07')"), "fails when")
    yield Case(CODE, "not UTF-8", text(b"a = '\xff'"), "fails when it is run")


def _mnist(path: Path) -> None:
    path.with_name("t10k-labels-idx1-ubyte").write_bytes(struct.pack(">2L", 2049, 2) + b"\0\1")


def _strange_class(path: Path) -> None:
    path.with_name("\x1b]0;title\x07\u202e").mkdir()


def _arrays(arrays: dict[str, Any]) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, **({"x": X, "y": Y} | arrays))

    return write


def _header(shape: str, dtype: str = "|u1") -> bytes:
    text = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}"
    padded = text.encode() + b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded


def _zip(**members: bytes) -> bytes:
    out = io.BytesIO()
    labels = io.BytesIO()
    np.save(labels, Y)
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in ({"y": labels.getvalue()} | members).items():
            archive.writestr(f"{name}.npy", content)
    return out.getvalue()


def zip_bomb(name: str, head: bytes, size: int) -> bytes:
    """A ZIP archive of one member that begins with ``head`` and expands to so many bytes, mostly zeros."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    blocks = (size - len(head)) >> 20
    data = first + block * blocks + packer.flush()
    size = len(head) + (blocks << 20)
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 0, 0, len(data), size, len(name), 0) + name.encode()
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 8, 0, 0, 0, len(data), size, len(name), 0, 0, 0, 0, 0, 0)
    entry += name.encode()
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(entry), len(local) + len(data), 0)
    return local + data + entry + end


def _twice(name: str) -> bytes:
    out = io.BytesIO(_zip(x=_header("(6, 3, 8, 10)") + X.tobytes()))
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr(name, _header("(6, 3, 8, 10)") + bytes(X.nbytes))
    return out.getvalue()


def _encrypted() -> bytes:
    content = bytearray(_zip(x=_header("(6, 3, 8, 10)") + X.tobytes()))
    content[content.rindex(b"PK\1\2") + 8] |= 1
    return bytes(content)


def _png(size: tuple[int, int], mode: str = "RGB") -> bytes:
    """A PNG that says it has this size and holds the pixels of one of 10x8."""
    out = io.BytesIO()
    Image.new(mode, (10, 8)).save(out, "PNG")
    content = bytearray(out.getvalue())
    struct.pack_into(">2L", content, 16, *size)
    struct.pack_into(">L", content, 29, zlib.crc32(content[12:29]))
    return bytes(content)


def _png_with(kind: bytes, content: bytes) -> bytes:
    sound = _png((10, 8))
    chunk = struct.pack(">L", len(content)) + kind + content + struct.pack(">L", zlib.crc32(kind + content))
    return sound[:33] + chunk + sound[33:]


def _saved(kind: str, image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


_ARRAYS: list[tuple[str, dict[str, Any], str]] = [
    ("objects", {"y": np.array([Trap()] * 6, dtype=object)}, "Python objects"),
    ("labels of 2**62", {"y": np.array([0, 1, 2, 0, 1, 1 << 62])}, "labels|classes"),
    ("labels of 2**63", {"y": np.array([0, 1, 2, 0, 1, 1 << 63], dtype=np.uint64)}, "labels|classes"),
    ("labels of 20,000,000", {"y": np.array([0, 1, 2, 0, 1, 20_000_000])}, "labels|classes"),
    ("2e9 classes", {"classes": np.array(2_000_000_000)}, "classes must be"),
    ("2**63 classes", {"classes": np.array(1 << 63, dtype=np.uint64)}, "classes must be"),
    ("a record for labels", {"y": np.zeros(6, dtype=[("a", "<i8")])}, "whole numbers"),
    ("dates for labels", {"y": np.zeros(6, dtype="datetime64[s]")}, "whole numbers"),
    ("text for images", {"x": np.full((6, 3, 8, 10), "a")}, "must be uint8"),
    ("dates for images", {"x": np.zeros((6, 3, 8, 10), dtype="datetime64[s]")}, "must be uint8"),
    ("long doubles above 1", {"x": np.full((6, 3, 8, 10), 2, dtype=np.longdouble)}, "must be uint8"),
    ("subnormal images of NaN", {"x": np.full((6, 3, 8, 10), np.nan, dtype=np.float16)}, "NaN or infinite"),
    ("no dimension", {"x": np.uint8(1)}, "must be|got"),
    ("32 dimensions", {"x": np.zeros((6,) + (1,) * 31, np.uint8)}, "must be images|images"),
    ("no pixels", {"x": np.zeros((6, 3, 0, 0), np.uint8)}, "no images|cannot tell"),
    ("threat of a file with code", {"threat": np.array("evil.py:norm:0.1")}, "registered one"),
    ("1e999999999 as eps", {"threat": np.array("Linf:1e999999999")}, "eps"),
    ("a fraction of 1e999999999 as eps", {"threat": np.array("Linf:1e999999999/3")}, "eps"),
    ("eps that a terminal would act on", {"threat": np.array("\x1b]0;t\x07:0.1\u202e")}, "eps|norm"),
    ("threats in a table", {"threat": np.array([["Linf:0.1"]])}, "must be text"),
]

_ARCHIVES: list[tuple[str, Callable[[], bytes], str]] = [
    ("a pickle", lambda: pickle.dumps(Trap()), "not an .npz archive"),
    ("2 GB of zeros", lambda: zip_bomb("x.npy", _header("(262144, 3, 52, 52)"), 2 << 30), "missing y|expands|damaged"),
    ("2 GB of labels", lambda: _bombed_labels(), "expands"),
    ("shape of 12 GB with nothing in it", lambda: _zip(x=_header("(1000000, 3, 64, 64)")), "damaged|declared"),
    ("shape of 2**62", lambda: _zip(x=_header(f"({1 << 31}, {1 << 31})")), "damaged|declared"),
    ("shape of 5,000 digits", lambda: _zip(x=_header(f"({'9' * 5000},)")), "damaged|declared"),
    ("negative shape", lambda: _zip(x=_header("(-6, 3, 8, 10)") + X.tobytes()), "damaged|declared"),
    ("shape of truth values", lambda: _zip(x=_header("(True, 3, 8, 10)") + bytes(240)), "damaged|declared|one label"),
    ("shape in words", lambda: _zip(x=_header("'six'")), "damaged|declared"),
    ("shape that is a call", lambda: _zip(x=_header("__import__('os').system('touch sprung')")), "damaged"),
    ("shape nested 2,000 deep", lambda: _zip(x=_header("(" * 2000 + ")" * 2000)), "damaged"),
    ("header of 60,000 bytes", lambda: _zip(x=_header(f"(6, 3, 8, 10){' ' * 60_000}") + X.tobytes()), "damaged"),
    ("text of 2**31 characters each", lambda: _zip(classes=_header("(3,)", f"<U{(1 << 31) - 1}"), x=b""), "damaged"),
    ("type that there is not", lambda: _zip(x=_header("(6, 3, 8, 10)", "|z9") + X.tobytes()), "damaged"),
    ("objects by their header", lambda: _zip(x=_header("(6,)", "|O") + pickle.dumps([Trap()] * 6)), "Python objects"),
    ("no array inside", lambda: _zip(x=b"these are no numbers"), "damaged|Python objects|no array"),
    ("format of the future", lambda: _zip(x=b"\x93NUMPY\x09\x00" + _header("(6, 3, 8, 10)")[8:]), "damaged"),
    ("more than the shape holds", lambda: _zip(x=_header("(6, 3, 8, 10)") + X.tobytes() * 2), "damaged|declared"),
    ("less than the shape holds", lambda: _zip(x=_header("(6, 3, 8, 10)") + X.tobytes()[:9]), "damaged|declared"),
    ("same array twice", lambda: _twice("x.npy"), "twice"),
    ("encrypted", _encrypted, "damaged|encrypted"),
    ("20,000 arrays", lambda: _zip(**{f"a{n}": b"" for n in range(20_000)}), "missing x"),
    ("names that a terminal would act on", lambda: _zip(**{"\x1b]0;t\x07\u202e": b""}), "missing x"),
]


def _bombed_labels() -> bytes:
    out = io.BytesIO(zip_bomb("y.npy", _header("(268435456,)", "<i8"), 2 << 30))
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr("x.npy", _header("(6, 3, 8, 10)") + X.tobytes())
    return out.getvalue()


_IMAGES: list[tuple[str, Callable[[], bytes], str]] = [
    ("text", lambda: b"no image", "not a readable image"),
    ("PNG that is cut short", lambda: _png((10, 8))[:40], "not a readable image"),
    ("PNG of 2**31 by 2**31 pixels", lambda: _png(((1 << 31) - 1, (1 << 31) - 1)), "pixels|not a readable image"),
    ("PNG of 100 million pixels", lambda: _png((10_000, 10_000)), "pixels|not a readable image"),
    ("PNG of another size", lambda: _png((90, 80)), "not a readable image|one size"),
    ("PNG with text that expands", lambda: _png_with(b"zTXt", b"a\0\0" + zlib.compress(bytes(70 << 20))), "readable"),
    ("PNG with a profile that expands", lambda: _png_with(b"iCCP", b"a\0\0" + zlib.compress(bytes(70 << 20))), "reada"),
    ("PNG of 16 bits", lambda: _saved("PNG", Image.new("I;16", (10, 8))), "8 bits a channel"),
    ("PostScript, which would be run", lambda: _POSTSCRIPT, "not a readable image"),
    ("GIF under another name", lambda: _saved("GIF", Image.new("P", (10, 8))), "not a readable image"),
    ("TIFF of floats", lambda: _saved("TIFF", Image.new("F", (10, 8))), "8 bits a channel"),
    ("bitmap of 30,000 by 30,000 pixels", lambda: _bitmap(30_000, 30_000), "pixels|not a readable image"),
    ("bitmap of negative size", lambda: _bitmap(-10, -8), "readable|one size"),
    ("JPEG of 65,000 by 65,000 pixels", lambda: _jpeg(65_000, 65_000), "pixels|not a readable image"),
]

_POSTSCRIPT = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 8\n%%EndComments\n(sprung) (w) file closefile\nshowpage\n%%EOF\n"
)


def _bitmap(width: int, height: int) -> bytes:
    content = bytearray(_saved("BMP", Image.new("RGB", (10, 8))))
    struct.pack_into("<2l", content, 18, width, height)
    return bytes(content)


def _jpeg(width: int, height: int) -> bytes:
    content = bytearray(_saved("JPEG", Image.new("RGB", (10, 8))))
    struct.pack_into(">2H", content, content.index(b"\xff\xc0") + 5, height, width)
    return bytes(content)


_MNIST: list[tuple[str, bytes, str]] = [
    ("2**32 images that are not there", struct.pack(">4L", 2051, (1 << 32) - 1, 28, 28), "damaged"),
    ("images of 2**32 pixels a side", struct.pack(">4L", 2051, 2, (1 << 32) - 1, (1 << 32) - 1), "damaged"),
    ("fewer images than labels", struct.pack(">4L", 2051, 1, 28, 28) + bytes(784), "one label|damaged"),
    ("no dimension", struct.pack(">L", 2048), "damaged"),
    ("200 dimensions", struct.pack(">L", 2048 + 200), "damaged"),
    ("text", b"no images", "damaged"),
]

_STREAM = np.frombuffer(_saved("JPEG", Image.new("RGB", (32, 32))), np.uint8)
_JPEGS: list[tuple[str, dict[str, Any], str]] = [
    (
        "offsets beyond the bytes",
        {"jpeg": _STREAM, "offset": np.array([0, 1 << 62]), "y": np.array([0])},
        "readable|offs",
    ),
    ("negative offsets", {"jpeg": _STREAM, "offset": np.array([-5, -2]), "y": np.array([0])}, "readable|offset"),
    ("no offsets", {"jpeg": _STREAM, "offset": np.array([0]), "y": np.array([0])}, "expected jpeg"),
    ("labels without dimension", {"jpeg": _STREAM, "offset": np.array([0]), "y": np.int64(0)}, "expected jpeg|labels"),
    (
        "labels in a table",
        {"jpeg": _STREAM, "offset": np.array([0, 9]), "y": np.array([[0, 1]])},
        "expected jpeg|label",
    ),
    ("labels of 2**62", {"jpeg": _STREAM, "offset": np.array([0, len(_STREAM)]), "y": np.array([1 << 62])}, "labels"),
    (
        "image of 65,000 by 65,000 pixels",
        {
            "jpeg": np.frombuffer(_jpeg(65_000, 65_000), np.uint8),
            "offset": np.array([0, len(_jpeg(65_000, 65_000))]),
            "y": np.array([0]),
        },
        "expected 32x32|not a readable",
    ),
]
