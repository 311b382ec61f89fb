"""One side of a comparison, in a process of its own: run it, print one JSON line.

``python -m benchmarks._side '{"side": "ours", "model": ..., ...}'``; not meant to be called by hand.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.fx

from benchmarks._foreign import WIDE, load, samples, wide
from harness import reference
from harness.accelerate import accelerate
from harness.evaluation import examine
from harness.passes import Passes
from harness.suites import Step, Suite

__all__ = ["main"]


def main() -> None:
    """Run what the first argument describes."""
    job: dict[str, Any] = json.loads(sys.argv[1])
    material = Path(job["material"])
    torch.set_num_threads(job["threads"])
    device = torch.device(job.get("device", "cpu"))
    model = (wide(job["n"]) if job["model"] == WIDE else load(job["model"], material)).to(device)
    x, y = samples("cifar" if job["model"] == WIDE else job["model"], job["source"], material)
    repeats = -(-job["n"] // len(x))
    x, y = x.repeat(repeats, 1, 1, 1)[: job["n"]], y.repeat(repeats)[: job["n"]]
    with torch.no_grad():
        model(x[:4].to(device))  # one-off costs of the first pass belong to neither side
        if job["model"] == WIDE:
            y = torch.cat([model(part.to(device)).argmax(1).cpu() for part in torch.split(x, 64)])
    answer = _reference(job, model, x, y) if job["side"] == "reference" else _ours(job, model, x, y)
    if device.type == "cuda":
        answer["gpu_peak_mb"] = torch.cuda.max_memory_allocated() / 2**20
    print(json.dumps({"peak_mb": _peak_mb(), **answer}))


def _peak_mb() -> float:
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024


def _reference(job: dict[str, Any], model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
    device = job.get("device", "cpu")
    seconds = []
    for _ in range(job["repeats"]):
        began = time.perf_counter()
        outcome = reference.run(
            model,
            x.to(device),
            y.to(device),
            job["threat"],
            seed=job["seed"],
            batch_size=job["batch_size"] or len(x),
            device=device,
        )
        seconds.append(time.perf_counter() - began)
    return {
        "seconds": statistics.median(seconds),
        "all_seconds": seconds,
        "passes": sum(step.forward for step in outcome.steps),
        "robust": outcome.robust.tolist(),
        "steps": [[s.name, s.before, s.after, s.forward, s.backward, s.seconds] for s in outcome.steps],
    }


def _ours(job: dict[str, Any], model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
    suite: Any = job["suite"]
    if isinstance(suite, list):
        suite = Suite("short", tuple(Step(*step) for step in suite))
    seconds = []
    for _ in range(job["repeats"]):
        began = time.perf_counter()
        with _census(model) as counts:
            done = examine(
                model,
                x,
                y,
                threat=job["threat"],
                suite=suite,
                seed=job["seed"],
                batch_size=job["batch_size"] or "auto",
                precision=job["precision"],
                workers=job["workers"],
                device=job.get("device", "cpu"),
                compiled=job.get("compiled", False),
                graphs=job.get("graphs", False),
            )
        seconds.append(time.perf_counter() - began)
    result = done.result
    judged = sum(step.judge for step in result.steps)
    return {
        "peak_mb": _peak_mb(),  # before bare loops are made
        "seconds": statistics.median(seconds),
        "all_seconds": seconds,
        "passes": int(done.verdicts.forward.sum()) + judged,
        "judged": judged,
        "robust": done.verdicts.robust.tolist(),
        "steps": [[s.name, s.before, s.after, s.forward, s.backward, s.seconds] for s in result.steps],
        "overhead": result.overhead,
        "model_seconds": result.model_seconds,
        "backward": int(done.verdicts.backward.sum()),
        "batch": result.environment.batch_size,
        "pure_seconds": _pure_seconds(counts, model, x, job["precision"]) if job.get("pure") else None,
        "passes_made": result.environment.passes,
    }


@contextmanager
def _census(model: torch.nn.Module) -> Iterator[Counter[tuple[bool, bool, int]]]:
    """Count the passes made inside: (by the judge, with gradient, size of the batch) -> how many."""
    counts: Counter[tuple[bool, bool, int]] = Counter()
    original = Passes._timed

    def counted(self: Passes, x: torch.Tensor, one: Any, part: slice) -> Any:
        plain = self.network is model
        counts[plain, "gradient" in one.__qualname__, part.stop - part.start] += 1
        return original(self, x, one, part)

    Passes._timed = counted  # type: ignore[method-assign]
    try:
        yield counts
    finally:
        Passes._timed = original  # type: ignore[method-assign]


def _pure_seconds(
    counts: Counter[tuple[bool, bool, int]], model: torch.nn.Module, x: torch.Tensor, precision: str
) -> float:
    """What the very passes that were made cost in bare loops, each at the size of its batch."""
    fast, notes = accelerate(model, precision=precision, shape=tuple(x.shape[1:]))
    layout = torch.channels_last if "channels_last" in notes else torch.contiguous_format

    def forward(network: torch.nn.Module, batch: torch.Tensor) -> None:
        with torch.no_grad():
            network(batch)

    def both(network: torch.nn.Module, batch: torch.Tensor) -> None:
        leaf = batch.detach().requires_grad_()
        torch.autograd.grad(network(leaf).logsumexp(1).sum(), leaf)

    total = 0.0
    for (plain, gradient, size), count in counts.items():
        network = model if plain else fast
        batch = x.repeat(-(-size // len(x)), 1, 1, 1)[:size]
        batch = batch if plain else batch.contiguous(memory_format=layout)
        times = []
        for _ in range(6):
            began = time.perf_counter()
            (both if gradient else forward)(network, batch)
            times.append(time.perf_counter() - began)
        total += count * statistics.median(times[1:])
    return total


if __name__ == "__main__":
    main()
