"""Training passes per second, `harness.training` against a bare loop, in one interleaved run.

``python -m benchmarks.training [--epochs N] [--rounds N] [--parts cpu gpu] [--json FILE]``

Both sides train the same network on the same images with the same attack, batch size and optimiser. The bare loop
logs nothing, keeps nothing and has a constant learning rate. The sides take turns, so that a machine whose speed
drifts is seen to drift; a ratio is taken within a turn, and the median of the turns is reported. On a busy machine
only CPU time means something. The GPU part uses random images of CIFAR's shape, for speed alone.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from benchmarks.autoattack import machine
from harness import datasets, regimes
from harness.datasets import About, Dataset
from harness.models import Model
from harness.threat import ThreatModel
from harness.threat.perturb import Crafting
from harness.training import Settings, train

__all__ = ["main"]


@dataclass(frozen=True)
class Work:
    """What all sides do.

    Attributes:
        network: where the bare loop starts; the same network as ours with its normalisation.
    """

    data: Dataset
    architecture: str
    settings: Settings
    device: str
    network: Model

    @classmethod
    def of(cls, data: Dataset, architecture: str, settings: Settings, device: str) -> Work:
        """With a network that one epoch of ours gives, which is also a warm-up."""
        first = settings.model_copy(update={"epochs": 1, "compile": False})
        done = train(regimes.get("at-full"), dataset=data, settings=first, architecture=architecture, device=device)
        return cls(data, architecture, settings, device, done.last)

    @property
    def passes(self) -> int:
        """Forward passes of single images in an epoch; there are as many backward."""
        size = self.settings.batch_size
        return len(self.data) // size * size * (self.settings.steps + 1)

    def ours(self, **changes: Any) -> list[float]:
        """Train; returns the seconds of each epoch."""
        done = train(
            regimes.get("at-full"),
            dataset=self.data,
            settings=self.settings.model_copy(update=changes),
            architecture=self.architecture,
            device=self.device,
        )
        return [row.seconds for row in done.log]

    def bare(self, layout: torch.memory_format = torch.contiguous_format) -> list[float]:
        """The loop that one writes: Madry et al. 2018, crafting in eval mode. Returns the seconds of each epoch."""
        model = copy.deepcopy(self.network).requires_grad_(True).to(self.device).to(memory_format=layout)
        x = self.data.x[:].to(self.device).contiguous(memory_format=layout)
        y, size = self.data.y.to(self.device), self.settings.batch_size
        crafting = Crafting.of("pgd", self.data.threats[0], steps=self.settings.steps)
        eps, step_size = crafting.threat.radius, crafting.step_size
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
        seconds = []
        for _ in range(self.settings.epochs):
            began = time.perf_counter()
            order = torch.randperm(len(x), device=self.device)
            for first in range(0, len(x) - size + 1, size):
                clean, labels = x[order[first : first + size]], y[order[first : first + size]]
                model.eval()
                points = (clean + eps * (2 * torch.rand_like(clean) - 1)).clamp(0, 1)
                for _ in range(crafting.steps):
                    points.requires_grad_()
                    (grad,) = torch.autograd.grad(F.cross_entropy(model(points), labels), points)
                    points = points.detach() + step_size * grad.sign()
                    points = (clean + (points - clean).clamp(-eps, eps)).clamp(0, 1)
                model.train()
                optimizer.zero_grad()
                loss = F.cross_entropy(model(points), labels)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            if self.device == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
        return seconds


Sides = Mapping[str, Callable[[], list[float]]]
"""What takes turns; each trains once and returns the seconds of its epochs."""


def main() -> None:
    """Run the parts and print a table each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=["cpu", "gpu"], default=["cpu", "gpu"])
    parser.add_argument("--epochs", type=int, default=2, help="in each turn; the first on a GPU is not counted")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    parser.add_argument("--architectures", nargs="+", default=["resnet20", "preact-resnet18"], help="on a GPU")
    parser.add_argument("--json", type=Path, help="write all figures to this file as well")
    options = parser.parse_args()
    record: dict[str, Any] = {"machine": machine()}
    console = Console(width=120)
    console.print(f"[bold]{record['machine']}[/]")
    for part in options.parts:
        if part == "cpu":
            record[part] = _cpu(console, options.epochs, options.rounds)
        else:
            record[part] = _gpu(console, options.epochs, options.rounds, options.architectures)
        if options.json is not None:
            options.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _cpu(console: Console, epochs: int, rounds: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    # validation is further passes, which the bare loop has none of
    settings = Settings(epochs=epochs, validation=0)
    work = Work.of(datasets.load("digits", split="train"), "digits-resnet", settings, "cpu")
    for name, side in _cpu_sides(replace(work, settings=settings.model_copy(update={"epochs": 1}))).items():
        made = _counted(side)
        if made != work.passes:
            raise SystemExit(f"{name} makes {made:,} forward passes an epoch instead of {work.passes:,}")
    sides = _cpu_sides(work)
    wall: dict[str, list[float]] = {name: [] for name in sides}
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            began, began_cpu = time.perf_counter(), time.process_time()
            side()
            wall[name].append(work.passes * epochs / (time.perf_counter() - began))
            cpu[name].append(work.passes * epochs / (time.process_time() - began_cpu))
    title = f"digits-resnet on digits, PGD-{settings.steps}, batch {settings.batch_size}, one thread: {rounds} turns "
    table = Table("side", "passes/s, wall", "passes/s, CPU time", "ours over it, wall", "ours over it, CPU time")
    table.title = title + f"of {epochs} epochs, each {work.passes:,} passes forward and backward"
    for name in sides:
        figures = [f"{statistics.median(rates[name]):,.0f}" for rates in (wall, cpu)]
        ratios = [_ratio(rates["harness.training"], rates[name]) for rates in (wall, cpu)]
        table.add_row(name, *figures, *map(_spread, ratios) if name != "harness.training" else ("-", "-"))
    console.print(table)
    fastest = max(list(sides)[:-1], key=lambda name: statistics.median(cpu[name]))
    ratio = statistics.median(_ratio(cpu["harness.training"], cpu[fastest]))
    console.print(f"ours over the faster bare loop, CPU time: {ratio:.3f}")
    return {"passes": work.passes, "epochs": epochs, "wall": wall, "cpu": cpu, "ratio": ratio}


def _cpu_sides(work: Work) -> Sides:
    return {
        "bare loop": work.bare,
        "bare loop, channels last": lambda: work.bare(torch.channels_last),
        "harness.training": work.ours,
    }


def _gpu(console: Console, epochs: int, rounds: int, architectures: list[str]) -> dict[str, Any] | None:
    if not torch.cuda.is_available():
        console.print("PGD-10 training on a GPU: not measured: no GPU")
        return None
    found = {}
    for architecture in architectures:
        found[architecture] = _on_gpu(console, architecture, epochs, rounds)
    return {"device": torch.cuda.get_device_name(), **found}


def _on_gpu(console: Console, architecture: str, epochs: int, rounds: int) -> dict[str, Any]:
    draws = np.random.default_rng(0)
    images = draws.integers(0, 256, (2_560, 3, 32, 32), dtype=np.uint8)
    about = About(tuple(map(str, range(10))), (3, 32, 32), (ThreatModel("Linf", "8/255"),))
    data = Dataset.of("noise", "train", images, draws.integers(0, 10, len(images)), about=about, size=len(images))
    settings = Settings(epochs=max(2, epochs), batch_size=128, steps=10, validation=0)
    work = Work.of(data, architecture, settings, "cuda")

    def strict() -> list[float]:
        with _without_tf32():
            return work.bare()

    sides: Sides = {
        "bare loop, fp32": strict,
        "bare loop as torch comes": work.bare,
        "harness.training": work.ours,
        "harness.training, bf16, not compiled": lambda: work.ours(compile=False),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    first: dict[str, float] = {}
    for _ in range(rounds):
        for name, side in sides.items():
            begun, *seconds = side()
            console.print(f"{architecture} | {name} | {seconds[-1]:.2f} s an epoch, the first {begun:.1f}")
            first.setdefault(name, begun)
            rates[name].append(work.passes / statistics.median(seconds))
    table = Table("side", "passes/s", "times the bare loop in fp32", "times it as torch comes", "first epoch of all, s")
    table.title = f"{architecture}, PGD-10, batch 128, {torch.cuda.get_device_name()}, {rounds} turns"
    plain, default = rates["bare loop, fp32"], rates["bare loop as torch comes"]
    for name in sides:
        ratios = [_spread(_ratio(rates[name], other)) for other in (plain, default)]
        table.add_row(name, f"{statistics.median(rates[name]):,.0f}", *ratios, f"{first[name]:.1f}")
    console.print(table)
    ratio = statistics.median(_ratio(rates["harness.training"], plain))
    console.print(f"ours over the bare loop in fp32: {ratio:.2f}")
    return {"passes": work.passes, "rates": rates, "first_epoch": first, "ratio": ratio}


def _counted(side: Callable[[], list[float]]) -> int:
    """Images that a side sends forward."""
    images = 0

    def note(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal images
        if isinstance(module, Model):
            images += len(inputs[0])

    handle = register_module_forward_pre_hook(note)
    try:
        side()
    finally:
        handle.remove()
    return images


@contextmanager
def _without_tf32() -> Iterator[None]:
    """Convolutions in full float32; torch rounds them to TF32 unless told otherwise."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _ratio(ours: list[float], theirs: list[float]) -> list[float]:
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"


if __name__ == "__main__":
    main()
