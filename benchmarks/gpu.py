"""Passes and AutoAttack on a GPU, ours against the plain model and the reference, in interleaved runs.

``python -m benchmarks.gpu [--parts passes attacks] [--material DIR] [--json FILE]``

``passes``: milliseconds per image of a pass forward and backward, for the plain model and for every way in which ours
makes passes, each alone and together: number formats, the memory format channels_last, CUDA graphs, torch.compile.

``attacks``: AutoAttack's verdict. ``robust`` is ``resnet32_at_all.pt``; ``wide`` a WRN-28-10 with random weights that
is asked to keep its own predictions, at a radius at which samples survive. Ours runs before and after the reference.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks._foreign import WIDE, add_material, load, wide
from benchmarks.autoattack import machine, run_side
from harness import models
from harness.backends import Backend, eager, plain
from harness.backends.passes import Passes
from harness.backends.static import static

__all__ = ["main"]

_LARGE = (3, 224, 224)
_NETWORKS: dict[str, tuple[Callable[[Path], nn.Module], tuple[int, ...], tuple[int, ...]]] = {
    "resnet32": (lambda material: load("resnet32_at_all.pt", material), (3, 32, 32), (64, 256, 600)),
    WIDE: (lambda material: wide(64), (3, 32, 32), (256,)),
    "resnet50": (lambda material: models.build("torchvision:resnet50", classes=1000, shape=_LARGE), _LARGE, (64,)),
}
"""How each is made, the shape of its images, and the batches it is timed with."""

_CASES: dict[str, dict[str, Any]] = {
    "robust": {"model": "resnet32_at_all.pt", "n": 600, "threat": "Linf:8/255"},
    "wide": {"model": WIDE, "n": 256, "threat": "Linf:0.25/255"},
}
_COMES = "as it comes"
_WAYS: dict[str, dict[str, Any]] = {
    _COMES: {"precision": "auto"},
    "fp32": {"precision": "fp32", "graphs": False},
    "tf32": {"precision": "tf32", "graphs": False},
    "bf16": {"precision": "bf16", "graphs": False},
    "fp32, graphs": {"precision": "fp32", "graphs": True},
    "tf32, graphs": {"precision": "tf32", "graphs": True},
    "bf16, graphs": {"precision": "bf16", "graphs": True},
    "fp32, compile": {"precision": "fp32", "graphs": False, "compiled": True},
    "bf16, compile": {"precision": "bf16", "graphs": False, "compiled": True},
    "bf16, compile, graphs": {"precision": "bf16", "graphs": True, "compiled": True},
}
"""What ours may use; as it comes, it finds out by itself what is fastest."""


def main() -> None:
    """Run the parts and print a table each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_material(parser)
    parser.add_argument("--parts", nargs="+", choices=["passes", "attacks"], default=["passes", "attacks"])
    parser.add_argument("--networks", nargs="+", choices=list(_NETWORKS), default=list(_NETWORKS))
    parser.add_argument("--cases", nargs="+", choices=list(_CASES), default=list(_CASES))
    parser.add_argument("--ways", nargs="+", choices=list(_WAYS), default=list(_WAYS))
    parser.add_argument("--n", type=int, help="images of an attack, instead of those of its case")
    parser.add_argument("--json", type=Path, help="write all figures to this file as well")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("there is no GPU here: nothing was measured")
    record: dict[str, Any] = {"machine": f"{torch.cuda.get_device_name()}, {machine()}", "passes": {}, "attacks": {}}
    console = Console(width=150)
    console.print(f"[bold]{record['machine']}[/]")

    def note(part: str, name: str, figures: object) -> None:
        record[part][name] = figures
        if options.json is not None:
            options.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

    for name in options.networks if "passes" in options.parts else ():
        note("passes", name, _passes(console, name, options.material, options.ways))
    for name in options.cases if "attacks" in options.parts else ():
        _attacks(console, name, options.material, options.ways, options.n, partial(note, "attacks"))


def _passes(console: Console, name: str, material: Path, ways: list[str]) -> list[dict[str, Any]]:
    make, shape, sizes = _NETWORKS[name]
    model = make(material).eval().cuda()
    generator = torch.Generator().manual_seed(0)
    table = Table(
        "way", *(f"{size} at once" for size in sizes), "MiB", title=f"{name}: ms an image, both ways (forward)"
    )
    rows = []
    for way, backend in _backends(model, ways, max(sizes)):
        cells: list[str] = []
        ms: dict[int, list[float]] = {}
        torch.cuda.reset_peak_memory_stats()
        for size in sizes:
            x = torch.rand(size, *shape, generator=generator).cuda()
            x = x.contiguous(memory_format=backend.layout_of(x))
            passes = Passes(backend.network, None, size, backend.precision, backend.layout_of(x))
            both = _milliseconds(lambda p=passes, x=x: p.gradient(x, _loss, "timed")) / size  # type: ignore[misc]
            forward = _milliseconds(lambda p=passes, x=x: p.logits(x, "timed")) / size  # type: ignore[misc]
            ms[size] = [both, forward]
            cells.append(f"{both:.4f} ({forward:.4f})")
        peak = torch.cuda.max_memory_allocated() / 2**20
        table.add_row(way, *cells, f"{peak:,.0f}")
        rows.append({"way": way, "ms": ms, "peak_mb": peak})
        console.print(f"{name} | {way} | {' | '.join(cells)}")
        torch.compiler.reset()
    console.print(table)
    return rows


def _backends(model: nn.Module, ways: list[str], largest: int) -> Iterator[tuple[str, Backend]]:
    for precision in ("fp32", "tf32"):
        yield f"plain, {precision}", replace(plain(model), precision=precision)
    for way in ways:
        if way == _COMES:
            continue
        chosen = _WAYS[way]
        backend = eager(model, precision=chosen["precision"])
        if chosen.get("graphs") or chosen.get("compiled"):
            asked = {"compiled": chosen.get("compiled", False), "graphs": chosen.get("graphs", False)}
            backend = static(backend, largest=largest, **asked)
        else:
            nchw = eager(model, precision=chosen["precision"])
            nchw.network.to(memory_format=torch.contiguous_format)
            yield f"ours, {way}, contiguous", replace(nchw, layout=torch.contiguous_format)
        yield f"ours, {way}", backend


def _milliseconds(call: Callable[[], object], repeats: int = 10) -> float:
    """The median of ``repeats`` calls, each waited for, after three that nobody times."""
    seconds = []
    for turn in range(repeats + 3):
        torch.cuda.synchronize()
        began = time.perf_counter()
        call()
        torch.cuda.synchronize()
        if turn >= 3:
            seconds.append(time.perf_counter() - began)
    return 1000 * statistics.median(seconds)


def _loss(logits: Tensor, part: slice) -> Tensor:
    return logits.logsumexp(dim=1)


def _attacks(
    console: Console, name: str, material: Path, ways: list[str], n: int | None, note: Callable[[str, object], None]
) -> None:
    """Note every side as it is done: a GPU may be lent for less time than all of them take."""
    case = {**_CASES[name], **({} if n is None else {"n": n})}
    job = {**case, "device": "cuda", "source": min(600, case["n"])}
    columns = ("way", "seconds", "times faster", "robust", "differ", "passes/s", "share of ceiling", "MiB")
    table = Table(*columns, title=f"{name}, {case['n']} images")

    sides: list[dict[str, Any]] = []

    def run(way: str) -> dict[str, Any]:
        side = run_side("ours" if way in _WAYS else "reference", material, **job, **_WAYS.get(way, {}))
        console.print(f"{name} | {way} | {side['seconds']:.1f} s, {sum(side['robust'])} robust")
        for step, before, after, forward, backward, seconds in side["steps"]:
            console.print(f"  {step}: {before} to {after}, {forward:,} + {backward:,} passes, {seconds:.1f} s")
        console.print(f"  {'; '.join(side.get('passes_made', ()))}", highlight=False)
        sides.append({"way": way, **side})
        note(name, sides)
        return side

    before = {way: run(way) for way in ways}
    theirs = run("reference")
    table.add_row("reference", f"{theirs['seconds']:.1f}", "1", str(sum(theirs["robust"])), *"---", _mib(theirs))
    for way in ways:
        after = run(way)
        seconds = statistics.mean((before[way]["seconds"], after["seconds"]))
        table.add_row(
            way,
            f"{before[way]['seconds']:.1f}, {after['seconds']:.1f}",
            f"{theirs['seconds'] / seconds:.2f}",
            str(sum(after["robust"])),
            str(sum(a != b for a, b in zip(theirs["robust"], after["robust"], strict=True))),
            f"{after['passes'] / seconds:,.0f}",
            f"{after['model_seconds'] / after['seconds']:.0%}",
            _mib(after),
        )
    console.print(table)


def _mib(side: dict[str, Any]) -> str:
    return f"{side['gpu_peak_mb']:,.0f}"


if __name__ == "__main__":
    main()
